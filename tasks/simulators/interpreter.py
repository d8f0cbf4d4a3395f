"""Another Python interpreter, with packages that do not install beside those of this one (`sim.python`)."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
from pathlib import Path
from typing import Sequence

from tasks.errors import TaskError

FIND = "import importlib.util as u, sys; print([p for p in sys.argv[1:] if not u.find_spec(p)])"


def look(sim: str, packages: Sequence[str], install: str, otherwise: str, python: str | None) -> None:
    """Raises TaskError where `python` (None: this interpreter) isn't one, or lacks a package.

    Args:
        packages: what it must have; of this interpreter only the first is asked for.
        install: how the first one is installed.
        otherwise: what to do where this interpreter has not got that.
    """
    if python is None:
        if importlib.util.find_spec(packages[0]) is None:
            raise TaskError(f"sim={sim} needs {packages[0]}, which isn't installed here: {otherwise}")
        return
    where = Path(python).expanduser()
    if where.is_dir():
        raise TaskError(f"sim.python={python} is a folder: name its interpreter, {where / 'bin' / 'python'}")
    try:
        words = [str(where), "-c", FIND, *packages]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
        missing = ast.literal_eval(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, IndexError, SyntaxError, ValueError) as error:
        why = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise TaskError(f"sim.python={python} is no Python that can be run ({why[-1] if why else error})") from error
    if missing:
        raise TaskError(f"sim.python={python} has no {missing[0]}: install it there ({install})")
