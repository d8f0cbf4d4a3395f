"""Where a sweep stands: every cell done, running, queued, failed or missing, read from the disk and SLURM's queue."""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from scaling.sweep.cell import is_done, last_metrics, lock_path, read_record
from scaling.sweep.cost import count, duration
from scaling.sweep.locks import BEAT_S, holder
from scaling.sweep.plan_file import Cell, Plan

STATES = ("done", "running", "queued", "failed", "missing")
URGENCY = ("failed", "running", "queued", "missing", "done")
ROWS = 200
COLOURS = {"done": "green", "running": "cyan", "queued": "blue", "failed": "red", "missing": "yellow"}


@dataclass(frozen=True)
class CellStatus:
    """One cell's state (of `STATES`), the env steps logged or to go on from, and where it runs or why it failed."""

    cell: Cell
    state: str
    env_steps: int
    detail: str
    final: bool = False


def survey(out: Path, plan: Plan, queue: Mapping[str, str] | None = None,
           known_done: dict[str, CellStatus] | None = None) -> list[CellStatus]:
    """Look at every cell. `queue` maps hashes to SLURM states; `known_done` remembers finished cells between calls."""
    known_done = {} if known_done is None else known_done
    result = []
    begun = _names(out / "runs") | {Path(name).stem for name in _names(out / "cells")}
    for cell in plan.cells:
        waits = (queue or {}).get(cell.hash)
        status = known_done.get(cell.hash)
        if status is None and cell.hash not in begun and Path(cell.run_dir).name not in begun:
            status = CellStatus(cell, "queued" if waits else "missing", 0,
                                f"SLURM: {waits.lower()}" if waits else "not started")
        status = status or _look(out, cell, waits)
        if status.state == "done":
            known_done[cell.hash] = status
        result.append(status)
    return result


def _names(folder: Path) -> set[str]:
    """What a folder holds: one read instead of several for each of thousands of cells that have not begun."""
    try:
        return set(os.listdir(str(folder)))
    except OSError:
        return set()


def _look(out: Path, cell: Cell, queued: str | None) -> CellStatus:
    run_dir = out / cell.run_dir
    metrics = last_metrics(run_dir, ("env_steps", "eval_return"))
    steps = int(metrics.get("env_steps") or 0)
    if is_done(run_dir):
        score = metrics.get("eval_return")
        return CellStatus(cell, "done", steps, f"return {score:.4g}" if isinstance(score, (int, float)) else "")
    owner = holder(lock_path(out, cell.hash))
    if owner:
        silent = owner["age_s"]
        late = f", silent for {duration(silent)}: is it alive?" if silent > 6 * BEAT_S else ""
        return CellStatus(cell, "running", steps, f"pid {owner.get('pid')} on {owner.get('host')}{late}")
    if queued:
        return CellStatus(cell, "queued", steps, f"SLURM: {queued.lower()}")
    record = read_record(out, cell.hash)
    attempts = record.get("attempts") or [{}]
    if record.get("reason"):
        tries = "never retried" if record.get("final") else f"{len(attempts)} attempts"
        return CellStatus(cell, "failed", steps, f"{record['reason']}; {tries}", bool(record.get("final")))
    if not attempts[-1]:
        return CellStatus(cell, "missing", steps, "not started")
    outcome, saved = attempts[-1].get("outcome", "killed"), _saved(run_dir, steps)
    if saved is not None:
        return CellStatus(cell, "missing", saved, f"{outcome}; goes on from its checkpoint")
    killed = outcome == "stopped" and (attempts[-1].get("exit_code") or 0) < 0
    why = " that took longer than launcher.grace_s" if killed else ""
    return CellStatus(cell, "missing", 0, f"{outcome}; begins anew, for want of a checkpoint{why}")


def _saved(run_dir: Path, logged: int) -> int | None:
    """Env steps of a run's newest checkpoint, those logged where its trainer names it otherwise; None: it has none."""
    names = [name for name in _names(run_dir / "checkpoints") if not name.startswith(".")]  # those are not finished
    return max((int(name) for name in names if name.isdigit()), default=logged) if names else None


def tally(statuses: Sequence[CellStatus]) -> str:
    """`3 done, 1 running, 2 missing`: the states that occur, in order."""
    counts = Counter(status.state for status in statuses)
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]) or "no cells"


def table(statuses: Sequence[CellStatus]) -> Table:
    """One row per cell, sorted by state; fits 80 columns, long reasons wrap. Of more than ROWS cells those that need a
    look: failed, running, queued, missing, then done."""
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column("state", no_wrap=True)
    grid.add_column("cell", overflow="fold", ratio=2)
    grid.add_column("env steps", justify="right", no_wrap=True)
    grid.add_column("remark", overflow="fold", ratio=3)
    shown = sorted(statuses, key=lambda s: STATES.index(s.state))
    if len(shown) > ROWS:
        shown = sorted(statuses, key=lambda s: URGENCY.index(s.state))[:ROWS]
    for status in shown:
        state = Text(status.state, style=COLOURS[status.state])
        grid.add_row(state, Text(status.cell.name), count(status.env_steps), Text(status.detail))
    return grid


class Progress:
    """Shows a running sweep: a live panel on a terminal; in a file one line for each change and every half minute."""

    def __init__(self, console: Console, totals: Mapping[str, float | None]):
        self._console, self._totals = console, totals
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._start = self._look = time.monotonic()
        self._due, self._printed, self._last = 0.0, 0.0, ""

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live:
            self._live.stop()

    def due(self) -> bool:
        """Whether it is time for a look, which reads the disk: after a second, and twenty times what a look takes."""
        if time.monotonic() < self._due:
            return False
        self._look = time.monotonic()
        return True

    def show(self, statuses: Sequence[CellStatus], left_s: float | None = None) -> None:
        """Draw the present state; `left_s` is the estimated time to the end."""
        line, now = tally(statuses), time.monotonic()
        self._due = now + max(1.0, 20 * (now - self._look))
        left = "" if left_s is None else f", about {duration(left_s)} left"
        timing = f"{duration(time.monotonic() - self._start)}{left}"
        if self._live:
            running = [s for s in statuses if s.state == "running"][: max(3, self._console.height - 4)]
            self._live.update(Group(Text(f"{line} | {timing}"), *(self._bar(s) for s in running)), refresh=True)
        elif line != self._last or time.monotonic() - self._printed >= 30:
            self._console.print(f"{line} | {timing}", highlight=False)
            self._last, self._printed = line, time.monotonic()

    def _bar(self, status: CellStatus) -> Text:
        total = self._totals.get(status.cell.hash)
        part = min(status.env_steps / total, 1.0) if total else 0.0
        filled = int(part * 20)
        name = status.cell.name if len(status.cell.name) <= 40 else status.cell.name[:39] + "…"
        return Text(f"  {name:<40} {'━' * filled}{'·' * (20 - filled)} {part:4.0%} {count(status.env_steps):>8}")
