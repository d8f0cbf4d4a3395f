"""The compute-optimal update ratio: sigma*(F) = argmin over sigma of F = C + delta D at each return level."""

from __future__ import annotations

from typing import Callable

import numpy as np

from scaling.laws.cost import CostModel

GRID = 161  # ratios per search, equally spaced in ln sigma; the parabola through the best three refines


def minimise(cost: np.ndarray, log_utd: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lowest point of each row. cost: (R, G); log_utd: (G,) equally spaced. Returns ln sigma*, ln F*, at_bound (R,)."""
    log_cost = np.log(cost)
    at = np.argmin(np.where(np.isnan(log_cost), np.inf, log_cost), axis=1)
    rows, last = np.arange(len(cost)), len(log_utd) - 1
    bound = (at == 0) | (at == last)
    inner = np.clip(at, 1, last - 1)
    left, mid, right = (log_cost[rows, inner + k] for k in (-1, 0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        bend = left - 2 * mid + right
        shift = np.where((bend > 0) & ~bound, 0.5 * (left - right) / bend, 0.0)
    shift = np.clip(np.nan_to_num(shift), -1.0, 1.0)
    step = log_utd[1] - log_utd[0]
    best = log_utd[at] + shift * step
    tilt = np.where(bound | ~(np.isfinite(left) & np.isfinite(right)), 0.0, np.nan_to_num(left) - np.nan_to_num(right))
    return best, log_cost[rows, at] - 0.25 * tilt * shift, bound


def search_range(utds: np.ndarray, reach: float = 4.0) -> np.ndarray:
    """(GRID,) ln sigma from the lowest measured ratio / reach to the highest * reach."""
    return np.linspace(np.log(np.min(utds) / reach), np.log(np.max(utds) * reach), GRID)


class Frontier:
    """sigma*, D, C and F per threshold, and the power law sigma*(F) = scale * F^exponent between them.

    `fit(data, batch, cost, levels, utds)`: data(utd, level) -> (R, G) steps; batch(utd) -> (R, G) batch sizes; cost a
    CostModel; utds the measured ratios. Fitted: log_utd_, log_budget_, log_data_, log_compute_, at_bound_ (R, K),
    exponent_ (R,) and log_scale_ (R,), fitted without the `left_out` largest budgets; held_out_ {threshold number: (R,)
    ln sigma* that the law predicts there}.
    """

    def __init__(self, left_out: int = 2, reach: float = 4.0) -> None:
        self.left_out = left_out
        self.reach = reach

    def fit(self, data: Callable[[np.ndarray, int], np.ndarray], batch: Callable[[np.ndarray], np.ndarray],
            cost: CostModel, levels: int, utds: np.ndarray, model_size: float | None = None) -> Frontier:  # fmt: skip
        grid = search_range(utds, self.reach)
        utd = np.exp(grid)
        batches = batch(utd)
        unit = cost.per_transition(utd[None], batches, model_size)
        steps = np.stack([data(utd, level) for level in range(levels)], axis=1)  # (R, K, G)
        columns = [minimise(steps[:, level] * unit, grid) for level in range(levels)]
        self.log_utd_, self.log_budget_, self.at_bound_ = (np.stack(c, axis=1) for c in zip(*columns))
        index = np.clip(np.rint((self.log_utd_ - grid[0]) / (grid[1] - grid[0])).astype(int), 0, len(grid) - 1)
        rows = np.arange(len(index))[:, None]
        self.log_data_ = np.log(steps[rows, np.arange(levels)[None], index])
        updates = np.broadcast_to(cost.updates(utd[None], batches, model_size), (len(index), len(grid)))
        self.log_compute_ = self.log_data_ + np.log(updates[rows, index])
        self._power_law(levels)
        return self

    def _power_law(self, levels: int) -> None:
        kept = max(levels - self.left_out, 2) if levels >= 2 else levels
        order = np.argsort(self.log_budget_[0])
        train, top = order[:kept], order[kept:]
        self.exponent_ = self.log_scale_ = np.full(len(self.log_utd_), np.nan)
        self.held_out_: dict[int, np.ndarray] = {}
        if levels < 2:
            return
        x, y = self.log_budget_[:, train], self.log_utd_[:, train]
        centre = x.mean(axis=1, keepdims=True)
        spread = ((x - centre) ** 2).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            self.exponent_ = ((x - centre) * y).sum(axis=1) / spread
        self.log_scale_ = y.mean(axis=1) - self.exponent_ * centre[:, 0]
        self.held_out_ = {int(k): self.log_scale_ + self.exponent_ * self.log_budget_[:, k] for k in top}
