"""Run one cell of a sweep: lock it, train it, decode how it ended, retry a crash, forward a stop.

The same code runs under the local launcher (`python -m scaling.sweep.cell`, one process per running cell) and inside a
batch job (`CellJob`, the callable given to submitit).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Sequence

from scaling.errors import InputError
from scaling.sweep.cores import hand_on_priority
from scaling.sweep.locks import BEAT_S, HOST, STALE_S, CellLock
from scaling.sweep.plan_file import Cell, load_plan, write_json

TRAINER = Path(__file__).resolve().parents[2] / "scripts" / "train.py"
DONE, HELD, STOPPED, FAILED = "done", "held", "stopped", "failed"
# of `python -m scaling.sweep.cell`; 2 is bad input as everywhere
EXIT_CODES = {DONE: 0, HELD: 3, STOPPED: 4, FAILED: 5}
BAD_INPUT = 2  # the trainer's exit code for a configuration that can never run
PREEMPTION_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform.startswith("linux") else None


class CellJob:
    """One cell as a callable; submitit pickles it, calls it, and calls `checkpoint` on preemption or time-out.

    Args:
        out: the sweep's folder, which holds the plan.
        cell_hash: which cell of the plan.
        retries: how often a crashed trainer is started again from its last checkpoint.
        grace_s: seconds a trainer has to checkpoint and exit once asked to stop; then it is killed.
        batch: inside a SLURM job; see `_hold`.
        limit_s: requeue the batch job after this many seconds. SLURM's own warning cannot be relied on: version 22.05
            sends it to a job's first start alone, not to a requeued one.
    """

    def __init__(self, out: str, cell_hash: str, retries: int = 2, grace_s: float = 60.0, batch: bool = False,
                 limit_s: float = float("inf")):
        self.out, self.cell_hash = Path(out).resolve(), cell_hash
        self.retries, self.grace_s, self.batch, self.limit_s = retries, grace_s, batch, limit_s
        self._reset()

    def _reset(self) -> None:
        self._child: subprocess.Popen | None = None
        self._stops = 0
        self._kill_at = float("inf")
        self._requeue_at = float("inf")
        self._overruled = False

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if not key.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._reset()

    def __call__(self) -> str:
        """Run the cell to its end and say which: done, held (by another sweep), stopped, failed."""
        self._take_signals()
        self._requeue_at = time.monotonic() + self.limit_s
        plan = load_plan(self.out)
        lock = CellLock(lock_path(self.out, self.cell_hash))
        # A batch job may follow a dead node's: it waits until that lock is stale. A local worker takes another cell.
        if not lock.acquire(STALE_S + BEAT_S if self.batch else 2.0):
            return HELD
        try:
            return self._run(plan.cell(self.cell_hash), plan.trainer, lock)
        finally:
            self._end_child(lock)
            lock.release()

    def _take_signals(self) -> None:
        for number in PREEMPTION_SIGNALS[: 3 if self.batch else 4]:  # submitit keeps its own handler for SIGUSR2
            signal.signal(number, self.stop)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # an inherited "ignore" would reap the trainer unseen

    def checkpoint(self) -> Any:
        """Stop the trainer with a checkpoint and hand submitit the same call, to be requeued."""
        from submitit.helpers import DelayedSubmission

        self.stop()
        self._await_child(lambda: True)
        return DelayedSubmission(self)

    def stop(self, *_: Any) -> None:
        """Ask the trainer to checkpoint and exit; asked twice, kill it. A signal handler."""
        self._stops += 1
        if self._stops == 1:
            self._kill_at = time.monotonic() + self.grace_s
            self._signal_child(signal.SIGTERM)
        elif not self.batch:  # batch systems repeat themselves; a user who repeats means it
            self._kill_at = 0.0

    def _run(self, cell: Cell, trainer: list[str], lock: CellLock) -> str:
        record = Record(self.out, cell)
        if is_done(record.run_dir):
            return DONE
        if record.final:
            return FAILED
        command = [*(trainer or [sys.executable, str(TRAINER)]), *cell.command_line(self.out)]
        for _ in range(self.retries + 1):
            if self._stops:
                return self._hold()
            record.begin()
            try:
                code, reason = self._train(command, record.run_dir, lock)
            except BaseException:  # submitit leaves from its signal handler, after `checkpoint` stopped the trainer
                self._end(record, None)
                raise
            outcome = self._end(record, code, reason, code == BAD_INPUT)
            if outcome == DONE or (outcome == FAILED and code == BAD_INPUT):
                return outcome
            if self._overruled:
                return HELD
        return self._hold() if self._stops else FAILED

    def _end(self, record: Record, code: int | None, reason: str = "", final: bool = False) -> str:
        """Write how an attempt ended, unless another node has taken the cell over."""
        return record.end(code, reason, final, bool(self._stops), not self._overruled)

    def _train(self, command: list[str], logs: Path, lock: Any) -> Any:
        """Run the trainer once; return its exit code and, for a failure, the reason in words."""
        with open(logs / "stdout.log", "ab") as stdout, open(logs / "stderr.log", "ab") as stderr:
            start = stderr.tell()
            parent = os.getpid()
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, pass_fds=lock.fds,
                start_new_session=True, preexec_fn=lambda: _tie_to(parent))
            self._child = child
            hand_on_priority(child.pid)
            if self._stops:  # asked between fork and here
                self._signal_child(signal.SIGTERM)
            self._await_child(lock.beat)
            self._child = None
            code = child.wait()
        with open(logs / "stderr.log", "rb") as log:
            log.seek(start)
            return code, describe_exit(code, log.read().decode(errors="replace"))

    def _await_child(self, beat: Callable[[], bool]) -> None:
        """Wait until the trainer has exited, unreaped, and its process group is empty.

        Neither this nor `_signal_child` takes a lock of `Popen`'s: a signal handler calls them too.
        """
        last_beat = time.monotonic()
        while self._child and os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            now = time.monotonic()
            if now - last_beat > BEAT_S:
                last_beat = now
                if not beat():  # another node has taken the cell over
                    self._overruled = True
                    self._kill_at = 0.0
            if now > self._requeue_at:
                self._requeue_at = float("inf")
                os.kill(os.getpid(), signal.SIGUSR2)  # submitit's handler: `checkpoint`, requeue, exit
            if now > self._kill_at:
                self._signal_child(signal.SIGKILL, group=True)
            time.sleep(0.1)
        self._signal_child(signal.SIGKILL, group=True)  # whatever the trainer left behind

    def _signal_child(self, number: int, group: bool = False) -> None:
        if self._child and self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                (os.killpg if group else os.kill)(self._child.pid, number)

    def _end_child(self, lock: Any) -> None:
        """Leave no trainer behind, however the run was left (submitit exits from inside its signal handler)."""
        if self._child:
            self.stop()
            self._await_child(lock.beat)

    def _hold(self) -> str:
        """After a stop. In a batch job SIGTERM means preemption, which asks for a requeue, or that the job is
        cancelled or out of time; then the kill that follows within SLURM's KillWait is its proper end."""
        limit = time.monotonic() + STALE_S
        while self.batch and time.monotonic() < limit:
            if _preempted():
                os.kill(os.getpid(), signal.SIGUSR2)
            time.sleep(1.0)
        return STOPPED


