"""What a sweep will cost: environment steps, critic updates, and time from an assumption or from finished cells."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Sequence

from scaling.errors import InputError, nearest
from scaling.sweep.cell import is_done, last_metrics
from scaling.sweep.plan_file import Cell, Plan

# One cell on one desktop core with small networks. Only the order of magnitude is meant: measured figures replace it.
ASSUMED = {"env_steps_per_s": 5000.0, "updates_per_s": 200.0, "start_s": 6.0, "compile_s": 60.0, "evaluation_s": 1.0}
PACKED = 0.35  # share of a small cell's time that cells side by side don't have in common (README: 16 take a third)
EARLY = 0.1  # share of a running cell's steps from which its clock tells more than an assumption


@dataclass(frozen=True)
class SweepCost:
    """The cells yet to run: how many, their totals, and seconds at a given parallelism; `basis` says whence."""

    cells: int
    env_steps: float
    updates: float | None
    seconds: float
    basis: str


def cell_size(cell: Cell, settings: Mapping[str, Any]) -> dict[str, float | None]:
    """Environment steps and critic updates of one cell, from its overrides, else from the resolved `settings`.

    Updates are `utd * env_steps`, where utd may be given as `critic_updates_per_step / num_envs`.
    """

    def value(key: str) -> float | None:
        found = cell.overrides.get(key)
        found = settings.get(key) if found is None or isinstance(found, str) else found
        return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) else None

    def count(interval: float | None) -> float:
        return steps // interval + 1 if steps and interval else 0.0

    steps = value("max_env_steps")
    per_step = None if "algo.utd" in cell.overrides else value("algo.critic_updates_per_step")
    envs = value("num_envs")
    utd = per_step / envs if per_step is not None and envs else value("algo.utd")
    compiles = cell.overrides.get("compile", settings.get("compile")) is True
    return {"env_steps": steps, "updates": utd * steps if utd is not None and steps is not None else None,
            "evaluations": count(value("eval_interval")), "compilations": float(compiles)}


def estimate(plan: Plan, todo: Sequence[Cell], out: Path, parallel: int,
             known: dict[str, float] | None = None, packs: Mapping[str, int] | None = None) -> SweepCost:
    """Cost of the cells in `todo` with `parallel` processes at a time.

    A cell is assumed to train for `env_steps / env_steps_per_s + updates / updates_per_s` seconds, beside those of its
    start, compilation and evaluations (the sweep file's `assume`, else `ASSUMED`). The median ratio of measured to
    assumed seconds corrects what a run's clock counts, which is neither start nor compilation nor, with `runtime=sync`,
    evaluations: of finished cells, before the first of them of running ones. `known` keeps what finished cells took
    between calls. Running cells count with what is left of them. Of cells that are trained side by side (`packs`: how
    many with each) a cell's time is its share of the pack's, assumed to be what `PACKED` says.
    """
    for key in plan.assume:
        if key not in ASSUMED:
            raise InputError(f"assume.{key} is unknown; {nearest(key, ASSUMED)}")
    rates = {**ASSUMED, **plan.assume}
    sizes = {cell.hash: cell_size(cell, plan.settings) for cell in plan.cells}

    sync = plan.settings.get("runtime") == "sync"  # whose clock stands still during evaluations

    def assumed_s(cell: Cell, of_clock: bool) -> float:
        """Seconds that a run's own clock counts, or those of start and compilation, which none counts."""
        size = {name: number or 0 for name, number in sizes[cell.hash].items()}
        evaluations = size["evaluations"] * rates["evaluation_s"] * (sync != of_clock)
        if of_clock:
            return evaluations + size["env_steps"] / rates["env_steps_per_s"] + size["updates"] / rates["updates_per_s"]
        return evaluations + rates["start_s"] + size["compilations"] * rates["compile_s"]

    known = {} if known is None else known
    left = {cell.hash for cell in todo}
    running: dict[str, float] = {}
    done_share: dict[str, float] = {}
    begun = _begun(out)
    for cell in plan.cells:
        if cell.hash in known or Path(cell.run_dir).name not in begun:
            continue
        latest = last_metrics(out / cell.run_dir, ("wall_time_s", "env_steps"))
        # of cells side by side: what the sweep spends on one of them, whatever it would take alone
        seconds = (latest.get("wall_time_s") or 0) / latest.get("runs_side_by_side", 1)
        steps = sizes[cell.hash]["env_steps"]
        if seconds and is_done(out / cell.run_dir):
            known[cell.hash] = float(seconds)
        elif seconds and steps and cell.hash in left:
            share = min(1.0, float(latest.get("env_steps") or 0) / steps)
            done_share[cell.hash] = share
            if share >= EARLY:
                running[cell.hash] = float(seconds) / share
    measured = known or running
    ratios = [measured[cell.hash] / assumed_s(cell, True) for cell in plan.cells
              if cell.hash in measured and assumed_s(cell, True)]
    if ratios:
        basis = f"measured on {len(ratios)} {'finished' if known else 'running'} cells"
    else:
        basis = (f"assumed: {rates['env_steps_per_s']:,.0f} steps/s, {rates['updates_per_s']:,.0f} updates/s, "
                 f"{rates['start_s']:g} s a start, {rates['evaluation_s']:g} s an evaluation")
    factor, sizes_of = statistics.median(ratios) if ratios else 1.0, packs or {}

    def share(cell: Cell) -> float:
        """Of what the cell would take alone, where nothing was measured."""
        size = sizes_of.get(cell.hash, 1)
        return 1.0 if ratios else PACKED + (1 - PACKED) / size

    times = [
        assumed_s(cell, True) * factor * share(cell) * (1 - done_share.get(cell.hash, 0.0))
        + (0.0 if cell.hash in done_share else assumed_s(cell, False) / sizes_of.get(cell.hash, 1))
        for cell in todo
    ]
    updates = [sizes[cell.hash]["updates"] for cell in todo]
    return SweepCost(
        cells=len(todo),
        env_steps=sum(sizes[cell.hash]["env_steps"] or 0 for cell in todo),
        updates=None if None in updates else sum(updates),
        seconds=max(sum(times) / max(parallel, 1),
                    max((time * sizes_of.get(cell.hash, 1) for cell, time in zip(todo, times)), default=0.0)),
        basis=basis,
    )


def _begun(out: Path) -> set[str]:
    """The run directories there are, in one read."""
    try:
        return set(os.listdir(str(out / "runs")))
    except OSError:
        return set()


def describe(cost: SweepCost, total: int, parallel: int, where: str) -> list[str]:
    """The lines printed before a sweep starts."""
    if not cost.cells:
        return [f"{total} cells planned in {where}: none needs a run"]
    updates = "unknown" if cost.updates is None else count(cost.updates)
    return [
        f"{total} cells planned in {where}: {total - cost.cells} need no run, {cost.cells} to run",
        f"cost: {cost.cells} cells, {count(cost.env_steps)} env steps, {updates} critic updates",
        f"time: about {duration(cost.seconds)} with {parallel} at a time",
        f"      ({cost.basis})",
    ]


def count(number: float) -> str:
    """14400000 -> 14.4 M."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def duration(seconds: float) -> str:
    """4000 -> 1 h 06 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    if seconds < 48 * 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds / 86400:.1f} days"
