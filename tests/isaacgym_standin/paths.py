"""Where the stand-ins lie, and the environment of a process that finds them."""

import importlib
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SMALL = HERE / "small"
PACKAGES = Path(sys.prefix) / "isaacgym"  # what `make test-isaacgym` installs for IndustReal's tasks


def environment(envs=SMALL):
    """Variables for a subprocess that imports our isaacgym, `envs`' isaacgymenvs, and this project."""
    return {"PYTHONPATH": os.pathsep.join(map(str, (HERE, envs, ROOT, PACKAGES))), "OMP_NUM_THREADS": "1"}


def clocks():
    """The counting worlds, which need no simulator, in a process that has imported torch."""
    folder = str(SMALL / "isaacgymenvs" / "tasks")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module("clocks")
    finally:
        sys.path.remove(folder)
