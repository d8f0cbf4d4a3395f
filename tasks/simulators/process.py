"""A child process that answers messages through a socket, and ends with the object that started it."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Callable

from tasks.errors import TaskError
from tasks.simulators.worker.link import SIGNALS

LOOK = 0.5  # seconds between two looks at a process that is waited for
# Before all else, as imports may take minutes: where the kernel can, be killed when the parent dies.
DIE_WITH_PARENT = """
import ctypes, os
try:
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
except (OSError, AttributeError):
    pass
try:
    os.kill({parent}, 0)
except OSError:  # it died before the kernel knew
    os._exit(1)
"""


class Process:
    """`python -c begin <socket> <folder> words...`, with a temporary folder for what it prints.

    Answers are pairs: ("mistake", one line) is a TaskError here, ("failed", (one line, traceback)) a RuntimeError, and
    whatever else brings a value. After a failure the folder stays, for what was printed.

    Args:
        begin: the program.
        words: its further arguments.
        here: whether it works in this process's directory; else in its folder, for simulators that write where they
            stand.
        variables: what else its environment (the operating system's) says.
        grace: seconds that it has to end by itself.
        python: another interpreter, which imports what is installed there; None: this one, which imports what this
            process can.
    """

    def __init__(
        self,
        begin: str,
        words: list[str],
        here: bool = False,
        variables: dict[str, str] | None = None,
        grace: float = 10.0,
        python: str | None = None,
    ):
        self.folder = Path(tempfile.mkdtemp(prefix="simulation-"))
        self.log = self.folder / "output.log"
        ours, theirs = socket.socketpair()
        path = {"PYTHONPATH": os.pathsep.join(os.path.abspath(p) for p in sys.path)} if python is None else {}
        program = DIE_WITH_PARENT.format(parent=os.getpid()) + begin
        # What stops a run must not stop the process before it can ignore that.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            with open(self.log, "wb") as log:
                self.popen = subprocess.Popen(
                    [python or sys.executable, "-c", program, str(theirs.fileno()), str(self.folder), *words],
                    pass_fds=(theirs.fileno(),),
                    cwd=None if here else str(self.folder),
                    env={**os.environ, **(variables or {}), **path},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self._link = Connection(ours.detach())
        self._arrival = select.poll()  # Connection.poll makes one at every call, which takes longer than a message
        self._arrival.register(self._link.fileno(), select.POLLIN)
        self._end = weakref.finalize(self, _end, self._link, self.popen, self.folder, grace)  # at the latest at exit

    def send(self, message: Any) -> None:
        if self._link.closed:
            raise RuntimeError("this environment is closed")
        try:
            self._link.send_bytes(pickle.dumps(message))
        except OSError:
            raise self._ended("") from None

    def answer(self, seconds: float, crash: str = "", slow: str = "", beats: Callable[[], int] = int) -> Any:
        """What it says within so many seconds, or so many after the last change of `beats()`.

        Args:
            crash: what to tell a user whose process was killed meanwhile, which then counts as a mistake.
            slow: what to tell a user whose process gave no answer, and is killed for that.

        Raises:
            TaskError: a mistake. RuntimeError: a failure, or the end of the process, naming its cause and output.
        """
        waited, looked, last = 0.0, time.monotonic(), beats()
        while not self._arrival.poll(1000 * min(LOOK, seconds)):
            # Only time in which this process was awake counts: after Ctrl-Z and fg nobody is to blame.
            now = time.monotonic()
            waited, looked = waited + min(now - looked, 2 * LOOK), now
            # A child of the process may hold its end of the link open, so that its death is no end of file.
            if self.popen.poll() is not None and not self._arrival.poll(0):
                raise self._ended(crash)
            if beats() != last:
                waited, last = 0.0, beats()
            if waited > seconds:
                self.popen.kill()
                advice = f" ({slow})" if slow else ""
                raise RuntimeError(f"the simulation gave no answer for {seconds:g} s{advice}; its output: {self.log}")
        try:
            kind, value = self._link.recv()
        except (EOFError, OSError):
            raise self._ended(crash) from None
        if kind == "mistake":
            raise TaskError(value)
        if kind == "failed":
            message, trace = value
            print(trace, file=sys.stderr, flush=True)
            raise RuntimeError(f"the simulation raised {message}; its output: {self.log}")
        return value

    def _ended(self, crash: str) -> Exception:
        try:
            code = self.popen.wait(5)
        except subprocess.TimeoutExpired:
            return RuntimeError(f"the simulation broke off; its output: {self.log}")
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if crash:
            return TaskError(f"the simulation {how}: {crash}; its output: {self.log}")
        return RuntimeError(f"the simulation {how}; its output: {self.log}")

    def begin_close(self) -> None:
        """Ask the process to end, so that several do so at a time."""
        self._link.close()

    def close(self, grace: float | None = None) -> None:
        """Ask the process to end and wait for that; after `grace` seconds, the constructor's by default, kill it."""
        if self._end.alive and grace is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._link.close()
                self.popen.wait(grace)
            self.popen.kill()
        self._end()


def _end(link: Connection, process: subprocess.Popen, folder: Path, grace: float) -> None:
    """End a process: it reads an end of file. After a failure its folder stays, for what it printed."""
    link.close()
    try:
        process.wait(grace)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.returncode == 0:
        shutil.rmtree(str(folder), ignore_errors=True)
