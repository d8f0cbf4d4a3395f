"""A data law that knows a reset interval: every R updates the networks begin anew, and a run pays, or gains, for it.

    D(sigma) = D0(sigma) (1 + rho n),   n = floor(sigma D / R) resets on the way to D

with D0 the law without resets (`data_law`). rho is what one reset costs, as a share of D0; negative where resets help.
Below sigma D = R nothing changes, so R and rho only show at high ratios. On public data it predicts little better or
worse than the law without (docs/results/scaling): it is offered for study and no part of the chain.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from scaling.laws.data_law import DataLaw

RHO = np.round(np.arange(-0.3, 0.91, 0.1), 2)
RHO_SD = 0.3  # of a normal prior about no cost
ROUNDS = 2
MOST = 50  # resets on the way that are looked at


def resets(utd: np.ndarray, steps: np.ndarray, interval: float) -> np.ndarray:
    """Resets on the way to `steps` at a ratio, one every `interval` updates."""
    return np.floor(np.asarray(utd) * np.asarray(steps) / interval)


class ResetLaw:
    """`fit_samples` as in `DataLaw`, for the point estimate alone (row 0).

    Fitted: rho_, law_ (the `DataLaw` without resets).
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval

    def fit_samples(self, cells: pd.DataFrame, log_steps: np.ndarray, variance: np.ndarray,
                    thresholds: np.ndarray) -> ResetLaw:  # fmt: skip
        values = log_steps[:1]
        seen = np.isfinite(values)
        utd = cells["utd"].to_numpy(dtype=float)[None, :, None]
        self.law_, self.rho_ = DataLaw().fit_samples(cells, values, variance, thresholds), 0.0
        # resets on the way to where the law itself puts D: counted from D as seen, its noise would pass for their cost
        expected = np.where(seen, values - self.law_.residuals_, 0.0)
        for _ in range(ROUNDS):
            passed = np.where(seen, np.minimum(resets(utd, np.exp(expected), self.interval), MOST), 0.0)
            self._profile(cells, values, variance, thresholds, passed)
            levels = range(len(thresholds))
            own = [[self.predict_samples(u, k, t)[0, 0] for k in levels] for t, u in zip(cells["task"], cells["utd"])]
            expected = np.log(np.where(np.isfinite(own), own, 1.0))[None]
        return self

    def _profile(self, cells, values, variance, thresholds, passed: np.ndarray) -> None:
        """The best rho, and the law without resets under it."""
        seen, best = np.isfinite(values), np.inf
        for rho in RHO if passed.any() else [0.0]:
            factor = 1 + rho * passed
            if (factor <= 0.2).any():
                continue
            law = DataLaw().fit_samples(cells, np.where(seen, values - np.log(factor), values), variance, thresholds)
            square = np.nanmean(law.residuals_[0] ** 2)
            noise = max(float(np.median(variance[seen[0]])), 1e-3) / seen.sum()
            loss = float(square + noise * (rho / RHO_SD) ** 2)
            if loss < best:
                best, self.rho_, self.law_ = loss, float(rho), law

    def predict_samples(self, utd: np.ndarray, level: int, task: str | None = None) -> np.ndarray:
        """(1, len(utd)) steps: the first D that has as many resets on its way as it pays for."""
        utd = np.atleast_1d(np.asarray(utd, dtype=float))
        free = self.law_.predict_samples(utd, level, task)
        out = free * (1 + self.rho_ * np.minimum(resets(utd, free, self.interval), MOST))
        for count in range(MOST, -1, -1):
            steps = free * (1 + self.rho_ * count)
            out = np.where((steps > 0) & (resets(utd, steps, self.interval) == count), steps, out)
        return out
