"""Learning curves whose law is known: the ground truth that the estimators are measured against.

Mean return over time: 1000 (1 - 0.2^(t / tau)), so a run reaches 800 at t = tau exactly, with
tau(sigma, B, eta) = scale_task (d0 + (b0 / sigma)^alpha) exp(q ln(B/B*)^2 + q ln(eta/eta*)^2) and
B* = batch_task sigma^-batch_exponent, eta* = rate_task sigma^-rate_exponent.
Seeds multiply tau by a log-normal factor; every logged return carries Gaussian noise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Sequence

import numpy as np
import pandas as pd
from scipy.optimize import brentq

TARGET = 800.0  # the return reached at t = tau
CELL = ["task", "utd", "batch_size", "learning_rate"]


@dataclass(frozen=True)
class Truth:
    """The laws behind the curves; per-task values are (data scale, B* at sigma 1, eta* at sigma 1)."""

    alpha: float = 0.8
    d0: float = 0.6
    b0: float = 1.5
    batch_exponent: float = 0.45
    rate_exponent: float = 0.30
    curvature: float = 0.15
    tasks: dict[str, tuple[float, float, float]] = field(
        default_factory=lambda: {
            "A": (1e5, 410.0, 2.0e-4),
            "B": (1.6e5, 360.0, 1.5e-3),
            "C": (2.5e5, 320.0, 3.0e-4),
            "D": (4e5, 450.0, 6.0e-4),
        }
    )

    def batch_size(self, task: str, utd: np.ndarray) -> np.ndarray:
        return self.tasks[task][1] * np.asarray(utd, dtype=float) ** -self.batch_exponent

    def learning_rate(self, task: str, utd: np.ndarray) -> np.ndarray:
        return self.tasks[task][2] * np.asarray(utd, dtype=float) ** -self.rate_exponent

    def data(self, task: str, utd: np.ndarray) -> np.ndarray:
        """Steps to TARGET at the best hyperparameters."""
        return self.tasks[task][0] * (self.d0 + (self.b0 / np.asarray(utd, dtype=float)) ** self.alpha)

    def steps(self, task: str, utd: float, batch_size: float, learning_rate: float) -> float:
        """Steps to TARGET at any hyperparameters."""
        off = np.log(batch_size / self.batch_size(task, utd)) ** 2
        off = off + np.log(learning_rate / self.learning_rate(task, utd)) ** 2
        return float(self.data(task, utd) * np.exp(self.curvature * off))


@dataclass(frozen=True)
class Noise:
    """Seed-to-seed log standard deviation of tau, and standard deviation of a logged return (scale 0-1000)."""

    seed: float = 0.25
    observation: float = 80.0


NOISE_FREE, LOW, REALISTIC = Noise(0.0, 0.0), Noise(0.1, 20.0), Noise(0.25, 80.0)


POINTS = 500  # logged returns per run; the public curves have 500 to 4000


def mean_factor(noise: Noise) -> float:
    """Steps at which the expected curve reaches TARGET, over tau: fast and slow seeds do not average out."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    factors, weights = np.exp(noise.seed * nodes), weights / weights.sum()
    return float(brentq(lambda t: weights @ (1 - 0.2 ** (t / factors)) - TARGET / 1000, 0.3, 3.0))


def runs(truth: Truth, cells: pd.DataFrame, seeds: int, noise: Noise, rng: np.random.Generator,
         points: int = POINTS, every: float = 0.0) -> pd.DataFrame:  # fmt: skip
    """Curves of `seeds` runs per row of cells (task, utd, batch_size, learning_rate, horizon).

    Logged at `points` even steps up to the horizon, or every `every` steps, one interval for all runs.
    """
    if every:
        counts = np.maximum(1, np.ceil(cells["horizon"].to_numpy(dtype=float) / every)).astype(int)
        parts = [runs(truth, part.assign(horizon=count * every), seeds, noise, rng, count)
                 for count, part in cells.groupby(counts)]  # fmt: skip
        return pd.concat(parts, ignore_index=True)
    tau = np.array([truth.steps(*row) for row in zip(*(cells[c] for c in CELL))])
    tau = np.repeat(tau, seeds) * np.exp(noise.seed * rng.standard_normal(len(cells) * seeds))
    horizon = np.repeat(cells["horizon"].to_numpy(dtype=float), seeds)
    steps = np.round(horizon[:, None] * np.arange(1, points + 1) / points)
    returns = 1000 * (1 - 0.2 ** (steps / tau[:, None]))
    returns += noise.observation * rng.standard_normal(returns.shape)
    table = {c: np.repeat(cells[c].to_numpy(), seeds * points) for c in CELL}
    table["seed"] = np.tile(np.repeat(np.arange(seeds), points), len(cells))
    return pd.DataFrame({**table, "env_steps": steps.ravel(), "episode_return": returns.ravel()})


def grid(truth: Truth, task: str, utds: Sequence[float], factor: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Three batch sizes and three learning rates, `factor` apart, around the best at the middle of `utds`."""
    middle = float(np.exp(np.mean(np.log(utds))))
    steps = factor ** np.arange(-1.0, 2.0)
    return np.round(truth.batch_size(task, middle) * steps), truth.learning_rate(task, middle) * steps


def sweep(truth: Truth, noise: Noise, rng: np.random.Generator, utds: Sequence[float] = (1.0, 2.0, 4.0, 8.0),
          seeds: int = 8, factor: float = 2.0, margin: float = 2.5, points: int = POINTS,
          every: float = 0.0) -> pd.DataFrame:  # fmt: skip
    """The grid of runs that finds B* and eta*: tasks x utds x 3 batch sizes x 3 learning rates x seeds.

    Each run lasts `margin` times the steps that the best hyperparameters need.
    """
    rows = []
    for task in truth.tasks:
        batches, rates = grid(truth, task, utds, factor)
        rows += [(task, u, b, r, margin * float(truth.data(task, u))) for u in utds for b in batches for r in rates]
    cells = pd.DataFrame(rows, columns=[*CELL, "horizon"])
    return runs(truth, cells, seeds, noise, rng, points, every).assign(set="sweep")


def data_runs(truth: Truth, noise: Noise, rng: np.random.Generator, best: pd.DataFrame | None = None,
              utds: Sequence[float] = (1.0, 2.0, 4.0, 8.0, 16.0), seeds: int = 8, margin: float = 2.5,
              points: int = POINTS, every: float = 0.0) -> pd.DataFrame:  # fmt: skip
    """Runs at one (B, eta) per task and utd: `best` (columns CELL), by default the true ones."""
    if best is None:
        rows = [(t, u, float(truth.batch_size(t, u)), float(truth.learning_rate(t, u)))
                for t in truth.tasks for u in utds]  # fmt: skip
        best = pd.DataFrame(rows, columns=CELL)
    cells = best[CELL].assign(horizon=[margin * float(truth.data(t, u)) for t, u in zip(best["task"], best["utd"])])
    return runs(truth, cells, seeds, noise, rng, points, every).assign(set="data")
