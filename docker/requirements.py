"""Print what a setup.py and its extras named after it ask for, one requirement a line.

An image installs it before the project's code is there.
"""

from __future__ import annotations

import runpy
import sys

import setuptools

asked: dict = {}
setuptools.setup = asked.update
runpy.run_path(sys.argv[1])
extras = [line for name in sys.argv[2:] for line in asked["extras_require"][name]]
print(*asked["install_requires"], *extras, sep="\n")
