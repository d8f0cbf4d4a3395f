"""How far the estimators can be trusted: the whole chain on curves whose law is known, many times over.

    python -m scaling.study replicates=50            the table, about 5 s a replicate on one core
    python -m scaling.study replicates=4 samples=100 a quick look

Each replicate is a user's whole path: a sweep over B and eta at sigma 1..8, runs at the B*, eta* fitted from it at
sigma 1..16, then one chain over all of them. D is compared with the steps at which the expected curve reaches the
target.
`law_alone=true` runs the second stage at the true B*, eta* instead.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scaling.cli import boolean, option
from scaling.curves.crossings import Crossings
from scaling.laws.chain import data_points, fit_data_law, fit_hyperparameters
from scaling.laws.cost import CostModel
from scaling.laws.frontier import Frontier
from scaling.laws.published import PublishedDataLaw, PublishedHyperparameters, published_crossings
from scaling.report.terminal import table
from scaling.study.synthetic import (
    CELL,
    LOW,
    NOISE_FREE,
    REALISTIC,
    TARGET,
    Noise,
    Truth,
    data_runs,
    mean_factor,
    sweep,
)

SWEEP = (1.0, 2.0, 4.0, 8.0)
RUNS = (1.0, 2.0, 4.0, 8.0, 16.0)
COST = CostModel(delta=4e9)
NOISES = {"none": NOISE_FREE, "low": LOW, "realistic": REALISTIC}


@dataclass
class Options:
    """The keys of the study."""

    replicates: int = option(50, "synthetic sweeps to fit", int)
    samples: int = option(300, "bootstrap samples in each, for the coverage; 0 leaves it out", int)
    noise: str = option("realistic", "none, low or realistic")
    every: float = option(0.0, "steps between evaluations; 0: 500 in each run", float)
    law_alone: bool = option(False, "run the data stage at the true B*, eta*", boolean)
    seed: int = option(0, "seed of the first replicate", int)


def typical(values: list) -> np.ndarray:
    """Geometric mean over tasks."""
    return np.exp(np.mean(np.log(values), axis=0))


class Target:
    """The true values that the chain estimates, for the typical task."""

    def __init__(self, truth: Truth, noise: Noise) -> None:
        self.truth, self.factor = truth, mean_factor(noise)
        grid = np.geomspace(0.25, 64, 4001)
        self.best_utd = float(grid[np.argmin(self.budget(grid))])

    def data(self, utd: np.ndarray) -> np.ndarray:
        return self.factor * typical([self.truth.data(t, utd) for t in self.truth.tasks])

    def batch(self, utd: np.ndarray) -> np.ndarray:
        return typical([self.truth.batch_size(t, utd) for t in self.truth.tasks])

    def budget(self, utd: np.ndarray) -> np.ndarray:
        utd = np.asarray(utd, dtype=float)
        return self.data(utd) * COST.per_transition(utd, self.batch(utd))


def replicate(truth: Truth, noise: Noise, seed: int, samples: int, law_alone: bool,
              every: float = 0.0) -> dict[str, float]:  # fmt: skip
    """One synthetic sweep through the chain: estimates, and whether each interval holds the truth."""
    rng = np.random.default_rng(seed)
    target = Target(truth, noise)
    swept = sweep(truth, noise, rng, SWEEP, every=every)
    first = Crossings(["set", *CELL], 0, seed).fit(swept, [TARGET])
    surface = fit_hyperparameters(first, 0, rng)
    best = None
    if not law_alone:
        keys = [(t, u) for t in truth.tasks for u in RUNS]
        best = pd.DataFrame(
            [(t, u, *(surface.best_samples(n, t, u)[0, 0] for n in ("batch_size", "learning_rate"))) for t, u in keys],
            columns=CELL,
        )
    ran = data_runs(truth, noise, rng, best, RUNS, every=every)
    crossings = Crossings(["set", *CELL], samples, seed).fit(pd.concat([swept, ran], ignore_index=True), [TARGET])
    surface = fit_hyperparameters(crossings, 0, rng)
    law = fit_data_law(data_points(crossings, rng), rng)
    frontier = Frontier().fit(
        lambda u, k: law.predict_samples(u, k),
        lambda u: typical([surface.best_samples("batch_size", t, u) for t in truth.tasks]),
        COST, 1, np.array(RUNS),
    )  # fmt: skip
    ratios = np.array([0.25, 4.0, 64.0])
    data = law.predict_samples(ratios, 0)
    estimates = {
        "B exponent": (surface.exponent_["batch_size"], truth.batch_exponent),
        "eta exponent": (surface.exponent_["learning_rate"], truth.rate_exponent),
        "alpha": (law.alpha_.reshape(len(data), -1)[:, 0], truth.alpha),
        **{f"D at sigma {r:g}": (data[:, i], float(target.data(r))) for i, r in enumerate(ratios)},
        "B* at sigma 16": (typical([surface.best_samples("batch_size", t, 16.0) for t in truth.tasks])[:, 0],
                           float(target.batch(16.0))),
        "sigma*": (np.exp(frontier.log_utd_[:, 0]), target.best_utd),
    }  # fmt: skip
    out = {"penalty": float(target.budget(np.exp(frontier.log_utd_[0, 0])) / target.budget(target.best_utd))}
    for name, (values, true) in estimates.items():
        out[name], out[f"{name} true"] = float(values[0]), float(true)
        if samples >= 20:
            low, high = np.quantile(values[1:], [0.05, 0.95])
            out[f"{name} covered"] = float(low <= true <= high)
    out.update(_published(truth, target, swept, ran, seed))
    return out


def _published(truth: Truth, target: Target, swept: pd.DataFrame, ran: pd.DataFrame, seed: int) -> dict[str, float]:
    """The published procedure on the same curves."""
    cells, steps = published_crossings(swept, np.array([TARGET]), seed=seed)
    theirs = PublishedHyperparameters().fit(cells, steps[:, :, 0])
    cells, steps = published_crossings(ran, np.array([TARGET]), samples=0)
    law = PublishedDataLaw().fit(np.array(RUNS), steps[0].reshape(len(truth.tasks), len(RUNS), 1))
    scale = typical(list(law.task_scale_))
    return {"B exponent published": theirs.exponent_["batch_size"],
            "eta exponent published": theirs.exponent_["learning_rate"], "alpha published": law.parameters_[0, 0],
            **{f"D at sigma {r:g} published": float(law.predict(r)[0, 0] * scale)
               for r in (0.25, 4.0, 64.0)}}  # fmt: skip


def summarise(results: pd.DataFrame) -> str:
    """The table of the study."""
    rows = []
    for column in [c[:-5] for c in results if c.endswith(" true")]:
        values, true = results[column], results[f"{column} true"]
        relative = column.startswith(("D at", "B*", "sigma*"))
        error = values / true - 1 if relative else values - true
        theirs = "-"
        if f"{column} published" in results:
            other = results[f"{column} published"]
            theirs = f"{(other / true - 1).abs().median():.1%}" if relative else f"{other.mean():.3f}"
        covered = f"{results[f'{column} covered'].mean():.0%}" if f"{column} covered" in results else "-"
        rows.append([
            column, f"{true.iloc[0]:.4g}", f"{values.mean():.4g}", f"{error.mean():+.1%}" if relative else
            f"{error.mean():+.3f}", f"{error.abs().median():.1%}" if relative else f"{error.abs().median():.3f}",
            covered, theirs,
        ])  # fmt: skip
    head = ["", "truth", "mean", "bias", "med |err|", "90% covers", "published"]
    penalty = results["penalty"]
    return (f"{table(head, rows)}\n\nbudget penalty of the chosen sigma: median {penalty.median():.4f}, "
            f"mean {penalty.mean():.4f}, 90 % below {penalty.quantile(0.9):.4f}")  # fmt: skip


def run(options: Options) -> pd.DataFrame:
    """All replicates, with the table printed at the end."""
    start = time.monotonic()
    rows = []
    for index in range(options.replicates):
        rows.append(replicate(Truth(), NOISES[options.noise], options.seed + index, options.samples, options.law_alone,
                              options.every))  # fmt: skip
        if sys.stderr.isatty():
            print(f"\r{index + 1} of {options.replicates}", end="", file=sys.stderr, flush=True)
    results = pd.DataFrame(rows)
    stage = "true" if options.law_alone else "fitted"
    print(f"{options.replicates} replicates, noise: {options.noise}, data runs at the {stage} hyperparameters, "
          f"{time.monotonic() - start:.0f} s\n")  # fmt: skip
    print(summarise(results))
    return results
