"""What a run costs: FLOPs as published or counted, seconds as measured, and delta, what one transition is worth.

Per environment transition a run pays for the simulation of that transition and for sigma updates:
FLOPs:   delta + sigma * flops_per_update(B, N)              published count: 10 N B per update, delta set by hand
seconds: t + sigma * u(B), u(B) = u0 + u1 B                  sequential: one process does both in turn
         max(t, sigma * u(B))                                overlapped: simulation and learning run side by side
Either way the total is D times that, so one frontier serves both currencies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.optimize import nnls

from scaling.errors import InputError

PUBLISHED_FLOPS = 10.0  # per critic parameter and sample: forward and backward of critic, target and actor terms
CURRENCIES = ("flops", "seconds")


@dataclass(frozen=True)
class CostModel:
    """Cost per transition in one currency.

    model_size: critic parameters N. delta: FLOPs one transition is worth. flops_per_sample: counted FLOPs per update
    and sample at N = model_size, None for the published 10 N. seconds_per_transition, seconds_per_update,
    seconds_per_update_sample: t, u0 and u1; nan where nothing was measured. overlapped: which of the two formulas.
    """

    currency: str = "flops"
    model_size: float = 1.5e5
    delta: float = 0.0
    flops_per_sample: float | None = None
    seconds_per_transition: float = float("nan")
    seconds_per_update: float = float("nan")
    seconds_per_update_sample: float = float("nan")
    overlapped: bool = False

    @property
    def measured(self) -> bool:
        return bool(np.isfinite(self.seconds_per_transition))

    def flops_per_update(self, batch_size: np.ndarray, model_size: np.ndarray | None = None) -> np.ndarray:
        """FLOPs of one critic update (counted ones scale with N / model_size)."""
        size = self.model_size if model_size is None else model_size
        per_sample = PUBLISHED_FLOPS * size
        if self.flops_per_sample is not None:
            per_sample = self.flops_per_sample * size / self.model_size
        return per_sample * np.asarray(batch_size, dtype=float)

    def seconds_per_update_at(self, batch_size: np.ndarray) -> np.ndarray:
        return self.seconds_per_update + self.seconds_per_update_sample * np.asarray(batch_size, dtype=float)

    def updates(self, utd: np.ndarray, batch_size: np.ndarray, model_size: np.ndarray | None = None) -> np.ndarray:
        """Cost of the updates per transition: C / D."""
        if self.currency == "seconds":
            return np.asarray(utd) * self.seconds_per_update_at(batch_size)
        return np.asarray(utd) * self.flops_per_update(batch_size, model_size)

    def per_transition(self, utd: np.ndarray, batch_size: np.ndarray,
                       model_size: np.ndarray | None = None) -> np.ndarray:  # fmt: skip
        """Cost of a transition and its sigma updates: F / D."""
        updates = self.updates(utd, batch_size, model_size)
        if self.currency == "flops":
            return updates + self.delta
        if self.overlapped:
            return np.maximum(updates, self.seconds_per_transition)
        return updates + self.seconds_per_transition

    def seconds(self, utd: np.ndarray, batch_size: np.ndarray) -> np.ndarray:
        """Seconds per transition under the measured model, whatever the currency."""
        return replace(self, currency="seconds").per_transition(utd, batch_size)

    def measured_delta(self, batch_size: float) -> float:
        """FLOPs the learner could have done in the seconds one transition takes, at this batch size."""
        return float(self.seconds_per_transition * self.flops_per_update(batch_size)
                     / self.seconds_per_update_at(batch_size))  # fmt: skip


def measure(windows: pd.DataFrame) -> tuple[float, float, float, pd.DataFrame]:
    """Seconds per transition t, per update u0, and per update and sample u1, from windows of runs in progress.

    windows: one row per stretch between two logs: transitions, updates, seconds, batch_size, overlapped (bool). Least
    squares on relative errors, coefficients >= 0. Overlapped stretches cost the larger of the two sides: each side is
    fitted on the stretches it dominates, which are found by alternating. Returns (t, u0, u1, windows with `predicted`).
    """
    data = windows[(windows["seconds"] > 0) & (windows["transitions"] > 0)].reset_index(drop=True)
    if data.empty:
        raise InputError("cost model: no stretch of a run has env_steps and wall_time_s; log both in metrics.jsonl")
    seconds = data["seconds"].to_numpy(dtype=float)
    columns = np.stack([data["transitions"], data["updates"], data["updates"] * data["batch_size"]], axis=1)
    columns = columns.astype(float)
    overlapped = data["overlapped"].to_numpy(dtype=bool)
    if data.loc[data["updates"] > 0, "batch_size"].nunique() < 2:
        columns[:, 2] = 0.0  # one batch size cannot split the cost of an update: it is all per update
    mask = np.ones_like(columns)
    rows = columns / seconds[:, None]
    scale = np.where(rows.max(axis=0) > 0, rows.max(axis=0), 1.0)
    solution = np.zeros(3)
    for _ in range(20):
        solution = nnls(rows * mask / scale, np.ones(len(rows)))[0] / scale
        if not overlapped.any():
            break
        simulate, learn = columns[:, 0] * solution[0], columns[:, 1:] @ solution[1:]
        learner_bound = overlapped & (learn >= simulate)
        new = np.ones_like(columns)
        new[learner_bound, 0] = 0.0
        new[overlapped & ~learner_bound, 1:] = 0.0
        if np.array_equal(new, mask):
            break
        mask = new
    parts = columns * solution
    both, larger = parts.sum(axis=1), np.maximum(parts[:, 0], parts[:, 1:].sum(axis=1))
    data["predicted"] = np.where(overlapped, larger, both)
    return float(solution[0]), float(solution[1]), float(solution[2]), data
