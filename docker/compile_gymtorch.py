"""Compile Isaac Gym's torch binding as its own gymtorch.py will ask for it, so that a run finds it made."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.utils.cpp_extension import load

source = Path(sys.argv[1]) / "isaacgym" / "_bindings" / "src" / "gymtorch" / "gymtorch.cpp"
major, minor = torch.__version__.split(".")[:2]
load(name="gymtorch", sources=[str(source)], extra_cflags=[f"-DTORCH_MAJOR={major}", f"-DTORCH_MINOR={minor}"])
