"""Shared by the tests of more than one package."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
import torch


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """Of `make test`: a process of tests per core, but 4 at most, as each may start three that train; on a GPU one."""
    return 1 if torch.cuda.is_available() else min(len(os.sched_getaffinity(0)), 4)


def pytest_collection_modifyitems(items):
    """Tests marked `gpu` run where there is one."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU: make gpu-check runs it"))


def _module(*parts):
    """A file beside this one, as a module."""
    path = Path(__file__).resolve().parent.joinpath(*parts)
    spec = importlib.util.spec_from_file_location("_".join(parts).replace(".py", ""), path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def foreign():
    """`foreign/shares.py`: other people's environments that know what is true, without worker processes."""
    pytest.importorskip("gymnasium", reason="needs gymnasium: pip install .[gym]")
    return _module("foreign", "shares.py")


@pytest.fixture
def standin():
    """`isaacgym_standin/paths.py`: where the stand-ins for Isaac Gym lie."""
    return _module("isaacgym_standin", "paths.py")
