"""Which returns J the laws are fitted at, where the user does not say: a stated rule."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scaling.curves.crossings import seed_matrix

RULE = (
    "{count} levels, evenly spaced from 50 % to 95 % of the way from the lowest return to the highest return that the "
    "best hyperparameters reach for three of four (task, sigma) pairs"
)
LEVELS = 5


def end_levels(curves: pd.DataFrame, cell_columns: list[str]) -> pd.DataFrame:
    """Per cell the lowest and the final level of the seed-mean curve, each an average over 5 % of it or more."""
    rows = []
    for key, cell in curves.groupby(cell_columns, sort=True, dropna=False):
        steps, returns, _ = seed_matrix(cell)
        mean = returns.mean(axis=0)
        width = max(1, len(steps) // 20)
        tail = np.cumsum(mean[::-1])[width - 1 :] / np.arange(width, len(mean) + 1)
        head = np.cumsum(mean)[width - 1 :] / np.arange(width, len(mean) + 1)
        rows.append((*key, head.min(), tail.max()))
    return pd.DataFrame(rows, columns=[*cell_columns, "lowest", "final"])


def choose_thresholds(curves: pd.DataFrame, cell_columns: list[str], count: int = LEVELS) -> np.ndarray:
    """(count,) thresholds by RULE."""
    levels = end_levels(curves, cell_columns)
    best = levels.groupby(["task", "utd"])["final"].max().to_numpy()
    top = float(np.sort(best)[::-1][max(0, int(np.ceil(0.75 * len(best))) - 1)])
    low = float(levels["lowest"].min())
    return low + (top - low) * np.linspace(0.5, 0.95, count)
