"""Three processes over shared memory, and the parent that watches them."""

from __future__ import annotations

import multiprocessing.connection
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing

from pql import config
from pql.errors import RoleFailed, UserError
from pql.memory.device import mps_is_running
from pql.memory.shared import ROLES
from pql.runtime import checkpoint, profile, worker
from pql.signals import SIGNALS

GRACE = 4.0  # seconds that children have to end by themselves
START = 300.0  # seconds that a child has to import and build what it needs, as nothing beats in that time


class Team:
    """The three child processes: start, look after, pause for a checkpoint, stop. Used as a context."""

    def __init__(self, cfg: Any, shared: Any, resume_from: Path | None):
        self.cfg, self.shared = cfg, shared
        # forked from a process that has imported torch and nothing else: one import instead of three, and no second one
        # for the next run in this process. It touches no CUDA device, and nothing of ours: it would look for that in
        # the working directory. Its environment is that of the first run; so each role is told the present one.
        context = torch.multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch"])
        # multiprocessing's own helper starts with the first semaphore, and what stops a run must not kill it
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self.wakes = {role: context.Semaphore(0) for role in ROLES}
        signal.pthread_sigmask(signal.SIG_SETMASK, before)  # whoever started the run may have blocked some
        self.processes, self.pipes, theirs = {}, {}, {}
        for role in ROLES:
            self.pipes[role], theirs[role] = context.Pipe(duplex=False)
            arguments = (role, config.dumps(cfg), dict(os.environ), shared, self.wakes, theirs[role], resume_from)
            self.processes[role] = context.Process(
                target=worker.main, args=arguments, name=f"pql-{role}", daemon=True
            )
        self.ticket = 0
        self.watched, self.looked = 0.0, time.monotonic()
        self.beats = dict.fromkeys(ROLES, (0.0, 0.0))  # role -> its last heartbeat, and `watched` when that came
        # A Ctrl-C meant for the parent reaches children that cannot ignore it yet: they start with it blocked.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            for role, process in self.processes.items():
                process.start()
                theirs[role].close()  # so that a death in the middle of a message is an end of file
        except BaseException as error:
            self.__exit__()
            if isinstance(error, RuntimeError) and "CUDA error" in str(error):  # no CUDA IPC: under WSL, say
                why = str(error).splitlines()[0]
                raise UserError(f"processes can't share GPU memory here ({why}): take runtime=sync") from error
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: Any) -> None:
        """However the run ended, no process is left."""
        self.shared.stop.fill_(1)
        self.wake_all()
        end = time.monotonic() + GRACE
        started = [process for process in self.processes.values() if process.pid is not None]
        for process in started:
            process.join(max(0.0, end - time.monotonic()))
        for process in started:
            if process.is_alive():
                process.kill()
                process.join(GRACE)
        for pipe in self.pipes.values():
            pipe.close()

    def wake_all(self) -> None:
        for wake in self.wakes.values():
            if wake.get_value() == 0:
                wake.release()

    def look_after(self) -> None:
        """Raises RoleFailed if a child died, raised, or gave no sign of life for too long."""
        # Only time in which the parent itself was awake counts: after Ctrl-Z and fg nobody is to blame.
        now = time.monotonic()
        self.watched += min(now - self.looked, 1.0)
        self.looked = now
        for role, process in self.processes.items():
            if self.pipes[role].poll() or process.exitcode is not None:
                raise self._failed(role)
            beat = float(self.shared.heartbeat[role])
            if beat != self.beats[role][0]:
                self.beats[role] = (beat, self.watched)
            silent = self.watched - self.beats[role][1]
            limit = self.cfg.heartbeat_timeout
            if silent > (limit if int(self.shared.ready[role]) else max(limit, START)):
                raise RoleFailed(f"the {role} process gave no sign of life for {silent:.0f} s (heartbeat_timeout)")

    def _failed(self, role: str) -> Exception:
        try:
            # the exit code may be seen before the message that explains it
            if self.pipes[role].poll(1.0):
                message, trace = self.pipes[role].recv()
                if message.startswith(("UserError:", "TaskError:")):
                    return UserError(message.partition(": ")[2])
                if message.startswith("OutOfMemoryError:"):
                    return torch.cuda.OutOfMemoryError(message.partition(": ")[2])
                print(trace, file=sys.stderr, flush=True)
                return RoleFailed(f"the {role} process raised {message}")
        except (EOFError, OSError):
            pass
        self.processes[role].join(1.0)
        return RoleFailed(f"the {role} process {exit_reason(self.processes[role].exitcode)}")

    def wait(self, seconds: float) -> None:
        """Sleep, or wake at once when a child ends or has something to say."""
        sentinels = [process.sentinel for process in self.processes.values()]
        multiprocessing.connection.wait([*sentinels, *self.pipes.values()], seconds)

    def save(self, monitor: Any, last: bool = False) -> None:
        """One consistent checkpoint: every role stands still between two steps and writes its own part.

        After the `last` none takes another step, so that the run ends in just the state that was saved.
        """
        with checkpoint.writing(monitor.run_dir) as folder:
            self.ticket += 1
            self.shared.save.fill_(self.ticket)
            self.wake_all()
            try:
                while any(int(self.shared.paused[role]) < self.ticket for role in ROLES):
                    self.look_after()
                    self.wait(0.005)
                for role in ROLES:
                    number = int(self.shared.unsaved[role])
                    if number:
                        raise OSError(number, os.strerror(number), str(folder / f"{role}.safetensors"))
                monitor.save_shared(folder)
                if last:
                    self.shared.stop.fill_(1)
            finally:  # a full disk need not stop them
                self.shared.saved.fill_(self.ticket)
                self.wake_all()


