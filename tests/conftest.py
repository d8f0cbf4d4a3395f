"""Shared by the tests of more than one package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture
def standin():
    """`isaacgym_standin/paths.py`: where the stand-ins for Isaac Gym lie."""
    path = Path(__file__).resolve().parent / "isaacgym_standin" / "paths.py"
    spec = importlib.util.spec_from_file_location("isaacgym_standin_paths", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
