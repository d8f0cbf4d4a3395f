"""Terrains, which the tests don't build."""