def exit_reason(code: int | None) -> str:
    """'was killed by SIGKILL (…)', 'exited with code 3'."""
    if code is None:
        return "stopped answering"
    if code >= 0:
        return f"exited with code {code} before the run was over"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


def run(cfg: Any, monitor: Any, resume_from: Path | None) -> None:
    """Train until the monitor says it is finished; ends with a checkpoint. Raises RoleFailed, UserError."""
    shared = monitor.shared
    env = monitor.env
    shared.spaces = env.spaces
    share(shared)
    if cfg.device.startswith("cuda") and not mps_is_running():
        monitor.progress.message(
            "note: CUDA MPS is not running, so the three processes take turns on the GPU where their kernels could "
            "overlap: nvidia-cuda-mps-control -d starts it (docker/run.sh --mps does)"
        )
    if cfg.profile:
        profile.collect(cfg.run_dir, ROLES)  # what a run that was killed has left
    with Team(cfg, shared, resume_from) as team:
        monitor.save = lambda: team.save(monitor)
        while not all(int(flag) for flag in shared.ready.values()):
            team.look_after()
            team.wait(0.02)
        monitor.start_clock()
        trace = profile.monitor_trace(monitor) if cfg.profile else None
        team.wake_all()
        while not monitor.finished() and not monitor.interrupted:
            team.look_after()
            monitor.tick()
            if monitor.evaluation is None:
                team.wait(0.02)
            else:
                monitor.evaluate_a_little(0.1)
        monitor.stop_clock()
        if monitor.moved:
            team.save(monitor, last=True)
    if trace is not None:
        monitor.show_profile([*profile.collect(cfg.run_dir, ROLES), trace.as_dict()])


def share(shared: Any) -> None:
    """Move what is shared to where processes share it, once: best before a ring is filled, as moving copies.

    CPU tensors lie in /dev/shm then, which containers keep small: a full one would kill with SIGBUS. Raises UserError.
    """
    rows = shared.ring["rows"]
    if rows.device.type == "cpu" and Path("/dev/shm").is_dir() and not rows.is_shared():
        needed = sum(t.numel() * t.element_size() for t in shared.tensors() if t.device.type == "cpu")
        free = shutil.disk_usage("/dev/shm").free
        if needed > free:
            raise UserError(
                f"shared memory: {needed / 2**20:.0f} MiB are needed and /dev/shm has {free / 2**20:.0f} MiB free; "
                "lower algo.replay_size, enlarge /dev/shm (docker run --shm-size), or take runtime=sync"
            )
    shared.share()
