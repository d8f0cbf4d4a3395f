"""Stand-ins for a user's downloads: a tarball shaped as Isaac Gym's, and a folder shaped as IsaacGymEnvs' checkout."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

SETUP = "from setuptools import setup\n\nsetup(name={name!r}, version={version!r}, packages=[{name!r}])\n"
# Enough C++ to be compiled as torch compiles gymtorch, with the two macros that Isaac Gym's own source reads.
GYMTORCH = """#include <torch/extension.h>
int torch_version() { return 100 * TORCH_MAJOR + TORCH_MINOR; }
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) { m.def("torch_version", &torch_version); }
"""


def isaacgym_tarball(path: Path, version: str = "1.0.preview4") -> Path:
    """Write a .tar.gz with Isaac Gym's layout whose setup.py states `version`."""
    files = {
        "isaacgym/python/setup.py": SETUP.format(name="isaacgym", version=version),
        "isaacgym/python/isaacgym/__init__.py": "",
        "isaacgym/python/isaacgym/_bindings/src/gymtorch/gymtorch.cpp": GYMTORCH,
    }
    return tarball(path, files)


def tarball(path: Path, files: dict[str, str]) -> Path:
    """Write a .tar.gz that holds `files`, names to text."""
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def isaacgymenvs_checkout(folder: Path) -> Path:
    """Make a folder with the parts of IsaacGymEnvs that an image takes."""
    (folder / "assets").mkdir(parents=True)
    (folder / "assets" / "cartpole.urdf").write_text("<robot/>\n")
    (folder / "isaacgymenvs" / "tasks").mkdir(parents=True)
    (folder / "isaacgymenvs" / "__init__.py").write_text("")
    (folder / "isaacgymenvs" / "tasks" / "__init__.py").write_text("")
    (folder / "setup.py").write_text(SETUP.format(name="isaacgymenvs", version="1.5.1"))
    return folder
