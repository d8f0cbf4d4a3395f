"""Print what a setup.py asks for, one requirement a line: an image installs it before the project's code is there.

usage: requirements.py PATH/TO/setup.py [EXTRA ...]
"""

from __future__ import annotations

import runpy
import sys

import setuptools

asked: dict = {}
setuptools.setup = asked.update
runpy.run_path(sys.argv[1])
extras = [requirement for extra in sys.argv[2:] for requirement in asked["extras_require"][extra]]
print(*asked["install_requires"], *extras, sep="\n")
