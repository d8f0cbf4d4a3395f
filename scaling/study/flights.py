"""An autopilot's pilots replayed from recorded runs: what they predict of runs that they have not seen.

    python -m scaling.study.flights curves=docs/results/scaling/cartpole16/curves.csv.gz where="learning_rate > 0.0005"

Each setting (batch size, learning rate) of the table is a task of its own: some of its seeds are the pilots at every
ratio, of as many steps in all as if each ended with the shortest, and their law says how many steps one run needs. All
its other seeds are such runs.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from scaling.autopilot.outcome import of_one_run, proven, scatter
from scaling.autopilot.rounds import LEAST_RATIOS, lengths
from scaling.cli import main, numbers, option
from scaling.curves.crossings import Crossings
from scaling.curves.read import read_curves
from scaling.curves.table import CELL
from scaling.curves.thresholds import end_levels
from scaling.errors import InputError
from scaling.laws.chain import data_points, fit_data_law
from scaling.laws.uncertainty import interval
from scaling.report.terminal import table

SETTING = ["batch_size", "learning_rate"]
LEVELS = np.linspace(0.5, 1.0, 5)  # of the way from the start to the target, as an autopilot's laws


@dataclass
class Options:
    """The keys of the study."""

    curves: str | None = option(None, "runs of one task with many seeds at three ratios or more, as fit.py reads them")
    where: str | None = option(None, "only these rows")
    targets: list = option([250.0, 350.0, 430.0], "returns to reach", numbers)
    seeds: int = option(2, "pilots at each ratio", int)
    flights: int = option(7, "sets of pilots per setting, of different seeds", int)
    lengths: float = option(0.5, "pilots' lengths fall with the ratio to this power; 0: all alike", float)
    update: float = option(90.0, "transitions that take as long as one update", float)
    samples: int = option(300, "of each law", int)
    seed: int = option(0, "of the draw of pilots", int)


def fly(pilots: pd.DataFrame, target: float, kind: str, options: Options) -> tuple[Any, tuple[float, int], set] | None:
    """(law, scatter between seeds, ratios that may be chosen) of pilots; None where too few reach the target."""
    low = float(end_levels(pilots, CELL)["lowest"].min())
    crossings = Crossings(CELL, options.samples, kind=kind).fit(pilots, low + (target - low) * LEVELS)
    arrived = crossings.cells_["utd"][np.isfinite(crossings.steps_[0, :, -1])]
    if len(arrived) < LEAST_RATIOS:
        return None
    sure = set(arrived if kind == "mean" else proven(crossings, -1) or arrived)
    points = data_points(crossings, np.random.default_rng(0))
    seeds = float(crossings.cells_["seeds"].median())
    known = (float(np.median(points.variance)) * seeds, 10**6) if kind == "mean" else scatter(crossings, -1)
    return fit_data_law(points, np.random.default_rng(0)), known, sure


def replay(runs: pd.DataFrame, target: float, kind: str, chosen: list, options: Options) -> list[dict[str, Any]] | None:
    """A row per ratio and run that was not among the pilots: what their law predicted, and what came out."""
    ends = runs.groupby("utd")["env_steps"].max()
    length = dict(zip(ends.index, lengths(ends.index, ends.min(), options.lengths)))
    flown = runs["seed"].isin(chosen) & (runs["env_steps"] <= runs["utd"].map(length))
    found = fly(runs[flown].reset_index(drop=True), target, kind, options)
    if found is None:
        return None
    others = Crossings(CELL, kind="median_seed").fit(runs[~runs["seed"].isin(chosen)].reset_index(drop=True), [target])
    rows = []
    for at, utd in enumerate(others.cells_["utd"]):
        law, between, sure = found
        steps = law.predict_samples(np.array([utd]), len(law.thresholds_) - 1, law.tasks_[0])[:, 0]
        low, high = interval(of_one_run(SimpleNamespace(env_steps=steps), between, np.random.default_rng(0)))
        first = others.cells_["first"][at]
        for came, end in zip(np.maximum(others.seed_steps_[at][:, 0], first), others.seed_ends_[at]):
            rows.append({"utd": utd, "predicted": steps[0], "low": low, "high": high, "came": came, "end": end,
                         "price": 1 + options.update * utd, "sure": utd in sure})  # fmt: skip
    return rows


def score(flights: list[pd.DataFrame | None]) -> list[str]:
    """A row of the table.

    flights, those that stop for want of ratios that arrive, runs predicted; their error (median; a run that never
    arrives errs by no number), bias (of ln D), how many the intervals hold, as far as they ran. Then of the flights
    that chose another ratio than the middle one: how many, in how many of their runs it was the faster, by which
    factor (median).
    """
    flew = [flight for flight in flights if flight is not None]
    runs = pd.concat(flew)
    arrived = np.isfinite(runs["came"])
    error = np.log(runs["came"] / runs["predicted"])[arrived]
    inside = (runs["low"] <= runs["came"]) & (runs["came"] <= runs["high"])
    inside = inside[arrived | (runs["end"] >= runs["high"])]
    faster, gains = [], []
    for flight in flew:
        first = flight.groupby("utd").first()
        price = (first["predicted"] * first["price"])[first["sure"]]
        best, own = price.idxmin(), first.index[len(first) // 2]
        seconds = [(flight["came"] * flight["price"])[flight["utd"] == utd].to_numpy() for utd in (best, own)]
        if best != own:
            faster += list((seconds[0] < seconds[1])[np.isfinite(np.minimum(*seconds))])
            medians = np.median(seconds, axis=1)
            gains.append(medians[0] / medians[1] if np.isfinite(medians).any() else np.nan)
    return [str(len(flights)), str(len(flights) - len(flew)), str(len(runs)), f"{np.median(abs(np.expm1(error))):.0%}",
            f"{np.expm1(error.mean()):+.0%}", f"{inside.mean():.0%}", f"{len(gains)}",
            f"{np.mean(faster):.0%}" if faster else "-", f"{np.nanmedian(gains):.2f}" if gains else "-"]  # fmt: skip


def least(flights: list[pd.DataFrame | None]) -> float:
    """The median error of one run where the median of all that were no pilots is what is predicted."""
    apart = [rows["came"] / rows["came"].median() for flight in flights if flight is not None
             for _, rows in flight.groupby("utd")]  # fmt: skip
    away = np.concatenate(apart) - 1
    return float(np.median(np.abs(away[np.isfinite(away)])))


def run(options: Options) -> int:
    if options.curves is None:
        raise InputError("give curves=<runs of one task with many seeds>")
    known = read_curves(options.curves, options.where).table
    rng, draws = np.random.default_rng(options.seed), []
    for _, runs in known.groupby(SETTING):
        seeds = rng.permutation(runs["seed"].unique())
        most = (len(seeds) - 1) // options.seeds
        if runs["utd"].nunique() < LEAST_RATIOS or not most:
            raise InputError(f"curves={options.curves}: each setting needs {LEAST_RATIOS} ratios or more, and seeds"
                             f" beyond the {options.seeds} of its pilots")  # fmt: skip
        draws += [(runs, seeds[i * options.seeds : (i + 1) * options.seeds]) for i in range(min(most, options.flights))]
    head = ["crossing", "flights", "stop", "runs", "error", "bias", "90% holds", "chose", "faster", "seconds"]
    rows = []
    for kind in ("mean", "median_seed"):
        found = [replay(runs, target, kind, list(chosen), options)
                 for runs, chosen in draws for target in options.targets]  # fmt: skip
        flights = [None if flight is None else pd.DataFrame(flight) for flight in found]
        rows.append([kind, *score(flights)])
    print(table(head, rows))
    print(f"\nWho knew the median of such runs would err by {least(flights):.0%} of one.")
    return 0


if __name__ == "__main__":
    sys.exit(main(Options, "python -m scaling.study.flights", __doc__, run))
