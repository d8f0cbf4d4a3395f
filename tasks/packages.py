"""Model files that other packages bring: read where pip installed them, without importing the package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tasks.errors import TaskError


def folder(package: str, remedy: str, *parts: str) -> Path:
    """The folder `parts` of an installed package; raises TaskError saying how to install it."""
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place, *parts)
        if path.is_dir():
            return path
    missing = "isn't installed" if spec is None else f"has no folder {'/'.join(parts)}"
    raise TaskError(f"the task's model comes with {package}, which {missing}: {remedy}")
