"""Which pilots to run next: decisions from what was run, what it cost and what the laws say."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Mapping, Sequence

import numpy as np

from scaling.autopilot.options import FIRST_RATIOS, Options
from scaling.errors import InputError
from scaling.laws.uncertainty import interval
from scaling.report.plan import Plan, Planner, next_runs, scale_of
from scaling.sweep.cell import last_metrics
from scaling.sweep.plan_file import Cell, load_group, load_plan, make_request, write_json

MARGIN = 1.3  # of the steps that the laws ask for, at least: a run must be seen to cross
SEEN = 1.28  # sd of ln D beyond them: nine runs of ten are
LONGER = 2.0  # times the steps of runs that did not get there
LENGTHS = 0.5  # pilots' lengths fall with the ratio to this power
LEAST_RATIOS = 3  # that must reach the target before there is a law
UTD, STEPS, SEED = "algo.utd", "max_env_steps", "seed"


@dataclass
class Round:
    """Pilots to run: a sweep file's axes, what its runs have in common, and why."""

    axes: dict[str, list[Any]]
    fixed: dict[str, Any]
    why: str
    assume: dict[str, float] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """As a sweep file, which scripts/sweep.py takes as well."""
        write_json(path, {"axes": self.axes, "fixed": self.fixed, "assume": self.assume})  # JSON is YAML

    def __len__(self) -> int:
        return math.prod(map(len, self.axes.values()))

    def cost(self, unit: str) -> float | None:
        """What it takes at most, `steps` or `seconds`; None where its runs do not say how long they are."""
        key = STEPS if unit == "steps" else "max_time"
        for keys, values in self.axes.items():
            names = keys.split(",")
            if key in names:
                each = [value[names.index(key)] if isinstance(value, (list, tuple)) else value for value in values]
                return sum(map(float, each)) / len(each) * len(self)
        return float(self.fixed[key]) * len(self) if self.fixed.get(key) is not None else None


def pilots(points: Sequence[Mapping[str, Any]], seeds: Sequence[int], fixed: Mapping[str, Any], why: str) -> Round:
    """A round of these points, each with each seed."""
    keys = list(points[0])
    values = [[point[key] for key in keys] for point in points]
    return Round({",".join(keys): values, SEED: list(seeds)}, dict(fixed), why)


