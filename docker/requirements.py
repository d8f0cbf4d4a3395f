"""Print what a setup.py asks for, one requirement a line: an image installs it before the project's code is there."""

from __future__ import annotations

import runpy
import sys

import setuptools

asked: dict = {}
setuptools.setup = asked.update
runpy.run_path(sys.argv[1])
print(*asked["install_requires"], sep="\n")
