"""A vector environment in a process of its own, for a simulator that a process can hold only once.

Observations and actions lie in one block of memory that both processes see (a mapped file on a CPU, CUDA IPC on a
GPU), allocated once; per step only a few bytes go through a socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import math
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import weakref
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasks.base import Step, VectorEnv
from tasks.errors import TaskError

START = 600.0  # seconds that a simulator has to be imported, which may compile, and to build its environments
STEP = 120.0  # seconds that one vector step has
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)  # they ask a run to stop; its parent answers them

# Runs before anything of ours, which would import torch.
BEGIN = """
import sys
error = None
try:
    __import__(sys.argv[2])
except BaseException as caught:
    error = caught
from tasks.simulators.remote import serve
serve(int(sys.argv[1]), error)
"""


class RemoteEnv(VectorEnv):
    """The environment that `factory(**arguments)` makes in a new process, which ends with this object or process.

    The process has an empty working directory of its own, for simulators that write where they stand. What it prints
    goes to a file there. Per-environment values of `info` stay behind: single numbers come across.

    Args:
        factory: "module:function" that returns a VectorEnv; it gets `import_error=` besides its arguments.
        first: a module that the process imports before any other, torch included.
        crash: what to tell a user whose process was killed while it made its environments.

    Raises:
        TaskError: as the factory does, or with `crash` if the process was killed. Any other end of the process, here
            or in a later step, is a RuntimeError that names the cause and the file with its output.
    """

    def __init__(self, factory: str, arguments: dict[str, Any], first: str, crash: str = ""):
        self.folder = Path(tempfile.mkdtemp(prefix="simulation-"))
        self.log = self.folder / "output.log"
        ours, theirs = socket.socketpair()
        # What stops a run must not stop the process before it can ignore that.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            with open(self.log, "wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", BEGIN, str(theirs.fileno()), first],
                    pass_fds=(theirs.fileno(),),
                    cwd=str(self.folder),
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(p) for p in sys.path)},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        self._link = Connection(ours.detach())
        self._end = weakref.finalize(self, _end, self._link, self._process, self.folder)  # at the latest at exit
        try:
            self._send((factory, arguments))
            facts = self._answer(START, crash)
            for name, value in facts["attributes"].items():
                setattr(self, name, value)
            self.device = torch.device(self.device)
            flat = pickle.loads(facts["block"]) if facts["block"] else _map(self.folder, facts["size"])
            self._block = Block(flat, self.num_envs, self.obs_dim, self.action_dim, self.critic_obs_dim)
        except BaseException:
            self.close()
            raise

    def reset(self) -> Tensor:
        self._send("reset")
        self._answer(STEP)
        return self._block.obs

    def step(self, action: Tensor) -> Step:
        if action.shape != (self.num_envs, self.action_dim):
            raise TaskError(f"{self.name} takes actions {self.num_envs, self.action_dim}, not {tuple(action.shape)}")
        self._block.action.copy_(action)
        self._send("step")
        info = {name: torch.tensor(value, device=self.device) for name, value in self._answer(STEP).items()}
        b = self._block
        seen = b.obs, b.reward, b.terminated, b.truncated, b.next_obs, b.valid, info
        return Step(*seen, b.critic_obs, b.next_critic_obs) if self.critic_obs_dim else Step(*seen)

    @property
    def critic_obs(self) -> Tensor | None:
        return self._block.critic_obs if self.critic_obs_dim else None

    def render(self, width: int = 640, height: int = 480, index: int = 0) -> Any:
        raise NotImplementedError("a simulation in a process of its own runs without rendering")

    def close(self) -> None:
        self._end()

    def _send(self, message: Any) -> None:
        if self._link.closed:
            raise RuntimeError("this environment is closed")
        if isinstance(message, str):
            _wait_for_device(self.device)  # the action is there, and nobody reads the last step's results any more
        try:
            self._link.send(message)
        except OSError:
            raise self._ended("") from None

    def _answer(self, seconds: float, crash: str = "") -> Any:
        if not self._link.poll(seconds):
            raise RuntimeError(f"the simulation gave no answer for {seconds:.0f} s; its output: {self.log}")
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
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return RuntimeError(f"the simulation broke off; its output: {self.log}")
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if crash:
            return TaskError(f"the simulation {how}: {crash}; its output: {self.log}")
        return RuntimeError(f"the simulation {how}; its output: {self.log}")


def _end(link: Connection, process: subprocess.Popen, folder: Path) -> None:
    """End a process: it reads an end of file. After a failure its folder stays, for what it printed."""
    link.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.returncode == 0:
        shutil.rmtree(str(folder), ignore_errors=True)


class Block:
    """Views of one flat tensor of bytes: what a step takes and gives, N rows each."""

    def __init__(self, flat: Tensor, num_envs: int, obs_dim: int, action_dim: int, critic_obs_dim: int):
        self.flat, self._at = flat, 0
        self.action = self._take((num_envs, action_dim), torch.float32)
        self.obs = self._take((num_envs, obs_dim), torch.float32)
        self.next_obs = self._take((num_envs, obs_dim), torch.float32)
        self.critic_obs = self._take((num_envs, critic_obs_dim), torch.float32)
        self.next_critic_obs = self._take((num_envs, critic_obs_dim), torch.float32)
        self.reward = self._take((num_envs,), torch.float32)
        self.terminated, self.truncated, self.valid = (self._take((num_envs,), torch.bool) for _ in range(3))

    @staticmethod
    def size(num_envs: int, obs_dim: int, action_dim: int, critic_obs_dim: int) -> int:
        """Bytes that the views take."""
        columns = [action_dim, *[obs_dim] * 2, *[critic_obs_dim] * 2, *[1] * 4]
        return sum(_aligned(4 * num_envs * count) for count in columns)

    def _take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        count = math.prod(shape) * dtype.itemsize
        view = self.flat[self._at : self._at + count].view(dtype).view(shape)
        self._at += _aligned(count)
        return view

    def put(self, step: Step) -> None:
        for name in ("obs", "next_obs", "reward", "terminated", "truncated", "valid"):
            getattr(self, name).copy_(getattr(step, name))
        if step.critic_obs is not None:
            self.critic_obs.copy_(step.critic_obs)
            self.next_critic_obs.copy_(step.next_critic_obs)


def _aligned(size: int) -> int:
    return -(-size // 64) * 64


def _map(folder: Path, size: int) -> Tensor:
    """A file there as (size,) bytes of shared memory."""
    return torch.from_file(str(folder / "block"), shared=True, size=size, dtype=torch.uint8)


def _wait_for_device(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def serve(socket_number: int, import_error: BaseException | None) -> None:
    """The process's side: make the environment, then answer "reset" and "step" until the other side is gone."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    _die_with_parent()
    torch.set_num_threads(1)
    link = Connection(socket_number)
    folder = Path.cwd()
    try:
        _serve(link, folder, import_error)
    except TaskError as error:
        link.send(("mistake", str(error)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except BaseException as error:
        link.send(("failed", (f"{type(error).__name__}: {error}", traceback.format_exc())))
        sys.exit(1)
    os.chdir("/")
    shutil.rmtree(str(folder), ignore_errors=True)
    sys.stdout.flush()
    os._exit(0)  # a simulator's own end has been seen to crash


def _serve(link: Connection, folder: Path, import_error: BaseException | None) -> None:
    factory, arguments = link.recv()
    module, _, function = factory.partition(":")
    env = getattr(importlib.import_module(module), function)(**arguments, import_error=import_error)
    sizes = env.num_envs, env.obs_dim, env.action_dim, env.critic_obs_dim
    size = Block.size(*sizes)
    on_gpu = env.device.type == "cuda"
    block = Block(torch.zeros(size, dtype=torch.uint8, device=env.device) if on_gpu else _map(folder, size), *sizes)
    names = ("name", "num_envs", "obs_dim", "action_dim", "critic_obs_dim", "max_episode_steps", "dt")
    attributes = {name: getattr(env, name) for name in names if hasattr(env, name)}
    shown = bytes(ForkingPickler.dumps(block.flat)) if on_gpu else b""
    facts = {"attributes": {**attributes, "device": str(env.device)}, "block": shown, "size": size}
    link.send(("made", facts))
    while True:
        if link.recv() == "reset":
            block.obs.copy_(env.reset())
            if env.critic_obs is not None:
                block.critic_obs.copy_(env.critic_obs)
            info = {}
        else:
            step = env.step(block.action)
            block.put(step)
            info = {name: value.item() for name, value in step.info.items() if value.numel() == 1}
        _wait_for_device(env.device)
        link.send(("done", info))


def _die_with_parent() -> None:
    """Where the kernel can, be killed when the parent dies even in the middle of a step."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
