"""Predict what was left out: the largest sigma, the smallest, the largest budgets. Part of every report."""

from __future__ import annotations

from dataclasses import replace
from typing import Sequence

import numpy as np
import pandas as pd

from scaling.curves.crossings import Crossings
from scaling.laws.chain import DataPoints, data_points, fit_data_law
from scaling.laws.data_law import DataLaw
from scaling.laws.hyperparameters import HYPERPARAMETERS
from scaling.laws.published import PublishedDataLaw
from scaling.laws.uncertainty import interval


def default_splits(utds: np.ndarray) -> list[tuple[str, list[float]]]:
    """(name, ratios left out): the largest, the smallest, and the two largest where enough remain to fit."""
    utds = np.sort(np.unique(utds))
    splits = []
    if len(utds) >= 4:
        splits += [("largest sigma", [float(utds[-1])]), ("smallest sigma", [float(utds[0])])]
    if len(utds) >= 5:
        splits.append(("two largest sigma", [float(u) for u in utds[-2:]]))
    return splits


def task_scales(points: DataPoints) -> dict[str, float]:
    """Median of the uncensored D of each task over ratios and thresholds, as published (nan where there is none)."""
    steps = np.where(np.isfinite(points.values[0]), np.exp(np.minimum(points.values[0], 700)), np.nan)
    return {
        t: float(np.nanmedian(steps[(points.cells["task"] == t).to_numpy()])) if np.isfinite(
            steps[(points.cells["task"] == t).to_numpy()]).any() else float("nan")
        for t in sorted(points.cells["task"].unique())
    }  # fmt: skip


def held_out_sigma(points: DataPoints, train: DataPoints, utds: list[float], name: str,
                   rng: np.random.Generator) -> pd.DataFrame:  # fmt: skip
    """Fit the data law on `train`, predict the points at `utds`, task-averaged after division by each task's scale.

    One row per (utd, threshold): predicted and its interval, observed, relative_error and published_relative_error (the
    published law on the same points; nan where it cannot be fitted), in steps of the average task; tasks, those that
    reach the threshold and are in both averages; censored, those that do not reach it.
    """
    law = fit_data_law(train, rng)
    scale = task_scales(points)
    typical = float(np.nanmedian(list(scale.values())))
    published = _published(points, train, scale)
    rows = []
    for utd in utds:
        here = np.isclose(points.cells["utd"], utd)
        for level, threshold in enumerate(points.thresholds):
            tasks, observed, predicted, missing = [], [], [], []
            for index in np.flatnonzero(here):
                task, size = points.cells["task"][index], points.cells["model_size"][index]
                if task not in law.tasks_ or not np.isfinite(scale[task]):
                    continue
                more = {} if isinstance(law, DataLaw) else {"model_size": size}
                forecast = law.predict_samples(utd, level, task, **more)[:, 0]
                value = points.values[0, index, level]
                if np.isfinite(value) and np.isfinite(forecast[0]):
                    tasks.append(task)
                    observed.append(np.exp(value) / scale[task])
                    predicted.append(forecast / scale[task])
                else:
                    missing.append(task)
            if not tasks:
                continue
            mean = np.mean(predicted, axis=0) * typical
            seen = float(np.mean(observed) * typical)
            theirs = float("nan")
            if published is not None and not missing:
                theirs = float(published.predict(np.array([utd]))[0, level] * typical / seen - 1)
            rows.append({
                "split": name, "utd": utd, "threshold": float(threshold), "predicted": float(mean[0]),
                "predicted_interval": interval(mean), "observed": seen, "relative_error": float(mean[0] / seen - 1),
                "published_relative_error": theirs, "tasks": len(tasks), "censored": len(missing),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _published(points: DataPoints, train: DataPoints, scale: dict[str, float]) -> PublishedDataLaw | None:
    """The published law where its conditions hold: every task reaches every threshold at every training ratio."""
    cells = train.cells.reset_index(drop=True)
    if cells["model_size"].nunique() > 1 or not np.isfinite(train.values[0]).all():
        return None
    grid = cells.assign(at=cells.index).pivot(index="task", columns="utd", values="at")
    if grid.isna().to_numpy().any() or grid.shape[1] < 3:
        return None
    steps = np.exp(train.values[0])[grid.to_numpy().astype(int)]
    return PublishedDataLaw().fit(grid.columns.to_numpy(dtype=float), steps, np.array([scale[t] for t in grid.index]))


def held_out(crossings: Crossings, points: DataPoints, rng: np.random.Generator, samples: int = 200,
             splits: list[tuple[str, list[float]]] | None = None,
             names: Sequence[str] = HYPERPARAMETERS) -> pd.DataFrame:  # fmt: skip
    """All splits. Hyperparameter surfaces are refitted without the left-out ratios, so nothing leaks."""
    if splits is None:
        splits = default_splits(points.cells["utd"].to_numpy())
    few = crossings.subset(np.ones(len(crossings.cells_), dtype=bool))
    few.steps_ = few.steps_[: samples + 1]
    tables = []
    for name, utds in splits:
        keep = ~np.isclose(few.cells_["utd"].to_numpy(dtype=float)[:, None], np.array(utds)[None]).any(axis=1)
        train = replace(data_points(few.subset(keep), rng, names), pooling=points.pooling, prior=points.prior)
        if not np.isfinite(train.values[0]).any():
            continue
        tables.append(held_out_sigma(points, train, utds, name, rng))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
