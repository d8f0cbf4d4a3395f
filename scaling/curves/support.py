"""Which kinds of crossing a return bears: near a ceiling the mean waits for its slowest seed, and moves with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from scaling.curves.crossings import Crossings
from scaling.curves.shares import KINDS

SAMPLES = 200
SEEN = 0.95  # a point counts as seen where this share of resampled seeds crosses
FACTOR = 4.0  # half of those must know their crossing within this factor (90 % of the resampled seeds)
ENOUGH = 0.75  # the least share of points that are seen, and of those seen that do not wait for the last seed


def fastest(crossings: Crossings) -> np.ndarray:
    """(C,) whether a cell is the first of its (task, ratio, model size) to reach the highest threshold it reaches."""
    keys = [c for c in ("task", "utd", "model_size") if c in crossings.cells_]
    group = crossings.cells_.groupby(keys, dropna=False).ngroup().to_numpy()
    keep = np.zeros(len(group), dtype=bool)
    for g in np.unique(group):
        here = np.flatnonzero(group == g)
        steps = crossings.steps_[0, here]
        keep[here[np.lexsort((*steps.T, -np.isfinite(steps).sum(axis=1)))[0]]] = True
    return keep


def support(curves: pd.DataFrame, crossings: Crossings, probability: float, samples: int = SAMPLES) -> pd.DataFrame:
    """How well each kind of crossing is known at each threshold, at the fastest hyperparameters of each ratio.

    curves: the table that `crossings` was fitted on. Columns: threshold, kind, points, seen (points that SEEN of the
    resampled seeds cross), factor (median over those of the factor that 90 % of the resampled crossings span; nan
    without any), waits (points seen that are there after all seeds but the last, so that it decides, and later the more
    seeds there are), stands. Empty where nothing can be resampled.
    """
    columns, best = crossings.cell_columns, fastest(crossings)
    if not (crossings.cells_.loc[best, "seeds"] > 1).any():
        return pd.DataFrame()
    wanted = crossings.cells_.loc[best, columns]
    few = curves.merge(wanted, on=columns)
    rows: list[dict[str, Any]] = []
    kinds = {kind: Crossings(columns, samples, crossings.seed, kind=kind, probability=probability) for kind in KINDS}
    for found in kinds.values():
        found.fit(few, crossings.thresholds_)
    seeds = kinds["median_seed"].seed_steps_
    last_but_one = np.stack([np.sort(each, axis=0)[-2] if len(each) > 1 else np.full(each.shape[1], np.inf)
                             for each in seeds])  # fmt: skip
    for kind, found in kinds.items():
        steps = found.steps_
        crossed = np.isfinite(steps[1:])
        early = (steps[0] == 0) | (steps[1:] == 0).any(axis=0)  # known to the first evaluation, no better
        seen = (crossed.mean(axis=0) >= SEEN) & np.isfinite(steps[0])
        low, high = np.quantile(steps[1:], [0.05, 0.95], axis=0, method="nearest")
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.where(early, np.nan, high / low)
        for level, threshold in enumerate(crossings.thresholds_):
            known = factor[seen[:, level] & ~early[:, level], level]
            middle = float(np.median(known)) if len(known) else float("nan")
            number = int(seen[:, level].sum())
            waits = int((seen[:, level] & (steps[0, :, level] > last_but_one[:, level] * (1 + 1e-9))).sum())
            stands = number >= ENOUGH * len(seen) and middle <= FACTOR and waits <= (1 - ENOUGH) * number
            rows.append({"threshold": float(threshold), "kind": kind, "points": len(seen), "seen": number,
                         "factor": middle, "waits": waits, "stands": bool(stands)})  # fmt: skip
    return pd.DataFrame(rows)


def verdict(table: pd.DataFrame, kind: str) -> list[str]:
    """A sentence for each threshold at which the kind that was asked for does not stand."""
    out = []
    for threshold, rows in table.groupby("threshold") if len(table) else ():
        own = rows[rows["kind"] == kind].iloc[0]
        if own["stands"]:
            continue
        others = [f"crossing={row.kind} does" for row in rows.itertuples() if row.stands]
        why = f"seen at {own['seen']} of {own['points']} points"
        why += f", known within a factor of {own['factor']:.2g}" if np.isfinite(own["factor"]) else ""
        why += f", at {own['waits']} waiting for the last seed" if own["waits"] else ""
        out.append(f"J = {threshold:.4g}: crossing={kind} cannot be stood behind ({why});"
                   f" {' and '.join(others) or 'nor can the others'}")  # fmt: skip
    return out
