"""The SLURM launcher: cells as job arrays through submitit, requeued with a checkpoint on preemption and time-out.

Who runs is decided by the cell locks and done markers, not here: a job submitted twice finds its cell held or done.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

from scaling.errors import InputError
from scaling.sweep.cell import CellJob
from scaling.sweep.launch import Interrupt, PlanGuard
from scaling.sweep.locks import exclusive
from scaling.sweep.pack import PackJob
from scaling.sweep.packing import ALONE, Packing
from scaling.sweep.plan_file import Cell, Plan, write_json

MAX_ARRAY = 1000  # SLURM's default MaxArraySize is 1001
LIMIT = re.compile(r"limit|array|policy|maxsubmit|maxjobs|too many", re.I)  # of what sbatch says of too many at a time


def check_slurm() -> None:
    """Raise `InputError` unless jobs can be submitted from here."""
    for program in ("sbatch", "squeue", "srun"):
        if shutil.which(program) is None:
            raise InputError(f"launcher=slurm needs {program}, which is not on PATH: "
                             "start the sweep on a node that submits jobs, or use launcher=local")
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise InputError("launcher=slurm needs submitit: pip install submitit, or use launcher=local") from None


def submit(out: Path, cells: Sequence[Cell], options: Mapping[str, Any],
           packing: Packing = ALONE) -> tuple[list[str], int]:
    """Submit those of `cells` that are not in SLURM's queue already, a pack to a job; return the new job ids and how
    many cells wait.

    They go as arrays of the size that the site takes: one that is refused for a limit is halved. `parallel` holds over
    all arrays of this sweep in the queue, earlier ones included: each gets its share, and cells without one wait.
    """
    import submitit

    folder = out / "slurm"
    with exclusive(folder / ".submit.lock", limit_s=300):  # of two sweeps at a time the second sees the first's jobs
        queued = queue(out)
        todo = packing.groups([cell for cell in cells if cell.hash not in queued])
        known, arrays, new = _jobs(out), _stored(folder / "arrays.json"), []
        alive = {known[cell_hash].split("_")[0] for cell_hash in queued}
        free, size = options["parallel"] - sum(arrays.get(job, 0) for job in alive), MAX_ARRAY
        while todo and free > 0:
            pieces = -(-len(todo) // size)
            chunk, share = todo[:size], max(1, free // pieces)
            try:
                executor = submitit.SlurmExecutor(folder=str(folder.resolve()), max_num_timeout=options["timeouts"])
                executor.update_parameters(**_parameters(options, parallel=share))
                limit_s = options["time_min"] * 60 - options["signal_delay_s"]
                jobs = [_job(out, pack, options, limit_s) for pack in chunk]
                submitted = [job.job_id for job in executor.submit_array(jobs)]
            except (subprocess.CalledProcessError, RuntimeError, OSError) as error:
                lines = [line for line in str(error).splitlines() if line.strip()]
                said = lines[-1] if lines else type(error).__name__
                if LIMIT.search(said) and len(chunk) > 1:
                    size = -(-len(chunk) // 2)
                    continue
                if LIMIT.search(said) and (new or alive):
                    break
                raise InputError(f"SLURM refused the jobs ({said}): correct the launcher.* options") from None
            known.update({cell.hash: job for pack, job in zip(chunk, submitted) for cell in pack})
            arrays[submitted[0].split("_")[0]] = share
            new += submitted
            todo, free = todo[len(chunk):], free - share
            write_json(folder / "jobs.json", known)
            write_json(folder / "arrays.json", arrays)
    return new, sum(map(len, todo))


def _job(out: Path, pack: Sequence[Cell], options: Mapping[str, Any], limit_s: float) -> CellJob:
    rest = options["retries"], options["grace_s"], True, limit_s
    hashes = [cell.hash for cell in pack]
    return PackJob(str(out), hashes, *rest) if len(pack) > 1 else CellJob(str(out), hashes[0], *rest)


def _parameters(options: Mapping[str, Any], parallel: int) -> dict[str, Any]:
    cpus = int(options["cpus"])
    wanted = {
        "job_name": "sweep", "partition": options["partition"], "time": int(options["time_min"]),
        "cpus_per_task": cpus, "gpus_per_node": int(options["gpus"]) or None,
        "mem": f"{int(options['mem_gb'] * 1024)}MB" if options["mem_gb"] else None,
        "qos": options["qos"], "account": options["account"], "constraint": options["constraint"],
        "exclude": options["exclude"], "signal_delay_s": int(options["signal_delay_s"]), "array_parallelism": parallel,
        "additional_parameters": {"requeue": True},
        # srun takes the cores from SRUN_CPUS_PER_TASK alone since SLURM 22.05
        # SIGUSR2, the warning, would end a Python that still starts; `limit_s` asks once more
        "setup": ["trap '' USR2", f"export SRUN_CPUS_PER_TASK={cpus}",
                  f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{cpus}}}",
                  *options["setup"]],
    }
    return {key: value for key, value in wanted.items() if value is not None}


def queue(out: Path) -> dict[str, str]:
    """Cell hash -> SLURM's state, for this sweep's jobs that are still in the queue."""
    jobs = _jobs(out)
    if not jobs or shutil.which("squeue") is None:
        return {}
    command = ["squeue", "--noheader", "--array", "--user", str(os.getuid()), "--format", "%i %T"]
    answer = subprocess.run(command, capture_output=True, timeout=120)
    if answer.returncode != 0:
        raise InputError(f"squeue failed ({answer.stderr.decode(errors='replace').strip()}): "
                         "wait until SLURM's controller answers, then start again")
    states = dict(line.split()[:2] for line in answer.stdout.decode().splitlines() if len(line.split()) >= 2)
    return {cell_hash: states[job] for cell_hash, job in jobs.items() if job in states}


def _jobs(out: Path) -> dict[str, str]:
    return _stored(out / "slurm" / "jobs.json")


def _stored(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def wait(out: Path, plan: Plan, interrupt: Interrupt, tick: Callable[[Mapping[str, str]], None],
         more: Callable[[], int] = lambda: 0, period_s: float | None = None) -> None:
    """Until no job is queued or a stop is asked for (the jobs go on). `tick` gets the queue every `period_s`, `more`
    submits what waits and returns how many still do. A look costs the site's controller more the more jobs it lists:
    5 s apart for a few cells, a minute for thousands.

    Raises:
        InputError: the plan file was edited meanwhile. Jobs not yet started will refuse it as well.
    """
    guard, next_look, misses = PlanGuard(out, plan), 0.0, 0
    period_s = min(60.0, 5.0 + len(plan.cells) / 50) if period_s is None else period_s
    while not interrupt.count:
        if time.monotonic() >= next_look:
            next_look = time.monotonic() + period_s
            edited = guard.check()
            if edited:
                raise edited
            try:
                states, misses = queue(out), 0
            except (InputError, subprocess.TimeoutExpired):  # a controller restarts now and then
                misses += 1
                if misses * period_s > 600:
                    raise
                continue
            tick(states)
            if not more() and not states:
                return
        time.sleep(0.2)


def job_ids(out: Path) -> list[str]:
    """The sweep's queued jobs, arrays by their common id, as `scancel` takes them."""
    jobs = _jobs(out)
    return sorted({jobs[cell_hash].split("_")[0] for cell_hash in queue(out)})
