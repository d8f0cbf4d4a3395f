"""Steps that go back, several returns at one step: one run's rows, as written, to one curve.

A run that was resumed writes the steps after its checkpoint a second time. What it went on from is the checkpoint, so
the later part holds from its first step on. Where that is near the start, nobody can tell a run begun anew from a
script that counts from its checkpoint or from two seeds under one name: the user is asked. Parts that do not overlap
are merely out of order.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from scaling.errors import InputError

MODES = ("replace", "add")
NEAR_START = 0.1  # of the earlier part
UNORDERED = 0.25  # share of rows that go back above which rows, of a run or of the table, have no order at all


def one_run(steps: np.ndarray, mode: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Which rows of a run count, in order, and their steps.

    steps: (T,) as written. mode: replace: a later part holds from its first step on; add: it counts on from the end of
    the part before; None: replace, unless a part begins near the start. Returns (M,) row numbers and (M,) steps.
    Raises InputError, whose text begins with the steps.
    """
    back = np.flatnonzero(np.diff(steps) < 0) + 1
    lows, highs = np.minimum.reduceat(steps, [0, *back]), np.maximum.reduceat(steps, [0, *back])
    blocks = np.argsort(lows)
    apart = (highs[blocks][:-1] < lows[blocks][1:]).all()
    if apart or len(back) > max(1.0, UNORDERED * len(steps)):
        order = np.argsort(steps, kind="stable")
        return order, steps[order]
    rows, values = np.arange(back[0]), steps[: back[0]]
    for begin, end in zip(back, [*back[1:], len(steps)]):
        part, first, last = steps[begin:end], values[0], values[-1]
        if mode == "add":
            rows, values = np.append(rows, np.arange(begin, end)), np.append(values, part + last)
            continue
        near = part[0] <= first + NEAR_START * (last - first) and last - first > NEAR_START * (part[-1] - part[0])
        if mode is None and near:
            raise InputError(f"env_steps go back from {last:g} to {part[0]:g}, near its start at {first:g}")
        keep = values < part[0]
        rows, values = np.append(rows[keep], np.arange(begin, end)), np.append(values[keep], part)
    return rows, values


def join_sessions(table: pd.DataFrame, key: list[str], source: str, mode: str | None) -> tuple[pd.DataFrame, list[str]]:
    """A table whose runs' env_steps rise. key: columns that name a run; mode: as in one_run. Returns it with notes."""
    run = table.groupby(key, dropna=False, sort=False).ngroup().to_numpy()
    order = np.argsort(run, kind="stable")
    steps = table["env_steps"].to_numpy(dtype=float)
    if ((np.diff(run[order]) != 0) | (np.diff(steps[order]) > 0)).all():
        return table, []
    notes, dropped, resumed, unordered = [], 0, 0, 0
    row = {"run": run, "env_steps": steps, "episode_return": table["episode_return"].to_numpy()}
    again = pd.DataFrame(row).duplicated().to_numpy()
    if again.any():
        notes.append(f"{int(again.sum())} rows were exact duplicates: dropped")
        order = order[~again[order]]
    same_run = np.diff(run[order]) == 0
    falling = same_run & (np.diff(steps[order]) < 0)
    if falling.sum() > UNORDERED * same_run.sum():
        notes.append("the table's rows are in no order: sorted by env_steps")
        order = order[np.lexsort((steps[order], run[order]))]
    elif falling.any():
        begins = np.flatnonzero(np.diff(run[order], prepend=-1))
        ends = np.append(begins[1:], len(order))
        pieces, at = [], 0
        affected = np.unique(run[order][1:][falling])  # every run keeps a row, so that they stay 0, 1, 2, ...
        new_steps = steps.copy()
        for index in affected:
            begin, end = begins[index], ends[index]
            rows = order[begin:end]
            try:
                kept, values = one_run(steps[rows], mode)
            except InputError as error:
                raise InputError(_which(table, rows, key, source, str(error))) from None
            pieces += [order[at:begin], rows[kept]]
            new_steps[rows[kept]] = values
            dropped += end - begin - len(kept)
            resumed += int((np.diff(kept) > 0).all())
            unordered += int((np.diff(kept) < 0).any())
            at = end
        order = np.concatenate([*pieces, order[at:]])
        table = table.assign(env_steps=new_steps)
    table, run = table.iloc[order], run[order]
    if resumed:
        did = "counts on from the part before" if mode == "add" else f"replaces the earlier one ({dropped} rows)"
        notes.append(f"env_steps go back in {resumed} runs: read as resumed, the later part {did}")
    if unordered:
        notes.append(f"the rows of {unordered} runs are in no order: sorted by env_steps")
    same = (np.diff(run) == 0) & (np.diff(table["env_steps"].to_numpy()) == 0)
    if same.any():
        group = np.cumsum(np.append(True, ~same)) - 1
        counts = np.bincount(group)
        means = np.bincount(group, weights=table["episode_return"].to_numpy(dtype=float)) / counts
        table = table.iloc[np.flatnonzero(np.append(True, ~same))].assign(episode_return=means)
        notes.append(f"{int(counts[counts > 1].sum())} rows share a step with another of their run: averaged to "
                     f"{int((counts > 1).sum())} points; give different runs their own seeds")  # fmt: skip
    return table, notes


def _which(table: pd.DataFrame, rows: np.ndarray, key: list[str], source: str, what: str) -> str:
    head = table.iloc[rows[0]]
    name = ", ".join(f"{column}={head[column]}" for column in key if pd.notna(head[column]) and column != "set")
    names = table["run"].iloc[rows].unique() if "run" in table else []
    which = f" (of {', '.join(map(str, names[:3]))})" if len(names) > 1 else ""
    return (
        f"{source}: run {name} repeats itself{which}: {what}; give each run its own seed or set, or say what it is: "
        "resumed=add (a restarted script counted from 0) or resumed=replace (only the later part counts)"
    )
