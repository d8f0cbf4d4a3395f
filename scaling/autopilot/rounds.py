"""Which pilots to run next: decisions from what was run, what it cost and what the laws say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Sequence

import numpy as np

from scaling.autopilot.options import FIRST_RATIOS, Options
from scaling.laws.uncertainty import interval
from scaling.report.plan import Plan, Planner
from scaling.sweep.cell import last_metrics
from scaling.sweep.plan_file import Cell, load_plan, write_json

MARGIN = 1.3  # of the steps that the laws ask for: a run must be seen to cross
LONGER = 2.0  # times the steps of runs that did not get there
LEAST_RATIOS = 3  # that must reach the target before there is a law
UTD, STEPS = "algo.utd", "max_env_steps"


@dataclass
class Round:
    """Pilots to run: one point per configuration, `seeds` of each, what they have in common, and why."""

    points: list[dict[str, Any]]
    seeds: list[int]
    why: str

    def write(self, path: Path, fixed: Mapping[str, Any]) -> None:
        """As a sweep file, which scripts/sweep.py takes as well."""
        keys = list(self.points[0])
        axes = {",".join(keys): [[point[key] for key in keys] for point in self.points], "seed": self.seeds}
        write_json(path, {"axes": axes, "fixed": dict(fixed)})  # JSON is YAML


def first_round(options: Options, defaults: Mapping[str, Any]) -> tuple[Round, dict[str, Any]]:
    """Pilots at several ratios for half of the pilots' share, equally much each; and what all pilots have in common.

    defaults: the training settings, resolved (`algo.utd`, `max_env_steps`, ...).
    """
    ratios = options.utd or [factor * float(defaults[UTD]) for factor in FIRST_RATIOS]
    seeds = list(range(options.seeds))
    each = options.share * options.amount / 2 / (len(ratios) * len(seeds))
    fixed: dict[str, Any] = {"video": False}
    if options.unit == "steps":
        steps = int(each)
        fixed["eval_interval"] = max(1, steps // 25)
    else:
        steps = int(defaults[STEPS])
        fixed["max_time"] = each
    points = [{UTD: ratio, STEPS: steps} for ratio in ratios]
    return Round(points, seeds, f"{len(ratios)} ratios around the settings' own, {options.seeds} seeds each"), fixed


def longer(
    cells: Sequence[Cell], pilot: Path, reached: set[float], options: Options, affordable: float
) -> Round | None:
    """New seeds, for LONGER times the steps, at ratios that have not reached the target; None where that is too dear.

    The cheapest come first: they are dropped from the dear end until the round is affordable.
    """
    ran: dict[float, tuple[float, float]] = {}  # ratio -> steps and cost of its longest run
    for cell in cells:
        ratio = float(cell.overrides[UTD])
        if not any(np.isclose(ratio, known) for known in reached):
            steps, cost = (used(pilot / cell.run_dir, unit) for unit in ("steps", options.unit))
            ran[ratio] = max(ran.get(ratio, (0.0, 0.0)), (steps, cost))
    points, left = [], affordable
    for ratio, (steps, cost) in sorted(ran.items(), key=lambda item: item[1][1]):
        left -= LONGER * cost * options.seeds
        if left < 0 or steps == 0:
            break
        points.append({UTD: ratio, STEPS: int(LONGER * steps)})
    if not points:
        return None
    return Round(points, _fresh(cells, options.seeds), f"{len(ran)} ratios have not reached the target: longer runs")


def narrowing(plan: Plan, planner: Planner, cells: Sequence[Cell], options: Options, affordable: float) -> Round | None:
    """The runs that narrow the steps' interval most per cost, as many as are affordable; None where none is."""
    keys = ["algo.batch_size", "algo.critic_lr", *planner.laws.json["settings"].get("learning_rate_keys", [])]
    swept = [key for key in keys if len({str(cell.overrides.get(key)) for cell in cells}) > 1]
    points, left = [], affordable
    for run in plan.next_runs:
        steps = MARGIN * run["env_steps"]
        seconds = steps * float(planner.cost.seconds(np.array([run["utd"]]), np.array([run["batch_size"]]))[0])
        left -= options.seeds * (steps if options.unit == "steps" else seconds)
        if left < 0:
            break
        point = {UTD: float(f"{run['utd']:.4g}"), STEPS: int(steps)}
        for key in swept:
            point[key] = round(run["batch_size"]) if key == "algo.batch_size" else float(f"{run['learning_rate']:.3g}")
        points.append(point)
    if not points:
        return None
    low, high = interval(plan.env_steps)
    why = f"the steps' interval spans a factor of {high / low:.2f}: runs that narrow it most per cost"
    return Round(points, _fresh(cells, options.seeds), why)


def _fresh(cells: Sequence[Cell], count: int) -> list[int]:
    """Seeds that no pilot had."""
    start = 1 + max(int(cell.overrides["seed"]) for cell in cells)
    return list(range(start, start + count))


def used(run_dir: Path, unit: str) -> float:
    """What a run has taken: `steps` or `seconds` of training."""
    last = last_metrics(run_dir)
    return float(last.get("env_steps" if unit == "steps" else "wall_time_s") or 0.0)


def spent(sweep: Path, unit: str) -> float:
    """What all runs of a sweep have taken."""
    return sum(used(sweep / cell.run_dir, unit) for cell in load_plan(sweep).cells)


def width(plan: Plan) -> float:
    """Factor that the 90 % interval of the steps spans."""
    low, high = interval(plan.env_steps)
    return float("inf") if low is None or low <= 0 else float(high / low)

