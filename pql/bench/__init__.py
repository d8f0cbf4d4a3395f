"""Measurements: what `scripts/bench.py` and `make gpu-check` run, a file for each."""
