"""A vector environment in a process of its own, for a simulator that a process can hold only once.

Observations and actions lie in one block of memory that both processes see (a mapped file on a CPU, CUDA IPC on a
GPU), allocated once; per step only a few bytes go through a socket.
"""

from __future__ import annotations

import importlib
import math
import os
import pickle
import shutil
import sys
import traceback
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasks.base import Step, VectorEnv
from tasks.errors import TaskError
from tasks.simulators.process import Process
from tasks.simulators.worker.errors import Broke, Mistake
from tasks.simulators.worker.link import open_link

START = 600.0  # seconds that a simulator has to be imported, which may compile, and to build its environments
STEP = 120.0  # seconds that one vector step has

# Runs before anything of ours, which would import torch.
BEGIN = """
import importlib.util, os, sys
error, folder = None, sys.argv[4]
try:
    if sys.argv[3]:
        __import__(sys.argv[3])
except BaseException as caught:
    error = caught
# from where it is, as another interpreter has only that of ours
spec = importlib.util.spec_from_file_location("tasks", os.path.join(folder, "__init__.py"))
sys.modules["tasks"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["tasks"])
from tasks.simulators.remote import serve
serve(int(sys.argv[1]), error)
"""


class RemoteEnv(VectorEnv):
    """The environment that `factory(**arguments)` makes in a new process, which ends with this object or process.

    The process has an empty working directory of its own, for simulators that write where they stand. What it prints
    goes to a file there. Per-environment values of `info` stay behind: single numbers come across.

    Args:
        factory: "module:function" that returns a VectorEnv; it gets `import_error=` besides its arguments.
        first: a module that the process imports before any other, torch included; "": none.
        crash: what to tell a user whose process was killed while it made its environments.
        python: another interpreter than this one, which has torch and numpy.

    Raises:
        TaskError: as the factory does, or with `crash` if the process was killed. Any other end of the process, here
            or in a later step, is a RuntimeError that names the cause and the file with its output.
    """

    def __init__(
        self, factory: str, arguments: dict[str, Any], first: str, crash: str = "", python: str | None = None
    ):
        self.device = torch.device("cpu")
        self._child = Process(BEGIN, [first, str(Path(__file__).resolve().parents[1])], python=python)
        self.folder, self.log, self._process = self._child.folder, self._child.log, self._child.popen
        try:
            self._send((factory, arguments))
            facts = self._child.answer(START, crash)
            for name, value in facts["attributes"].items():
                setattr(self, name, value)
            self.device = torch.device(self.device)
            flat = pickle.loads(facts["block"]) if facts["block"] else _map(self.folder, facts["size"])
            self._block = Block(flat, self.num_envs, self.obs_dim, self.action_dim, self.critic_obs_dim)
        except BaseException:
            self.close()
            raise

    def reset(self) -> Tensor:
        self._do("reset")
        return self._block.obs

    def step(self, action: Tensor) -> Step:
        if action.shape != (self.num_envs, self.action_dim):
            raise TaskError(f"{self.name} takes actions {self.num_envs, self.action_dim}, not {tuple(action.shape)}")
        self._block.action.copy_(action)
        info = {name: torch.tensor(value, device=self.device) for name, value in self._do("step").items()}
        b = self._block
        seen = b.obs, b.reward, b.terminated, b.truncated, b.next_obs, b.valid, info
        return Step(*seen, b.critic_obs, b.next_critic_obs) if self.critic_obs_dim else Step(*seen)

    @property
    def critic_obs(self) -> Tensor | None:
        return self._block.critic_obs if self.critic_obs_dim else None

    def render(self, width: int = 640, height: int = 480, index: int = 0) -> Any:
        raise NotImplementedError("a simulation in a process of its own runs without rendering")

    def close(self) -> None:
        self._child.close()

    def _do(self, what: str) -> dict[str, Any]:
        """Have the process "step" or "reset": single numbers about it."""
        self._send(what)
        return self._child.answer(*self._patience())

    def _patience(self) -> tuple[Any, ...]:
        """What `Process.answer` is told of a step: at least the seconds that it may take."""
        return (STEP,)

    def _send(self, message: Any) -> None:
        if isinstance(message, str):
            _wait_for_device(self.device)  # the action is there, and nobody reads the last step's results any more
        self._child.send(message)


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
    link = open_link(socket_number)
    torch.set_num_threads(1)
    folder = Path.cwd()
    try:
        _serve(link, folder, import_error)
    except Broke as error:
        traceback.print_exc()
        link.send(("mistake", f"{error}; its output: {folder / 'output.log'}"))
        sys.stderr.flush()
        os._exit(1)
    except (TaskError, Mistake) as error:
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
    names = ("name", "num_envs", "obs_dim", "action_dim", "critic_obs_dim", "terminates", "max_episode_steps", "dt")
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
