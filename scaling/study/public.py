"""How well a few ratios of one task predict larger ones, on public sweeps.

Every task of every sweep stands alone, as a user has it: its thresholds by the default rule, its law from three
ratios that follow one another, its data predicted at the ratios above, up to four times the largest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

import numpy as np
import pandas as pd

from scaling.curves.crossings import Crossings
from scaling.curves.table import CELL, check, normalise, read_table
from scaling.curves.thresholds import choose_thresholds
from scaling.errors import InputError
from scaling.laws.chain import DataPoints, data_points, fit_data_law

TRAIN = 3  # ratios
REACH = 4.0  # times the largest of them
FILES = ("gym_sac_curves.csv.gz", "gym_sac_scales.csv", "flashsac_utd_curves.csv", "simba_utd_reset_curves.csv.gz")


@dataclass
class Sweep:
    """One task's curves over ratios at given hyperparameters. source: which publication and which of its settings."""

    source: str
    task: str
    curves: pd.DataFrame


def sweeps(data: str | Path) -> list[Sweep]:
    """Every task of the public sweeps in a folder that holds FILES."""
    folder = Path(data)
    missing = [name for name in FILES if not (folder / name).exists()]
    if missing:
        raise InputError(f"data={folder}: no {missing[0]} there; docs/results/scaling/README.md says whose it is")
    gym = read_table(folder / FILES[0])
    gym = normalise(check(gym[gym["set"] != "gym_sweep"]), str(folder / FILES[1]))[0].table
    tables = dict(iter(gym.groupby("set")))
    tables["flashsac"] = check(read_table(folder / FILES[2])).table
    for reset, rows in _apart(read_table(folder / FILES[3])).groupby("reset"):
        tables["simba_reset" if reset else "simba"] = check(rows.drop(columns="reset")).table
    return [Sweep(source, str(task), rows.reset_index(drop=True))
            for source, table in tables.items() for task, rows in table.groupby("task")]  # fmt: skip


def _apart(table: pd.DataFrame) -> pd.DataFrame:
    """SimBa's file holds several runs under one seed, one after the other: each its own number, copies dropped."""
    run = (table["env_steps"].diff().fillna(-1) <= 0).cumsum()
    curves = table.assign(seed=run).groupby("seed")[["env_steps", "episode_return"]].agg(tuple)
    return table.assign(seed=run)[~run.isin(curves.index[curves.duplicated()])]


def points_of(sweep: Sweep, samples: int, seed: int = 0, kind: str = "mean",
              probability: float = 0.8) -> DataPoints | None:  # fmt: skip
    """ln D at every ratio; None where nothing is seen to cross anything."""
    thresholds = choose_thresholds(sweep.curves, CELL)
    crossings = Crossings(CELL, samples, seed, kind=kind, probability=probability).fit(sweep.curves, thresholds)
    seen = np.isfinite(crossings.steps_[0]) & (crossings.steps_[0] > 0)
    if not seen.any():
        return None
    keep = np.ones(len(crossings.cells_), dtype=bool)
    return data_points(crossings.subset(keep, np.flatnonzero(seen.any(axis=0))), np.random.default_rng(seed))


def windows(utds: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(ratios trained on, ratios predicted)."""
    for start in range(len(utds) - TRAIN):
        train = utds[start : start + TRAIN]
        above = utds[start + TRAIN :]
        yield train, above[above <= REACH * train[-1] * 1.001]


Law = Callable[[float, int], np.ndarray]  # ratio, number of the threshold -> (R,) ln D


def predictions(points: DataPoints, fit: Callable[[DataPoints], Law]) -> pd.DataFrame:
    """Every window of one task. fit: training points -> their law.

    Columns train (largest ratio), utd, threshold, predicted and observed (ln D), low and high (90 %), sd (of the
    observation, from its seeds). A threshold counts where all training ratios and the predicted one are seen to cross.
    """
    rows = []
    utds = np.sort(points.cells["utd"].unique().astype(float))
    ratio = points.cells["utd"].to_numpy(dtype=float)
    for train, above in windows(utds):
        keep = np.isclose(ratio[:, None], train[None]).any(axis=1)
        seen = np.isfinite(points.values[0, keep]).all(axis=0)
        if not seen.any():
            continue
        part = points.subset(keep)
        part.values, part.thresholds = part.values[:, :, seen], part.thresholds[seen]
        law = fit(part)
        for utd in above:
            at = int(np.flatnonzero(np.isclose(ratio, utd))[0])
            for level, number in enumerate(np.flatnonzero(seen)):
                value = points.values[0, at, number]
                if not np.isfinite(value):
                    continue
                samples = law(float(utd), level)
                low, high = np.quantile(samples[1:], [0.05, 0.95]) if len(samples) > 20 else (np.nan, np.nan)
                rows.append((float(train[-1]), float(utd), float(points.thresholds[number]), samples[0], value, low,
                             high, float(np.sqrt(points.variance[at, number]))))  # fmt: skip
    names = ["train", "utd", "threshold", "predicted", "observed", "low", "high", "sd"]
    return pd.DataFrame(rows, columns=names, dtype=float)


def score(table: pd.DataFrame) -> pd.Series:
    """Mean absolute relative error, a task of a source counting once, and the share of observations covered."""
    error = (np.exp(table["predicted"] - table["observed"]) - 1).abs()
    inside = (table["low"] <= table["observed"]) & (table["observed"] <= table["high"])
    by = [table["source"], table["task"]]
    mean = error.groupby(by).mean()
    return pd.Series({"tasks": len(mean), "error": mean.mean(), "median": mean.median(),
                      "covered": inside.groupby(by).mean().mean()})  # fmt: skip


def data_law(points: DataPoints) -> Law:
    """The chain's own law of one task."""
    law, task = fit_data_law(points, np.random.default_rng(0)), points.cells["task"][0]
    return lambda utd, level: np.log(law.predict_samples(utd, level, task)[:, 0])


def last_value(points: DataPoints) -> Law:
    """What the largest ratio took, carried forward."""
    at = int(points.cells["utd"].to_numpy().argmax())
    return lambda utd, level: points.values[:, at, level]


def run_all(data: list[Sweep], fit: Callable[[DataPoints], Law], samples: int, kind: str = "mean") -> pd.DataFrame:
    """`predictions` of every sweep, with columns source and task."""
    tables = []
    for sweep in data:
        points = points_of(sweep, samples, kind=kind)
        if points is not None:
            tables.append(predictions(points, fit).assign(source=sweep.source, task=sweep.task))
    return pd.concat(tables, ignore_index=True)
