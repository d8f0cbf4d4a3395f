"""What runs were told that the laws do not know: named, then chosen or told apart, never pooled.

A column of a curves table is such a key where it is constant along each run. Runs that agree in all that the laws know
(CELL) are read as seeds of one another, so they must agree in every key as well.
"""

from __future__ import annotations

import json
from typing import Any, Iterator, Mapping, Sequence

import pandas as pd

from scaling.curves.table import CELL, unit_of
from scaling.errors import InputError, nearest

# Axes of the laws, and what changes when, where or how visibly a run learns but not what
KNOWN = ("seed", "task", "task.name", "utd", "algo.utd", "algo.critic_updates_per_step", "batch_size",
         "algo.batch_size", "algo.critic_lr", "algo.lr", "run_dir", "resume", "max_env_steps", "max_time", "device",
         "preset", "plugins",
         "log_interval", "video", "compile", "matmul_precision", "cuda_graphs", "heartbeat_timeout", "sim.threads",
         "sim.python", "algo.v_device", "algo.p_device")  # fmt: skip
KNOWN_GROUPS = ("threads.", "eval_", "checkpoint_", "wandb")
COLUMNS = ("task", "utd", "batch_size", "learning_rate", "model_size", "agent_size", "seed", "run", "unit", "set",
           "env_steps", "episode_return", "wall_time_s", "reset")  # fmt: skip


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(`a.b.c`, value) of nested mappings; a list is one value, written as JSON."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value).replace(" ", "") if isinstance(value, (list, dict)) else value


def differing(configs: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Per configuration the keys that the laws do not know and that are not the same in all, under short names; and
    {short name: key}."""
    trees = [dict(flat(config)) for config in configs]
    names = sorted({key for tree in trees for key in tree
                    if key not in KNOWN and not key.startswith(KNOWN_GROUPS)
                    and len({json.dumps(tree.get(key)) for tree in trees}) > 1})  # fmt: skip
    short: dict[str, str] = {}
    for key in names:
        group, _, last = key.rpartition(".")
        name = group.rpartition(".")[2] if last == "name" else last
        taken = name in COLUMNS or name in short.values()
        short[key] = key.replace(".", "_") if taken else name
    told = [{short[key]: tree.get(key) for key in names} for tree in trees]
    return told, {name: key for key, name in short.items()}


def as_axis(values: pd.Series, name: str, source: str) -> tuple[pd.Series, int]:
    """A hyperparameter as numbers, and how often a run repeats it: lists of one number, such as the widths
    [256,256], are that number, repeated."""
    if values.isna().any():
        raise InputError(f"{source}: hyperparameters={name}: {int(values.isna().sum())} rows have none, and a law needs"
                         " a number in each; leave them out with where=")  # fmt: skip
    if pd.api.types.is_numeric_dtype(values):
        return values.astype(float), 0
    lists = [json.loads(value) if str(value).startswith("[") else [] for value in values.unique()]
    counts = {len(entries) for entries in lists}
    if counts != {len(lists[0])} or not lists[0] or any(len(set(entries)) != 1 for entries in lists):
        raise InputError(f"{source}: hyperparameters={name}: {values.iloc[0]!r} is not a number; choose among its"
                         f" values with where=, or tell them apart with set={name}")  # fmt: skip
    return values.map(lambda value: float(json.loads(value)[0])), len(lists[0])


def as_sets(table: pd.DataFrame, keys: Sequence[str] | None) -> pd.DataFrame:
    """`set` from the values of the given columns, so that runs which differ in them are no seeds of one another."""
    for key in keys or ():
        if key not in table:
            raise InputError(f"set={key}: no such column; {nearest(key, keys_of(table))}")
    if not keys:
        return table
    joined = table[list(keys)].apply(lambda values: values.map(str)).agg(",".join, axis=1)
    return table.assign(set=joined)


def keys_of(table: pd.DataFrame, axes: Sequence[str] = ()) -> list[str]:
    """Columns beyond the laws' own and `axes` that hold one value along each run, and not another one in every run."""
    unit = [column for column in (*CELL, *axes, "run", "seed") if column in table]
    runs = table.groupby(unit, dropna=False).ngroups
    out = []
    for column in table.columns:
        if column in (*COLUMNS, *axes) or table[column].nunique(dropna=False) < 2:
            continue
        parts = table.groupby([*unit, column], dropna=False).ngroups
        own = table[column].nunique(dropna=False) == runs == parts and runs > 2  # a date, a name: tells runs apart
        if 3 * parts <= len(table) and not own:
            out.append(str(column))
    return out


def check_keys(table: pd.DataFrame, source: str, axes: Sequence[str] = ()) -> list[str]:
    """Raise InputError for a key that varies where the laws see one cell; a note for one that goes with an axis."""
    cell, notes = [column for column in (*CELL, *axes) if column in table], []
    for key in keys_of(table, axes):

        def follows(columns: Sequence[str], key: str = key) -> bool:
            known = [column for column in columns if column in table]
            return bool(table.groupby(known, dropna=False)[key].nunique(dropna=False).max() == 1)

        values = sorted(table[key].map(str).unique())
        shown = ", ".join(values[:4]) + (", ..." if len(values) > 4 else "")
        if not follows(cell):
            first = table[key].iloc[0]
            first = first.item() if hasattr(first, "item") else first
            one = f"`{key}`" if not key.isidentifier() else key
            raise InputError(
                f"{source}: runs that the laws take for seeds of one another differ in {key} ({shown}): choose with"
                f' where="{one} == {first!r}", or tell them apart with set={key} data_from={first}'
                + (f", or fit its best value with hyperparameters=batch_size,learning_rate,{key}"
                   if pd.api.types.is_numeric_dtype(table[key]) and table[key].nunique() > 2 else "")
            )
        if not any(follows(["task", axis]) for axis in ("set", "model_size", "learning_rate", *axes)):
            notes.append(f"{key} ({shown}) changes along with the ratio or the batch size: the laws credit it to those")
    return notes


def shared_starts(table: pd.DataFrame, axes: Sequence[str] = (), least: int = 3) -> list[str]:
    """A note on runs of one cell whose first returns are equal: copies of one run, resumed, are no seeds."""
    unit = unit_of(table)
    notes = []
    cells = [column for column in (*CELL, *axes) if column in table]
    for _, cell in table.sort_values("env_steps", kind="stable").groupby(cells, dropna=False):
        starts: dict[tuple, list[str]] = {}
        for name, run in cell.groupby(unit):
            head = run.head(least)
            if len(head) == least and head["episode_return"].nunique() == least:  # not all zero, or at a ceiling
                key = (*head["env_steps"], *head["episode_return"])
                starts.setdefault(key, []).append(str(name))
        notes += [f"{', '.join(names[:4])}: their first {least} returns are equal, so they are copies of one run and no"
                  " independent seeds: intervals are too narrow"
                  for names in starts.values() if len(names) > 1]  # fmt: skip
    return notes
