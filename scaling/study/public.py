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
COLUMNS = ["train", "utd", "threshold", "predicted", "observed", "low", "high", "sd"]
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
    tables = {name: rows for name, rows in gym_curves(folder).groupby("set") if name != "gym_sweep"}
    tables["flashsac"] = check(read_table(folder / FILES[2])).table
    for reset, rows in _apart(read_table(folder / FILES[3])).groupby("reset"):
        tables["simba_reset" if reset else "simba"] = check(rows.drop(columns="reset")).table
    return [Sweep(source, str(task), rows.reset_index(drop=True))
            for source, table in tables.items() for task, rows in table.groupby("task")]  # fmt: skip


def gym_curves(folder: Path) -> pd.DataFrame:
    """The authors' gym curves on their scale of 1000."""
    missing = [name for name in FILES if not (folder / name).exists()]
    if missing:
        raise InputError(f"data={folder}: no {missing[0]} there; docs/results/scaling/README.md says whose it is")
    return normalise(check(read_table(folder / FILES[0])), str(folder / FILES[1]))[0].table


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


def all_points(data: list[Sweep], samples: int, kind: str = "mean") -> list[tuple[Sweep, DataPoints]]:
    """`points_of` every sweep that has any."""
    found = [(sweep, points_of(sweep, samples, kind=kind)) for sweep in data]
    return [(sweep, points) for sweep, points in found if points is not None]


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
    return pd.DataFrame(rows, columns=COLUMNS, dtype=float)


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


def run_all(points: list[tuple[Sweep, DataPoints]], fit: Callable[[DataPoints], Law] = data_law) -> pd.DataFrame:
    """`predictions` of every sweep alone, with columns source and task."""
    return pd.concat([predictions(found, fit).assign(source=sweep.source, task=sweep.task)
                      for sweep, found in points], ignore_index=True)  # fmt: skip


def run_together(points: list[tuple[Sweep, DataPoints]], pooling: str, prior: float) -> pd.DataFrame:
    """The same with one law for all tasks of a source, each at its own returns: the k-th of each are one threshold."""
    out = []
    for source in dict.fromkeys(sweep.source for sweep, _ in points):
        mine = [found for sweep, found in points if sweep.source == source]
        most = max(len(found.thresholds) for found in mine)
        values = [np.concatenate([np.full((*f.values.shape[:2], most - len(f.thresholds)), np.nan), f.values], axis=2)
                  for f in mine]  # fmt: skip
        cells = pd.concat([found.cells for found in mine], ignore_index=True)
        whole = DataPoints(cells, np.concatenate(values, axis=1), np.arange(most, dtype=float), pooling=pooling,
                           prior=prior)  # fmt: skip
        ratio = cells["utd"].to_numpy(dtype=float)
        for train, above in windows(np.unique(ratio)):
            part = whole.subset(np.isclose(ratio[:, None], train[None]).any(axis=1))
            law = fit_data_law(part, np.random.default_rng(0))
            seen = {task: np.isfinite(part.values[0, rows]).all(axis=0)
                    for task, rows in part.cells.groupby("task").indices.items()}  # fmt: skip
            sd = np.sqrt(whole.variance_by_task)
            for at in np.flatnonzero(np.isclose(ratio[:, None], above[None]).any(axis=1)):
                task, value = cells["task"][at], whole.values[0, at]
                for level in np.flatnonzero(np.isfinite(value) & seen.get(task, np.zeros(most, dtype=bool))):
                    drawn = np.log(law.predict_samples(ratio[at], level, task)[:, 0])
                    low, high = np.quantile(drawn[1:], [0.05, 0.95])
                    out.append((source, task, train[-1], ratio[at], level, drawn[0], value[level], low, high,
                                sd[at, level]))  # fmt: skip
    return pd.DataFrame(out, columns=["source", "task", *COLUMNS]).astype(dict.fromkeys(COLUMNS, float))
