"""The mean learning curve of several runs, and how far it is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple, Sequence

import numpy as np
from scipy.special import stdtrit

from pql.run.metrics import read_metrics


class Point(NamedTuple):
    """Of a curve, at one number of env steps."""

    env_steps: int
    mean: float
    low: float  # the ends of the 95 % interval of the mean over runs, Student's t; NaN of one run
    high: float


def mean_curve(run_dirs: Sequence[Path]) -> list[Point]:
    """Evaluations at the env steps at which all of these runs have one."""
    curves = []
    for run_dir in run_dirs:
        lines = read_metrics(run_dir / "metrics.jsonl")
        curves.append({line["env_steps"]: line["eval_return"] for line in lines if "eval_return" in line})
    common = sorted(set.intersection(*map(set, curves))) if curves else []
    return [_point(steps, np.array([curve[steps] for curve in curves])) for steps in common]


def _point(env_steps: int, returns: np.ndarray) -> Point:
    n, mean = len(returns), float(returns.mean())
    half = math.nan if n < 2 else float(stdtrit(n - 1, 0.975) * returns.std(ddof=1) / math.sqrt(n))
    return Point(env_steps, mean, mean - half, mean + half)


def as_csv(curve: Sequence[Point]) -> str:
    return "".join(",".join(map(str, row)) + "\n" for row in [Point._fields, *curve])


def as_text(curve: Sequence[Point], rows: int = 12) -> str:
    """For people: at most about so many lines, the last among them."""
    step = -(-len(curve) // rows)
    shown = curve[::-1][:: max(1, step)][::-1]
    return "\n".join(
        f"{p.env_steps:>12} env steps: return {p.mean:9.2f}   95 % interval {p.low:.2f} to {p.high:.2f}" for p in shown
    )
