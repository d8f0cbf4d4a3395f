"""What was predicted beside what came out, and what it all took."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scaling.curves.crossings import Crossings
from scaling.curves.run_directories import read_metrics, read_run_directories
from scaling.curves.table import CELL
from scaling.laws.uncertainty import interval
from scaling.report.plan import Plan
from scaling.report.terminal import amount, table

PROVEN = 0.75  # of the pilots at a ratio


@dataclass
class Reached:
    """When one run first returned the target: env steps, critic updates, seconds of training; None where it did not."""

    env_steps: float | None
    updates: float | None
    seconds: float | None
    best: float  # the highest return of an evaluation


def reached(run_dir: Path, target: float) -> Reached:
    """Of a finished run, by the crossing that the laws are made of (isotonic regression of its evaluations)."""
    curve = read_run_directories(run_dir).table
    crossed = Crossings(CELL, 0, 0).fit(curve.assign(set="run"), [target]).steps_[0, 0, 0]
    best = float(curve["episode_return"].max())
    if not np.isfinite(crossed):
        return Reached(None, None, None, best)
    log = read_metrics(run_dir / "metrics.jsonl")
    found: list[float | None] = []
    for name in ("critic_updates", "wall_time_s"):
        known = log[["env_steps", name]].dropna().sort_values("env_steps") if name in log else None
        found.append(None if known is None else float(np.interp(crossed, known["env_steps"], known[name])))
    return Reached(float(crossed), *found, best)


def scatter(crossings: Crossings, level: int) -> tuple[float, int]:
    """Variance of ln D between seeds of one setting, pooled over cells, and its degrees of freedom.

    A seed that does not cross counts as if it did where it ends; a cell in which none is seen to tells nothing.
    """
    squares, freedom = 0.0, 0
    for steps, ends in zip(crossings.seed_steps_, crossings.seed_ends_):
        at = steps[:, level]
        if np.isfinite(at[at > 0]).any():
            logs = np.log(np.where(np.isfinite(at), at, ends)[at > 0])
            squares, freedom = squares + ((logs - logs.mean()) ** 2).sum(), freedom + len(logs) - 1
    return float(squares / max(freedom, 1)), freedom


def proven(crossings: Crossings, level: int) -> list[float]:
    """Ratios at which PROVEN of the pilots have arrived: by a lucky few of them others look faster than they are."""
    return sorted({float(utd) for utd, steps in zip(crossings.cells_["utd"], crossings.seed_steps_)
                   if np.isfinite(steps[:, level]).mean() >= PROVEN})  # fmt: skip


def of_one_run(plan: Plan, spread: tuple[float, int], rng: np.random.Generator) -> np.ndarray:
    """(R,) samples of the steps that one run needs: the law's, and beside it the scatter of a seed.

    spread: from `scatter`; known from so few seeds, it makes a Student t of a normal.
    """
    variance, freedom = spread
    noise = rng.standard_t(max(freedom, 1), len(plan.env_steps)) * np.sqrt(variance)
    noise[0] = 0.0
    return plan.env_steps * np.exp(noise)


def predicted(plan: Plan, steps: np.ndarray) -> dict[str, Any]:
    """Steps, updates and seconds of one run at the plan's ratio, each with its 90 % interval."""
    seconds = plan.seconds / plan.env_steps * steps
    return {
        name: {"value": float(values[0]), "interval": interval(values)}
        for name, values in (("env_steps", steps), ("updates", steps * plan.utd[0]), ("seconds", seconds))
        if np.isfinite(values[0])
    }


def show(report: dict[str, Any]) -> str:
    """The report for a terminal of 80 columns."""
    rows = []
    names = {"env_steps": "env steps", "updates": "critic updates", "seconds": "seconds of training"}
    for name, said in names.items():
        known = report["predicted"].get(name)
        guess = "-" if known is None else amount(known["value"])
        low, high = (None, None) if known is None else known["interval"]
        within = "" if low is None else f"[{amount(low)}, {amount(high)}]"
        columns = [amount(run[name]) if run[name] is not None else "not reached" for run in report["runs"].values()]
        rows.append((said, guess, within, *columns))
    head = ("  to the target", "predicted", "90 % of runs", *report["runs"])
    spent, unit = report["spent"], report["unit"]
    took = ", ".join(f"the {name} {amount(taken)}" for name, taken in spent.items())
    text = f"{unit.capitalize()} taken: {took}; the budget was {amount(report['budget'])}."
    return "\n".join([table(head, [("  " + row[0], *row[1:]) for row in rows]), "", textwrap.fill(text, 80)])
