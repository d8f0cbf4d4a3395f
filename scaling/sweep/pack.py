"""Run several cells of a sweep side by side in one trainer: each has its lock, its record and its run directory."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Sequence

from scaling.sweep.cell import (
    BAD_INPUT,
    DONE,
    FAILED,
    HELD,
    TRAINER,
    CellJob,
    Record,
    is_done,
    lock_path,
    main,
    read_json,
)
from scaling.sweep.locks import BEAT_S, STALE_S, CellLock
from scaling.sweep.plan_file import Cell, load_plan, write_json


class PackJob(CellJob):
    """`CellJob` of several cells, which the trainer can train side by side."""

    def __init__(self, out: str, cell_hashes: Sequence[str], retries: int = 2, grace_s: float = 60.0,
                 batch: bool = False, limit_s: float = float("inf")):
        super().__init__(out, cell_hashes[0], retries, grace_s, batch, limit_s)
        self.cell_hashes = list(cell_hashes)

    def __call__(self) -> str:
        """Run the cells whose locks are free to their ends; done where they all are."""
        self._take_signals()
        self._requeue_at = time.monotonic() + self.limit_s
        plan = load_plan(self.out)
        lock = Locks([lock_path(self.out, cell_hash) for cell_hash in self.cell_hashes])
        free = lock.acquire(STALE_S + BEAT_S if self.batch else 2.0)  # as a cell's
        cells = [plan.cell(cell_hash) for cell_hash, mine in zip(self.cell_hashes, free) if mine]
        try:
            return self._run_pack(cells, lock) if cells else HELD
        finally:
            self._end_child(lock)
            lock.release()

    def _run_pack(self, cells: Sequence[Cell], lock: Locks) -> str:
        records = [Record(self.out, cell) for cell in cells]
        folder = self.out / "cells" / f"pack-{cells[0].hash}"
        folder.mkdir(exist_ok=True)
        for _ in range(self.retries + 1):
            todo = [record for record in records if not (is_done(record.run_dir) or record.final)]
            if self._stops or not todo:
                break
            for record in todo:
                record.begin()
            write_json(folder / "pack.json", {"runs": [record.cell.command_line(self.out) for record in todo]})
            try:
                code, reason = self._train([sys.executable, str(TRAINER), f"pack={folder / 'pack.json'}"], folder, lock)
            except BaseException:
                for record in todo:
                    self._end(record, None)
                raise
            for record in todo:
                self._end(record, code, own_reason(record.run_dir) or reason)
            if self._overruled:
                return HELD
            if code == BAD_INPUT and not self._stops:  # which of them it is comes out one by one
                for record in todo:
                    self._run(record.cell, [], lock)
                break
        if self._stops:
            return self._hold()
        return DONE if all(is_done(record.run_dir) for record in records) else FAILED


def own_reason(run_dir: Path) -> str:
    """Why a run says that it failed; '' where it does not."""
    summary = read_json(run_dir / "summary.json")
    return str(summary.get("reason", "")) if summary.get("status") == "failed" else ""


class Locks:
    """The right to run several cells, as far as it is to be had."""

    def __init__(self, paths: Sequence[Path]):
        self.locks = [CellLock(path) for path in paths]

    def acquire(self, patience_s: float) -> list[bool]:
        """Which of them are ours now, or within `patience_s`."""
        limit = time.monotonic() + patience_s
        got = [lock.acquire(max(0.0, limit - time.monotonic())) for lock in self.locks]
        self.locks = [lock for lock, mine in zip(self.locks, got) if mine]
        return got

    @property
    def fds(self) -> tuple[int, ...]:
        return tuple(lock.fd for lock in self.locks)

    def beat(self) -> bool:
        """Renew all; False if any of them was taken over."""
        beats = [lock.beat() for lock in self.locks]
        return all(beats)

    def release(self) -> None:
        for lock in self.locks:
            lock.release()


def start(argv: list[str]) -> Any:
    """`python -m scaling.sweep.pack <parent pid> <PackJob arguments as JSON> [core ...]`: a local worker."""
    return main(argv, PackJob)


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