def _preempted() -> bool:
    """Whether SLURM has chosen this job for preemption."""
    try:
        shown = subprocess.run(["scontrol", "show", "job", os.environ.get("SLURM_JOB_ID", "")], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, timeout=20).stdout.decode(errors="replace")
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "JobState=RUNNING" in shown and "PreemptTime=" in shown and "PreemptTime=None" not in shown


def _tie_to(parent: int) -> None:
    """In the trainer, before it executes: SIGTERM when `parent` dies; deaf to SIGUSR2, which SLURM sends to every
    process of a job and would kill those that do not expect it. The job forwards a stop as SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    die_with(parent)


def die_with(parent: int) -> None:
    """Have the kernel send this process SIGTERM when its parent dies, however that happens."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(128 + signal.SIGTERM)


# ---- what a run directory and a cell's record say


def lock_path(out: Path, cell_hash: str) -> Path:
    """The cell's lock file."""
    return out / "cells" / f"{cell_hash}.lock"


def record_path(out: Path, cell_hash: str) -> Path:
    """The cell's record: its attempts, and the reason if it failed. Only the lock's holder writes it."""
    return out / "cells" / f"{cell_hash}.json"


def read_record(out: Path, cell_hash: str) -> dict[str, Any]:
    """The cell's record, {} before its first attempt."""
    return read_json(record_path(out, cell_hash))


