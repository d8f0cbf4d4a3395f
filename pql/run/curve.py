"""The mean learning curve of several runs, and how far it is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple, Sequence

import numpy as np
from scipy.special import stdtrit

from pql.run.metrics import read_metrics


class Point(NamedTuple):
    """Of a curve, at one number of env steps; on a fixed dataset, of critic updates."""

    at: int
    mean: float
    low: float  # the ends of the 95 % interval of the mean over runs, Student's t; NaN of one run
    high: float


class Curve(NamedTuple):
    axis: str  # what its points count, as metrics.jsonl calls it
    points: list[Point]


def mean_curve(run_dirs: Sequence[Path]) -> Curve:
    """Evaluations at the env steps at which all of these runs have one, or at the critic updates."""
    told = [[line for line in read_metrics(path / "metrics.jsonl") if "eval_return" in line] for path in run_dirs]
    axis = "critic_updates" if any("passes" in line for lines in told for line in lines) else "env_steps"
    curves = [{line[axis]: line["eval_return"] for line in lines} for lines in told]
    common = sorted(set.intersection(*map(set, curves))) if curves else []
    return Curve(axis, [_point(at, np.array([curve[at] for curve in curves])) for at in common])


def _point(at: int, returns: np.ndarray) -> Point:
    n, mean = len(returns), float(returns.mean())
    half = math.nan if n < 2 else float(stdtrit(n - 1, 0.975) * returns.std(ddof=1) / math.sqrt(n))
    return Point(at, mean, mean - half, mean + half)


def as_csv(curve: Curve) -> str:
    return "".join(",".join(map(str, row)) + "\n" for row in [(curve.axis, *Point._fields[1:]), *curve.points])


def as_text(curve: Curve, rows: int = 12) -> str:
    """For people: at most about so many lines, the last among them."""
    step, what = -(-len(curve.points) // rows), curve.axis.replace("_", " ")
    shown = curve.points[::-1][:: max(1, step)][::-1]
    known = [f"   95 % interval {p.low:.2f} to {p.high:.2f}" if p.low == p.low else "" for p in shown]
    return "\n".join(f"{p.at:>12} {what}: return {p.mean:9.2f}{interval}" for p, interval in zip(shown, known))
