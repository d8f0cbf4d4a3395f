"""Curves from wherever they lie: a table, a folder of run directories, logs of other libraries."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Sequence

import pandas as pd

from scaling.curves.fixed_data import demand_one_dataset
from scaling.curves.keys import as_axis, as_sets, check_keys, keys_of, shared_starts
from scaling.curves.readers.base import Files
from scaling.curves.readers.registry import find, read_logs
from scaling.curves.run_directories import read_run_directories, run_folders
from scaling.curves.sessions import MODES
from scaling.curves.table import CELL, Curves, check, read_table, select
from scaling.errors import InputError, nearest


def read_curves(
    path: str | Path, where: str | None = None, meta: str | None = None, resumed: str | None = None,
    sets: list[str] | None = None, axes: Sequence[str] = (),
) -> Curves:  # fmt: skip
    """Read what lies at `path`, told apart by content, filter it, check it.

    where: a filter of rows. meta: what the logs of other libraries do not tell (scaling.curves.readers.meta). resumed:
    how to read a run whose steps go back (scaling.curves.sessions). sets: keys whose values become the column set.
    axes: columns of hyperparameters beyond batch size and learning rate that the laws are to know.
    """
    if resumed is not None and resumed not in MODES:
        raise InputError(f"resumed={resumed!r}: use {' or '.join(MODES)}")
    path = Path(path)
    if path.is_dir():
        ours = run_folders(path)
        files = Files(path, frozenset(ours))
        found = [] if path in ours else find(files)
        if not found:
            if ours:
                _no_meta(meta, path, "a folder of run directories")
            runs = read_run_directories(path)
        else:
            runs = read_logs(files, found, meta)
            if ours:
                own = read_run_directories(path, ours)
                runs = Curves(pd.concat([own.table, runs.table]), own.notes + runs.notes, own.windows, own.facts)
        return _checked(runs, str(path), where, resumed, sets, axes)
    files = Files(path)
    found = find(files) if path.is_file() else []
    if found:
        logs = read_logs(files, found, meta)
        return _checked(logs, path.name, where, resumed, sets, axes)
    _no_meta(meta, path, "a table")
    _has_head(files, path)
    return _checked(Curves(read_table(path)), path.name, where, resumed, sets, axes)


def _checked(curves: Curves, source: str, where: str | None, resumed: str | None, sets: list[str] | None,
             axes: Sequence[str]) -> Curves:  # fmt: skip
    """What was read, filtered and checked: its table, its runs' keys, its notes, the windows of the runs that stay."""
    table = as_sets(select(curves.table, where), sets)
    demand_one_dataset(table, source)
    table, repeats = with_axes(table, axes, source)
    notes = check_keys(table, source, axes) if {"task", "utd", "seed"} <= {*table} else []  # else `check` tells why
    checked = check(table, source, resumed, axes)
    notes += shared_starts(checked.table, axes)
    windows = curves.windows
    if windows is not None:
        windows = windows[windows["run"].isin(checked.table["run"])]
    facts = {**curves.facts, **({"repeats": repeats} if repeats else {})}
    return Curves(checked.table, curves.notes + notes + checked.notes, windows, facts)


def with_axes(table: pd.DataFrame, axes: Sequence[str], source: str) -> tuple[pd.DataFrame, dict[str, int]]:
    """The table with each of the axes as numbers, and {axis: how often a run repeats it} of those that are lists."""
    repeats = {}
    for name in axes:
        if name not in table:
            raise InputError(f"{source}: hyperparameters={name}: no such column; {nearest(name, keys_of(table))}")
        numbers, count = as_axis(table[name], name, source)
        table = table.assign(**{name: numbers})
        if count:
            repeats[name] = count
    return table, repeats


def write_table(curves: Curves, path: Path) -> str:
    """Write a checked table, atomically, as CSV, gzipped CSV or Parquet by its name; returns a line about it."""
    table = curves.table.dropna(axis=1, how="all")
    first = [column for column in (*CELL[:-1], "seed", "env_steps", "episode_return") if column in table]
    table = table[[*first, *(column for column in table if column not in first)]]
    if (table["set"] == "all").all():
        table = table.drop(columns="set")
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        if path.name.endswith((".parquet", ".pq")):
            table.to_parquet(temporary, index=False)
        elif path.name.endswith((".csv", ".csv.gz")):
            table.to_csv(temporary, index=False)
        else:
            raise InputError(f"table={path}: unknown kind of file; use .csv, .csv.gz or .parquet")
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"table={path} cannot be written ({error.strerror}); name a folder that is there") from None
    runs = table.groupby(["task", "utd", "seed"]).ngroups if "run" not in table else table["run"].nunique()
    return f"{path}: {len(table)} rows, {runs} runs"


def _no_meta(meta: str | None, path: Path, what: str) -> None:
    if meta:
        raise InputError(f"meta={meta}: {path} is {what}, which tells its settings itself; meta= is for other logs")


def _has_head(files: Files, path: Path) -> None:
    """A table's first line names its columns."""
    cells = files.first_line(path).split(",") if path.name.endswith(".csv") and path.exists() else []
    try:
        numbers = [float(cell) for cell in cells]
    except ValueError:
        return
    if numbers:
        raise InputError(
            f"{path}: its first line is numbers, so nothing says what its columns are; of TorchRL (scalars/) and d3rlpy"
            " (params.json) give the folder around it, to others add a first line task,utd,...,episode_return"
        )
