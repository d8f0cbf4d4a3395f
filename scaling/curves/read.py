"""Curves from wherever they lie: a table, or a folder of run directories."""

from __future__ import annotations

from pathlib import Path

from scaling.curves.run_directories import read_run_directories
from scaling.curves.table import Curves, check, read_table, select


def read_curves(path: str | Path, where: str | None = None) -> Curves:
    """Read a table or a folder of run directories, filter it, check it."""
    path = Path(path)
    if path.is_dir():
        runs = read_run_directories(path)
        curves = check(select(runs.table, where), str(path))
        return Curves(curves.table, runs.notes + curves.notes, runs.windows, runs.facts)
    return check(select(read_table(path), where), path.name)
