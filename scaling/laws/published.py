"""The published procedure, for comparison: what the authors' code does, defects included (arXiv 2502.04327, qscaled).

Crossings at logged steps of the seed mean; B* and eta* as averages of argmins over bootstrap samples and over the other
hyperparameter; ordinary least squares in log10 with one slope; task-averaged D after dividing by each task's median;
plain least squares on D; sigma* from a grid, its power law without the top two budgets.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar

from scaling.curves.crossings import isotonic_crossing
from scaling.laws.cost import PUBLISHED_FLOPS

CELL = ["task", "utd", "batch_size", "learning_rate"]


def published_crossings(curves: pd.DataFrame, thresholds: np.ndarray, samples: int = 100,
                        seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:  # fmt: skip
    """First logged step at or above each threshold. Returns cells and (samples + 1, cells, K) steps, inf if never."""
    rng = np.random.default_rng(seed)
    rows, blocks = [], []
    for key, cell in curves.groupby(CELL, sort=True):
        wide = cell.pivot(index="env_steps", columns="seed", values="episode_return").dropna()
        returns = wide.to_numpy().T
        weights = np.full((samples + 1, len(returns)), 1 / len(returns))
        draws = rng.integers(0, len(returns), size=(samples, len(returns)))
        weights[1:] = (draws[:, :, None] == np.arange(len(returns))).mean(axis=1)
        steps = wide.index.to_numpy(dtype=float)
        sums = weights @ np.cumsum(returns, axis=1)
        blocks.append(np.stack([isotonic_crossing(steps, sums, j, interpolate=False) for j in thresholds], axis=-1))
        rows.append(key)
    return pd.DataFrame(rows, columns=CELL), np.stack(blocks, axis=1)


class PublishedHyperparameters:
    """B*(sigma), eta*(sigma): `fit(cells, steps)` with steps (samples + 1, C), inf where never reached.

    Fitted: exponent_ {name: x* ~ sigma^-exponent}, intercept_ {name: {task: x* at sigma 1}}, table_.
    """

    def fit(self, cells: pd.DataFrame, steps: np.ndarray) -> PublishedHyperparameters:
        self.exponent_, self.intercept_, tables = {}, {}, []
        for name, other in (("batch_size", "learning_rate"), ("learning_rate", "batch_size")):
            rows = []
            for (task, utd), group in cells.groupby(["task", "utd"]):
                best = []
                for _, column in group.groupby(other):
                    column = column.sort_values(name)
                    draws = steps[1:, column.index.to_numpy()]
                    best.append(column[name].to_numpy(dtype=float)[draws.argmin(axis=1)])
                rows.append((task, utd, float(np.mean(best))))
            table = pd.DataFrame(rows, columns=["task", "utd", "best"]).assign(hyperparameter=name)
            tasks = sorted(table["task"].unique())
            dummies = (table["task"].to_numpy()[:, None] == np.array(tasks, dtype=object)).astype(float)
            design = np.column_stack([np.log10(table["utd"]), dummies])
            solution = np.linalg.lstsq(design, np.log10(table["best"].to_numpy()), rcond=None)[0]
            self.exponent_[name] = float(-solution[0])
            self.intercept_[name] = {t: float(10**v) for t, v in zip(tasks, solution[1:])}
            tables.append(table)
        self.table_ = pd.concat(tables, ignore_index=True)
        return self

    def predict(self, name: str, utd: np.ndarray) -> np.ndarray:
        """Arithmetic mean over tasks, as the published frontier takes it."""
        utd = np.asarray(utd, dtype=float)
        return np.mean([v * utd ** -self.exponent_[name] for v in self.intercept_[name].values()], axis=0)


def fit_power_law(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(a, b, c) of y = c + (x / b)^-a by least squares on y.

    Where the published code starts L-BFGS-B from 500 points, this solves for c and b^a linearly at each a and searches
    a alone: the same optimum in a thousandth of the time.
    """

    def solve(a: float) -> tuple[float, float, float]:
        power = x**-a
        centred = power - power.mean()
        slope = max(float(centred @ (y - y.mean()) / (centred @ centred)), 1e-12)
        constant = float(y.mean() - slope * power.mean())
        return float(((constant + slope * power - y) ** 2).mean()), slope, constant

    grid = np.geomspace(0.02, 8, 120)
    at = int(np.argmin([solve(a)[0] for a in grid]))
    bracket = (grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)])
    a = float(minimize_scalar(lambda v: solve(v)[0], bounds=bracket, method="bounded", options={"xatol": 1e-9}).x)
    _, slope, constant = solve(a)
    return np.array([a, slope ** (1 / a), constant])


class PublishedDataLaw:
    """y(sigma) = c + (sigma / b)^-a of the task-averaged, median-normalised D.

    `fit(utds, steps)`: steps (tasks, S, K). Fitted: parameters_ (K, 3) = (a, b, c); scale_, the median of the tasks'
    medians; task_scale_ (tasks,); normalised_ (S, K). Needs every task to reach every threshold at every ratio.
    """

    def fit(self, utds: np.ndarray, steps: np.ndarray, task_scale: np.ndarray | None = None) -> PublishedDataLaw:
        self.task_scale_ = np.median(steps, axis=(1, 2)) if task_scale is None else task_scale
        self.scale_ = float(np.median(self.task_scale_))
        self.normalised_ = (steps / self.task_scale_[:, None, None]).mean(axis=0)
        self.parameters_ = np.array([fit_power_law(utds, y) for y in self.normalised_.T])
        return self

    def predict(self, utd: np.ndarray) -> np.ndarray:
        """(len(utd), K) normalised D."""
        a, b, c = self.parameters_.T
        with np.errstate(divide="ignore", over="ignore"):  # a fitted b of 0: D is c at every ratio
            return c[None] + (np.atleast_1d(utd)[:, None] / b[None]) ** -a[None]


def published_frontier(law: PublishedDataLaw, hyperparameters: PublishedHyperparameters, utds: np.ndarray,
                       model_size: float = 1.5e5, delta: float = 4e9, left_out: int = 2) -> dict:  # fmt: skip
    """sigma*(F) = scale F^exponent and, for the left-out budgets, predicted and found sigma*."""
    grid = np.geomspace(np.min(utds), np.max(utds), 100)
    data = law.predict(grid).T * law.scale_  # (K, 100)
    cost = PUBLISHED_FLOPS * model_size * hyperparameters.predict("batch_size", grid) * grid
    budget = data * (cost[None] + delta)
    at = budget.argmin(axis=1)
    best, least = grid[at], budget.min(axis=1)
    exponent, scale = np.polyfit(np.log10(least[:-left_out]), np.log10(best[:-left_out]), 1)
    predicted = 10**scale * least[-left_out:] ** exponent
    return {"exponent": float(exponent), "scale": float(10**scale), "predicted": predicted, "found": best[-left_out:],
            "budget": least}  # fmt: skip