class Record:
    """A cell's record while its lock is held: what is attempted, and how that ends."""

    def __init__(self, out: Path, cell: Cell):
        self.cell, self.run_dir, self.path = cell, out / cell.run_dir, record_path(out, cell.hash)
        content = read_record(out, cell.hash)
        self.final = bool(content.get("final"))
        self.attempts: list[dict[str, Any]] = content.get("attempts", [])
        if self.attempts and "outcome" not in self.attempts[-1]:  # its runner was killed before it could write this
            self.attempts[-1].update(outcome="killed", to_env_steps=env_steps(self.run_dir))

    def begin(self) -> None:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.attempts.append({"start": time.time(), "host": HOST, "job": os.environ.get("SLURM_JOB_ID"),
                              "from_env_steps": env_steps(self.run_dir)})
        self._save()

    def end(self, code: int | None, reason: str, final: bool, stopped: bool, save: bool) -> str:
        """Which of done, stopped, failed it is; `final`: a failure that no other attempt can mend."""
        outcome = DONE if is_done(self.run_dir) else STOPPED if stopped else FAILED
        steps = env_steps(self.run_dir)
        self.attempts[-1].update(end=time.time(), outcome=outcome, exit_code=code, to_env_steps=steps)
        self.final = final and outcome == FAILED
        if save:
            self._save(**({"reason": reason, "final": final} if outcome == FAILED else {}))
        return outcome

    def _save(self, **extra: Any) -> None:
        write_json(self.path, {"cell": self.cell.name, "attempts": self.attempts, **extra})


def is_done(run_dir: Path) -> bool:
    """Whether the run is complete: `summary.json` with status completed, and nothing else, says so."""
    return read_json(run_dir / "summary.json").get("status") == "completed"


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def last_metrics(run_dir: Path, wanted: Sequence[str] = ()) -> dict[str, Any]:
    """The latest values in `metrics.jsonl`'s last 64 KiB, {} if there are none yet; of `wanted` alone it reads less."""
    latest: dict[str, Any] = {}
    for size in (4096, 65536) if wanted else (65536,):
        try:
            with open(run_dir / "metrics.jsonl", "rb") as file:
                start = max(0, file.seek(0, os.SEEK_END) - size)
                file.seek(start)
                lines = file.read().splitlines()
        except OSError:
            return {}
        latest = {}
        for line in reversed(lines):
            try:
                latest = {**json.loads(line), **latest}
            except (ValueError, TypeError):  # the first line may be cut, the last half written
                continue
            if wanted and all(key in latest for key in wanted):
                return latest
        if not start:
            break
    return latest


def env_steps(run_dir: Path) -> int:
    """Environment steps the run has logged."""
    return int(last_metrics(run_dir, ("env_steps",)).get("env_steps") or 0)


def describe_exit(code: int, stderr: str) -> str:
    """Why a trainer ended, in one line: its last words and its exit code or signal."""
    number = -code if code < 0 else code - 128 if 128 < code < 160 else 0
    words = f"exit code {code}"
    if number:
        try:
            words = f"killed by {signal.Signals(number).name}"
        except ValueError:
            words = f"killed by signal {number}"
        if number == signal.SIGKILL:
            words += " (out of memory?)"
    elif code == 0:
        words = "exited with code 0 before it was complete"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return f"{lines[-1][:300]} ({words})" if lines else words


def main(argv: list[str], kind: type[CellJob] = CellJob) -> int:
    """`python -m scaling.sweep.cell <parent pid> <CellJob arguments as JSON> [core ...]`: a local worker.

    It dies with its sweep and keeps itself and its trainer to the given cores, if any are given.
    """
    job = kind(**json.loads(argv[1]))
    if argv[2:]:
        os.sched_setaffinity(0, [int(core) for core in argv[2:]])
    for number in PREEMPTION_SIGNALS:
        signal.signal(number, job.stop)
    die_with(int(argv[0]))
    try:
        return EXIT_CODES[job()]
    except InputError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
