"""Launchers: which options they take, and the local one, which runs cells as processes of this machine.

Not submitit's local executor: that one starts everything at once, and its jobs outlive a killed parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence

from scaling.errors import InputError, nearest
from scaling.sweep.cell import EXIT_CODES, HELD, STOPPED, is_done, lock_path, read_record
from scaling.sweep.cores import hand_on_priority, usable_cores
from scaling.sweep.locks import holder
from scaling.sweep.packing import ALONE, Packing
from scaling.sweep.plan_file import CFG, PLAN, Cell, Plan, load_group, load_plan

# kind -> fields: smallest value if it is a number; cfg/launcher/<kind>.yaml says what they mean
FIELDS: dict[str, dict[str, float | None]] = {
    "local": {"workers": 1, "cores_per_cell": 1, "gpus": 0, "cells_per_gpu": 1, "pin": None, "retries": 0,
              "grace_s": 0},
    "slurm": {"partition": None, "time_min": 1, "parallel": 1, "cpus": 1, "gpus": 0, "mem_gb": 0, "qos": None,
              "account": None, "constraint": None, "exclude": None, "signal_delay_s": 1, "timeouts": 0, "retries": 0,
              "grace_s": 0, "setup": None, "wait": None},
}


def load_launcher(name: str, overrides: Mapping[str, Any], folder: Path = CFG) -> dict[str, Any]:
    """Read `cfg/launcher/<name>.yaml` (or a path), apply `launcher.<field>=value` overrides, check every field."""
    options = load_group("launcher", name, folder)
    kind = options.get("kind")
    if kind not in FIELDS:
        raise InputError(f"launcher={name}: kind={kind} is none of {', '.join(FIELDS)}: correct its file")
    base = load_group("launcher", str(kind), CFG)
    options = {**base, **options, **overrides}
    for key, value in options.items():
        if key == "kind":
            continue
        if key not in FIELDS[kind]:
            raise InputError(f"launcher.{key} is unknown to launcher={name}; {nearest(key, FIELDS[kind])}")
        least = FIELDS[kind][key]
        if least is None or value is None or (value == "auto" and base[key] == "auto"):
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
            raise InputError(f"launcher.{key}={value} must be a number of at least {least:g}")
    if kind == "slurm" and options["grace_s"] >= options["signal_delay_s"]:
        raise InputError(f"launcher.grace_s={options['grace_s']} must be less than launcher.signal_delay_s="
                         f"{options['signal_delay_s']}, or a cell is killed before its checkpoint is written")
    if kind == "slurm" and options["time_min"] * 60 <= options["signal_delay_s"]:
        raise InputError(f"launcher.time_min={options['time_min']} must be longer than launcher.signal_delay_s="
                         f"{options['signal_delay_s']} seconds: nothing would be trained")
    return options


@dataclass(frozen=True)
class Slots:
    """How many cells run at a time, the threads each process of a cell may use, each slot's GPU and cores."""

    workers: int
    threads: int
    gpus: tuple[str, ...]
    cores: tuple[tuple[int, ...], ...] = ()