def first_round(options: Options, training: Sequence[str], defaults: Mapping[str, Any]) -> Round:
    """Pilots at several ratios for half of the pilots' share; or those of a sweep file.

    Steps are shared out by ratio^-LENGTHS, as low ratios need more of them; seconds equally, which come to the same.

    Args:
        training: `key=value` words of all runs.
        defaults: the training settings, resolved (`algo.utd`, `max_env_steps`, ...).
    """
    if options.sweep is not None:
        request = make_request(load_group("sweep", options.sweep), training, f"sweep file {options.sweep}")
        axes = {",".join(keys): values for keys, values in request.axes.items()}
        if not any(SEED in keys for keys in request.axes) or UTD not in ",".join(axes):
            raise InputError(f"sweep={options.sweep}: an autopilot needs its axes {UTD} and {SEED}")
        first = Round(axes, dict(request.fixed), f"as sweep={options.sweep} says", request.assume)
        limit = options.share * options.amount
        if options.unit == "seconds" and first.cost("seconds") is None:
            first.fixed["max_time"] = limit / len(first)
        cost = first.cost(options.unit)
        if cost is not None and cost > limit * (1 + 1e-9):
            raise InputError(f"sweep={options.sweep}: its {len(first)} runs may take {cost:.4g} {options.unit},"
                             f" more than the pilots' {limit:.4g}: raise budget= or share=, or shrink it")  # fmt: skip
        return first
    ratios = options.utd or [factor * float(defaults[UTD]) for factor in FIRST_RATIOS]
    each = options.share * options.amount / 2 / (len(ratios) * options.seeds)
    steps = int(each) if options.unit == "steps" else int(defaults[STEPS])
    if steps < 1:
        raise InputError(f"budget={options.budget}: too small for pilots at {len(ratios)} ratios with {options.seeds}"
                         " seeds each, not a step is left for one: raise it")  # fmt: skip
    common = make_request({}, [*training, f"{STEPS}={steps}"]).fixed
    limit = {"eval_interval": max(1, steps // 25)} if options.unit == "steps" else {"max_time": each}
    del common[STEPS]
    each = lengths(ratios, steps) if options.unit == "steps" else np.full(len(ratios), steps)
    points = [{UTD: ratio, STEPS: max(1, int(length))} for ratio, length in zip(ratios, each)]
    why = f"{len(ratios)} ratios around the settings' own, {options.seeds} seeds each"
    return pilots(points, range(options.seed, options.seed + options.seeds), {"video": False, **limit, **common}, why)


def lengths(ratios: Sequence[float], mean: float, power: float = LENGTHS) -> np.ndarray:
    """Steps of the pilots at each ratio, `mean` of them on average."""
    weights = np.asarray(ratios, dtype=float) ** -power
    return mean * weights / weights.mean()


def varied(cells: Sequence[Cell]) -> list[str]:
    """The keys, beside seed and steps, in which pilots differ: the ratio, and what a sweep file gave to vary."""
    keys = dict.fromkeys(key for cell in cells for key in cell.overrides)
    return [key for key in keys if key not in (SEED, STEPS, "max_time")
            and len({str(cell.overrides.get(key)) for cell in cells}) > 1]  # fmt: skip


def common_to(cells: Sequence[Cell]) -> dict[str, Any]:
    """What all pilots have in common, for more of them: how long they take is each round's own."""
    differ = {SEED, STEPS, "max_time", *varied(cells)}
    return {key: value for key, value in cells[0].overrides.items() if key not in differ}


def longer(
    cells: Sequence[Cell], pilot: Path, reached: set[float], options: Options, affordable: float
) -> Round | None:
    """New seeds, for LONGER times the steps, at ratios that have not reached the target; None where that is too dear.

    The cheapest come first: they are dropped from the dear end until the round is affordable.
    """
    keys = varied(cells)
    ran: dict[tuple, tuple[float, float]] = {}  # settings -> steps and cost of their longest run
    for cell in cells:
        if not any(np.isclose(float(cell.overrides[UTD]), known) for known in reached):
            settings = tuple(cell.overrides[key] for key in keys)
            steps, cost = (used(pilot / cell.run_dir, unit) for unit in ("steps", options.unit))
            ran[settings] = max(ran.get(settings, (0.0, 0.0)), (steps, cost))
    points, left = [], affordable
    for settings, (steps, cost) in sorted(ran.items(), key=lambda item: item[1][1]):
        left -= LONGER * cost * options.seeds
        if left < 0 or steps == 0:
            break
        points.append({**dict(zip(keys, settings)), STEPS: int(LONGER * steps)})
    if not points:
        return None
    why = f"{len({settings[keys.index(UTD)] for settings in ran})} ratios have not reached the target: longer runs"
    return pilots(points, _fresh(cells, options.seeds), common_to(cells), why)


def narrowing(plan: Plan, planner: Planner, cells: Sequence[Cell], options: Options, affordable: float,
              scatter: float = 0.0) -> Round | None:  # fmt: skip
    """The runs that narrow the steps' interval most per cost, as many as are affordable; None where none is.

    scatter: sd of ln D between seeds.
    """
    settings, keys = planner.laws.json["settings"], varied(cells)
    rates = {"algo.critic_lr", *settings.get("learning_rate_keys", [])}
    points, left = [], affordable
    target, in_steps = plan.target / scale_of(planner.laws, plan.task), options.unit == "steps"
    for run in next_runs(planner, plan, target, options.seeds, in_steps=in_steps):
        steps = max(MARGIN, math.exp(SEEN * scatter)) * run["env_steps"]
        seconds = steps * float(planner.cost.seconds(np.array([run["utd"]]), np.array([run["batch_size"]]))[0])
        cost = options.seeds * (steps if options.unit == "steps" else seconds)
        if cost > left:
            continue
        left -= cost
        values = {UTD: float(f"{run['utd']:.4g}"), "algo.batch_size": round(run["batch_size"]),
                  **dict.fromkeys(rates, float(f"{run['learning_rate']:.3g}"))}  # fmt: skip
        points.append({**{key: values[key] for key in keys}, STEPS: int(steps)})
    if not points:
        return None
    low, high = interval(plan.env_steps)
    why = f"the steps' interval spans a factor of {high / low:.2f}: runs that narrow it most per cost"
    return pilots(points, _fresh(cells, options.seeds), common_to(cells), why)


def _fresh(cells: Sequence[Cell], count: int) -> list[int]:
    """Seeds that no pilot had."""
    start = 1 + max(int(cell.overrides[SEED]) for cell in cells)
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

