"""Shared by the tests of more than one package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch


def pytest_collection_modifyitems(items):
    """Tests marked `gpu` run where there is one."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU: make gpu-check runs it"))


@pytest.fixture
def standin():
    """`isaacgym_standin/paths.py`: where the stand-ins for Isaac Gym lie."""
    path = Path(__file__).resolve().parent / "isaacgym_standin" / "paths.py"
    spec = importlib.util.spec_from_file_location("isaacgym_standin_paths", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