def local_slots(options: Mapping[str, Any], settings: Mapping[str, Any]) -> Slots:
    """Fit the workers to the machine. `settings` is a cell's config: its `runtime` and `device` decide.

    A parallel run is three busy processes, a sync run one. Cells get equal shares of the cores and are kept to them,
    and each process that share over the processes in its cell as OMP_NUM_THREADS: left alone, every process starts as
    many threads as the machine has cores, and they spend their time waiting for each other.
    """
    cores = usable_cores()
    processes = 3 if settings.get("runtime") == "parallel" else 1
    per_cell = processes if options["cores_per_cell"] == "auto" else int(options["cores_per_cell"])
    gpus = _gpus(options["gpus"]) if settings.get("device") != "cpu" else []
    workers = options["workers"]
    if workers == "auto":
        workers = max(1, len(cores) // per_cell)
        if gpus:
            workers = min(workers, len(gpus) * int(options["cells_per_gpu"]))
    workers = int(workers)
    share = len(cores) // workers
    pinned = share > 0 and options["pin"] and hasattr(os, "sched_setaffinity")
    shares = tuple(tuple(cores[i * share : (i + 1) * share]) for i in range(workers)) if pinned else ()
    return Slots(workers, max(1, share // processes), tuple(gpus), shares)


def _gpus(option: Any) -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        found = [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    elif shutil.which("nvidia-smi"):
        listing = subprocess.run(["nvidia-smi", "-L"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
        found = [str(i) for i, line in enumerate(listing.stdout.decode().splitlines()) if line.startswith("GPU ")]
    else:
        found = []
    if option == "auto":
        return found
    if option > len(found):
        raise InputError(f"launcher.gpus={option}, but {len(found)} are here: lower it, or leave it at auto")
    return found[: int(option)]


class Interrupt:
    """Counts requests to stop (Ctrl-C, SIGTERM, a closed terminal) while it is entered."""

    def __init__(self) -> None:
        self.count, self.signal = 0, 0

    @contextlib.contextmanager
    def catch(self) -> Iterator[Interrupt]:
        """Take over the signals for the body."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [signal.signal(number, self._note) for number in numbers]
        try:
            yield self
        finally:
            for number, handler in zip(numbers, before):
                signal.signal(number, handler)

    def _note(self, number: int, _: Any) -> None:
        self.count, self.signal = self.count + 1, number


def run_local(out: Path, plan: Plan, options: Mapping[str, Any], slots: Slots, interrupt: Interrupt,
              tick: Callable[[], None], say: Callable[[str], None], packing: Packing = ALONE) -> None:
    """Run every cell that needs a run, `slots.workers` at a time, until none is left or a stop is asked for.

    A worker has one cell, or as many as `packing` allows of those that fit together. A cell that another sweep is
    running stays on the list: should that sweep die, this one takes the cell over.

    Raises:
        InputError: the plan file was edited meanwhile; the running cells have been stopped with a checkpoint.
    """
    todo, start = list(plan.cells), time.time()
    running: dict[int, tuple[subprocess.Popen, list[Cell]]] = {}  # slot -> worker
    lost: dict[str, int] = {}  # workers that ended without a word, per cell
    refused: dict[str, int] = {}  # workers that found a free cell's lock taken
    guard = PlanGuard(out, plan)
    edited: InputError | None = None
    told, kill_at, look_at = 0, float("inf"), 0.0
    while running or (todo and not told):
        for slot in [slot for slot, (worker, _) in running.items() if worker.poll() is not None]:
            worker, cells = running.pop(slot)
            look_at = 0.0
            for cell in cells:
                if worker.returncode in EXIT_CODES.values():
                    if worker.returncode != EXIT_CODES[HELD] and (
                        len(cells) == 1 or worker.returncode == EXIT_CODES[STOPPED] or _settled(out, cell, start)
                    ):  # of a pack, those whose locks were taken have had no run
                        todo.remove(cell)
                    elif not holder(lock_path(out, cell.hash)):
                        refused[cell.hash] = refused.get(cell.hash, 0) + 1
                        if refused[cell.hash] > 5:
                            say(f"{cell.name}: its lock {lock_path(out, cell.hash)} can be neither taken nor seen held;"
                                " left out: is the file system in order?")
                            todo.remove(cell)
                elif not told:
                    lost[cell.hash] = lost.get(cell.hash, 0) + 1
                    log = out / "cells" / f"{cells[0].hash}.log"
                    say(f"{cell.name}: its worker ended with {worker.returncode}; see {log}")
                    if lost[cell.hash] > options["retries"]:
                        todo.remove(cell)
        if edited is None and not told:
            edited = guard.check()
        if (interrupt.count or edited) and told <= interrupt.count:
            told = interrupt.count + 1
            kill_at = min(kill_at, time.monotonic() + options["grace_s"] + 15)
            say(f"{edited or 'stopping'}: {sum(len(cells) for _, cells in running.values())} cells write a checkpoint"
                + ("" if edited or interrupt.count > 1 else "; once more to kill them"))
            for worker, _ in running.values():
                worker.terminate()
        if time.monotonic() > kill_at:
            for worker, _ in running.values():
                worker.kill()  # its trainer is tied to it
        if not told and time.monotonic() >= look_at and len(running) < slots.workers:
            began = time.monotonic()
            busy = {cell.hash for _, cells in running.values() for cell in cells}
            settled, packs = _choose(out, todo, busy, slots.workers - len(running), packing, start)
            todo = [cell for cell in todo if cell.hash not in settled]
            for cells in packs:
                slot = next(i for i in range(slots.workers) if i not in running)
                running[slot] = (_start(out, cells, options, slots, slot), cells)
            look_at = began + max(1.0, 20 * (time.monotonic() - began))  # the disk has others to serve
        tick()
        time.sleep(0.1)
    if edited:
        raise edited


def _choose(out: Path, todo: Sequence[Cell], busy: set[str], free: int, packing: Packing,
            start: float) -> tuple[set[str], list[list[Cell]]]:
    """Hashes of cells that need no run after all, and up to `free` packs of those that do: full ones first."""
    settled: set[str] = set()
    full: list[list[Cell]] = []
    filling: dict[str, list[Cell]] = {}
    sizes = packing.sizes([cell for cell in todo if cell.hash not in busy])
    for cell in todo:
        if len(full) >= free:
            break
        if cell.hash in busy:
            continue
        if _settled(out, cell, start):
            settled.add(cell.hash)
        elif not holder(lock_path(out, cell.hash)):
            shape = packing.shape(cell)
            filling.setdefault(shape, []).append(cell)
            if len(filling[shape]) >= sizes[shape]:
                full.append(filling.pop(shape))
    return settled, [*full, *filling.values()][:free]


def _settled(out: Path, cell: Cell, since: float) -> bool:
    """Whether a cell needs no run of ours: done, failed for good, or failed just now under another sweep."""
    record = read_record(out, cell.hash)
    last = (record.get("attempts") or [{}])[-1]
    just_now = bool(record.get("reason")) and last.get("end", 0) > since
    return is_done(out / cell.run_dir) or bool(record.get("final")) or just_now


def _start(out: Path, cells: Sequence[Cell], options: Mapping[str, Any], slots: Slots, slot: int) -> subprocess.Popen:
    job = {"out": str(out), "retries": options["retries"], "grace_s": options["grace_s"]}
    job["cell_hashes" if len(cells) > 1 else "cell_hash"] = [c.hash for c in cells] if len(cells) > 1 else cells[0].hash
    module = "scaling.sweep.pack" if len(cells) > 1 else "scaling.sweep.cell"
    environment = {"OMP_NUM_THREADS": str(slots.threads), **os.environ}
    if slots.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = slots.gpus[slot % len(slots.gpus)]
    cores = [str(core) for core in slots.cores[slot]] if slots.cores else []
    log = out / "cells" / f"{cells[0].hash}.log"
    log.parent.mkdir(exist_ok=True)
    with open(log, "ab") as stream:
        worker = subprocess.Popen(  # its own session: Ctrl-C reaches the sweep alone, which forwards it in order
            [sys.executable, "-m", module, str(os.getpid()), json.dumps(job), *cores],
            stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True, env=environment)
    hand_on_priority(worker.pid)
    return worker


class PlanGuard:
    """Notices that the plan file changed under a running sweep; added cells are no harm."""

    def __init__(self, out: Path, plan: Plan):
        self._out, self._plan, self._seen = out, plan, self._stamp(out)

    @staticmethod
    def _stamp(out: Path) -> tuple[int, ...]:
        try:
            stat = (out / PLAN).stat()
        except OSError:
            return ()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def check(self) -> InputError | None:
        """None if this sweep's cells are as they were, else the error to report."""
        stamp = self._stamp(self._out)
        if stamp == self._seen:
            return None
        try:
            now = {cell.hash: cell for cell in load_plan(self._out).cells}
        except InputError as error:
            return error
        if any(now.get(cell.hash) != cell for cell in self._plan.cells):
            return InputError(f"{self._out / PLAN} changed under this sweep: plan again into a new out folder")
        self._seen = stamp
        return None
