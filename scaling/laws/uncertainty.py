"""Intervals for everything: the bootstrap over seeds carried through the chain, plus what seeds do not explain.

Every quantity of the chain has a leading axis of samples: row 0 is the estimate from all seeds, rows 1.. the same chain
on resampled seeds. Where cells scatter about a law by more than their seeds allow, the excess is added as noise to the
resampled rows, so that a law that fits badly gets wide intervals.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LEVEL = 0.90
WIDE = 10.0  # a positive quantity whose interval spans more than this factor is not determined


def interval(samples: np.ndarray, level: float = LEVEL) -> list[float | None]:
    """[low, high] percentile interval of a 1-d array's resampled rows; nan-safe; [None, None] without samples.

    It reaches as far as the point estimate, row 0: resampling that leaves the estimate outside says that the
    uncertainty is at least that large, not that the estimate is wrong.
    """
    point = np.asarray(samples, dtype=float)[:1]
    draws = np.asarray(samples, dtype=float)[1:]
    draws = draws[~np.isnan(draws)]
    if len(draws) < 20:
        return [None, None]
    tail = (1 - level) / 2
    low, high = np.quantile(draws, [tail, 1 - tail], method="nearest" if np.isinf(draws).any() else "linear")
    point = point[np.isfinite(point)]
    return [float(min([low, *point])), float(max([high, *point]))]


def bands(samples: np.ndarray, level: float = LEVEL, method: str = "linear") -> np.ndarray:
    """(2, ...) intervals of many quantities at once, (R, ...) samples each; as `interval`, they reach their points."""
    low, high = np.nanquantile(samples[1:], [(1 - level) / 2, (1 + level) / 2], axis=0, method=method)
    return np.stack([np.fmin(low, samples[0]), np.fmax(high, samples[0])])


def undetermined(samples: np.ndarray) -> bool:
    """Whether a positive quantity is not known within a factor of WIDE: nothing that should be printed as a number."""
    low, high = interval(samples)
    return low is not None and not (low > 0 and high <= WIDE * low)


def estimate(name: str, samples: np.ndarray) -> dict[str, Any]:
    """{name: point, name_interval: [low, high]}; a value that is not finite becomes None."""
    point = float(np.asarray(samples, dtype=float)[0])
    bounds = [b if b is None or np.isfinite(b) else None for b in interval(samples)]
    return {name: point if np.isfinite(point) else None, f"{name}_interval": bounds}


def mean_known(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean of what is not nan; nan, without a warning, where nothing is."""
    count = (~np.isnan(values)).sum(axis=axis)
    return np.where(count > 0, np.nansum(values, axis=axis) / np.maximum(count, 1), np.nan)


def seed_variance(log_steps: np.ndarray) -> np.ndarray:
    """Variance over the resampled rows of (R, ...) ln D, censored rows left out; 0 where nothing was resampled."""
    if len(log_steps) < 3:
        return np.zeros(log_steps.shape[1:])
    draws = np.where(np.isfinite(log_steps[1:]), log_steps[1:], np.nan)
    count = np.isfinite(draws).sum(axis=0)
    mean = np.where(count > 0, np.nansum(draws, axis=0) / np.maximum(count, 1), 0.0)
    square = np.nansum((draws - mean[None]) ** 2, axis=0)
    return np.where(count > 1, square / np.maximum(count - 1, 1), 0.0)


def perturb(log_steps: np.ndarray, variance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add N(0, variance) to the resampled rows; row 0 stays. variance broadcasts against (n, ...)."""
    noise = rng.standard_normal(log_steps.shape) * np.sqrt(variance)[None]
    noise[0] = 0.0
    return log_steps + noise
