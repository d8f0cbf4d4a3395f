"""The arrows of the chain as functions of samples: crossings -> best hyperparameters -> data points -> data law."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Sequence

import numpy as np
import pandas as pd

from scaling.curves.crossings import Crossings
from scaling.laws.data_law import DataLaw
from scaling.laws.hyperparameters import HYPERPARAMETERS, ResponseSurface
from scaling.laws.model_size import ModelSizeLaw
from scaling.laws.pooled import PooledLaw
from scaling.laws.uncertainty import bands, perturb, seed_variance

POOLINGS = ("partial", "full")
POINT = ["task", "utd", "model_size"]


def log_steps(crossings: Crossings) -> np.ndarray:
    """(R, C, K) ln D with +inf where never reached, -inf where reached before the first evaluation."""
    with np.errstate(divide="ignore"):
        return np.log(crossings.steps_)


def with_cell_scatter(cells: pd.DataFrame, values: np.ndarray, surface: ResponseSurface,
                      rng: np.random.Generator) -> np.ndarray:  # fmt: skip
    """(R, C) ln D, its resampled rows widened by what the surface misses beyond the seeds' own variance."""
    surface.fit_samples(cells, values[:1])
    excess = max(0.0, float(surface.residual_sd_[0] ** 2 - seed_variance(values).mean()))
    return perturb(values, np.full(values.shape[1], excess), rng)


def fit_hyperparameters(crossings: Crossings, level: int, rng: np.random.Generator,
                        names: Sequence[str] = HYPERPARAMETERS) -> ResponseSurface:  # fmt: skip
    """B*(sigma), eta*(sigma), ... from the crossings of threshold number `level`, all samples."""
    surface = ResponseSurface(names)
    values = with_cell_scatter(crossings.cells_, log_steps(crossings)[:, :, level], surface, rng)
    return surface.fit_samples(crossings.cells_, values)


@dataclass
class DataPoints:
    """ln D at the best hyperparameters known for each task and ratio.

    cells: n rows of task, utd, model_size, horizon, first; values (R, n, K) with +inf where never reached and -inf
    where reached before the first evaluation; variance (n, K) from seeds; from_surface: whether a grid of
    hyperparameters was reduced to its best point by the response surface; pooling, prior: how its law is fitted.
    """

    cells: pd.DataFrame
    values: np.ndarray
    thresholds: np.ndarray
    from_surface: bool = False
    notes: list[str] = field(default_factory=list)
    pooling: str = POOLINGS[0]
    prior: float = 1.0

    @property
    def variance(self) -> np.ndarray:
        """(n, K) of ln D from seeds, averaged over points that rest on as many cells: few seeds know it badly."""
        return self._averaged(["cells"])

    @property
    def variance_by_task(self) -> np.ndarray:
        """The same, each task's own."""
        return self._averaged(["task", "cells"])

    def _averaged(self, columns: list[str]) -> np.ndarray:
        single = seed_variance(self.values)
        groups = self.cells.groupby(columns).ngroup().to_numpy()
        return np.stack([single[groups == g].mean(axis=0) for g in groups])

    def subset(self, keep: np.ndarray) -> DataPoints:
        """The points where `keep` (n,) holds."""
        return replace(self, cells=self.cells[keep].reset_index(drop=True), values=self.values[:, keep])

    def table(self) -> pd.DataFrame:
        """Tidy: one row per point and threshold; env_steps is the horizon where `censored`."""
        levels = len(self.thresholds)
        out = self.cells.loc[np.repeat(np.arange(len(self.cells)), levels)].reset_index(drop=True)
        out["threshold"] = np.tile(self.thresholds, len(self.cells))
        point = self.values[0].ravel()
        out["censored"], out["left_censored"] = point == np.inf, point == -np.inf
        bound = np.where(out["censored"], out["horizon"], out["first"])
        out["env_steps"] = np.where(np.isinf(point), bound, np.exp(np.where(np.isinf(point), 0, point)))
        if len(self.values) > 20:
            low, high = bands(self.values, method="nearest")
            high = np.where(np.isneginf(high), np.log(self.cells["first"].to_numpy(dtype=float))[:, None], high)
            out["low"], out["high"] = np.exp(low).ravel(), np.exp(high).ravel()
        return out


def data_points(crossings: Crossings, rng: np.random.Generator,
                names: Sequence[str] = HYPERPARAMETERS) -> DataPoints:  # fmt: skip
    """One point per (task, utd, model size): the cell itself where there is one, the surface's bottom where several."""
    cells = crossings.cells_.copy()
    if "model_size" not in cells:
        cells["model_size"] = np.nan
    groups = cells.groupby(POINT, sort=True, dropna=False)
    points = groups.agg(horizon=("horizon", "min"), first=("first", "min"), cells=("horizon", "size")).reset_index()
    index = groups.ngroup().to_numpy()
    values = log_steps(crossings)
    several = len(points) < len(cells)
    if not several:
        order = np.argsort(index)
        return DataPoints(points, values[:, order], crossings.thresholds_)
    # the fastest cell, for points whose cells are all censored: a surface says nothing of them
    out = np.stack([values[:, index == point].min(axis=1) for point in range(len(points))], axis=1)
    notes = []
    for level, threshold in enumerate(crossings.thresholds_):
        if not np.isfinite(values[0, :, level]).any():
            notes.append(f"threshold {threshold:.4g}: no run is seen to cross it")
            continue
        surface = ResponseSurface(names)
        surface.fit_samples(cells, with_cell_scatter(cells, values[:, :, level], surface, rng))
        if surface.swept_:
            keys = points[POINT].merge(surface.groups_.assign(at=surface.groups_.index), how="left", on=POINT)["at"]
            known = keys.notna().to_numpy()
            out[:, known, level] = surface.log_data_[:, keys[known].astype(int).to_numpy()]
    return DataPoints(points, out, crossings.thresholds_, from_surface=True, notes=notes)


def fit_data_law(points: DataPoints, rng: np.random.Generator) -> DataLaw | ModelSizeLaw:
    """The law of the points; with model size where it varies.

    pooling partial: tasks differ by as much as they tell (`PooledLaw`), where seeds tell the noise. full: they share
    the shape, and excess scatter about the law widens the samples.
    """
    variance = points.variance
    law: DataLaw | ModelSizeLaw
    sized = points.cells.groupby("task")["model_size"].nunique().max() > 1
    if points.pooling == "partial" and not sized and len(points.values) > 1 and variance.max() > 1e-9:
        pooled, count = PooledLaw(points.prior), len(points.values) - 1
        return pooled.fit_samples(points.cells, points.values, points.variance_by_task, points.thresholds,
                                  samples=count, rng=rng)  # fmt: skip
    law = ModelSizeLaw() if sized else DataLaw()
    law.fit_samples(points.cells, points.values[:1], variance, points.thresholds)
    if len(points.values) == 1:
        return law
    excess = np.broadcast_to(law.excess_variance_, variance.shape)
    return law.fit_samples(points.cells, perturb(points.values, excess, rng), variance, points.thresholds)
