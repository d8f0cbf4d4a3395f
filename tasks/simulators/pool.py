"""N environments of a foreign package in a pool of worker processes, a share of them in each.

Gymnasium's own AsyncVectorEnv has one process per environment, cannot be started by a role of a parallel run (a
daemonic process may have no children by multiprocessing), waits forever for one that hangs, and pickles every
environment's info at every step. Here a worker steps its share in a loop, actions and observations lie in one block of
shared memory, and one short message per worker and step goes through a socket.
"""

from __future__ import annotations

import ctypes.util
import os
import shutil
import sys
import time
from typing import Any, Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from tasks.base import Step, VectorEnv
from tasks.cores import cores
from tasks.errors import TaskError
from tasks.simulators import worker
from tasks.simulators.process import Process
from tasks.simulators.worker.block import block

START = 600.0  # seconds that a worker has to import what it needs and to build its environments
GRACE = 3.0  # seconds that a worker has to end by itself

# A worker knows the folder of its code by a name of its own, for `tasks` would import torch.
BEGIN = """
import sys, types
package = sys.modules["simulation_worker"] = types.ModuleType("simulation_worker")
package.__path__ = [sys.argv[3]]
from simulation_worker.serve import serve
serve(int(sys.argv[1]), sys.argv[2])
"""


class Pool(VectorEnv):
    """`num_envs` environments in at most `workers` processes; what a step returns is on `device`.

    Args:
        name: of the task.
        module: of `tasks.simulators.worker`; its `make_share` makes a worker's share of the environments, given
            `num_envs` (its own) and `first` (the number of its first environment) besides `arguments`.
        step_timeout: seconds that one environment has for a step or a reset.
        python: the workers' interpreter, which needs numpy, what the module imports, and no torch; None is this one.
        metrics: names of what the module's shares tell in `rows.metrics`.

    Raises:
        TaskError: for a user's mistake, and wherever a worker dies or hangs or its environment raises, in one line. No
            worker is left then.
    """

    def __init__(
        self,
        name: str,
        module: str,
        arguments: dict[str, Any],
        num_envs: int,
        workers: int | None,
        device: torch.device,
        step_timeout: float,
        python: str | None = None,
        metrics: Sequence[str] = (),
    ):
        self.name, self.num_envs, self.device, self._limit = name, num_envs, device, step_timeout
        count = min(num_envs, workers or cores())
        ends = [num_envs * (k + 1) // count for k in range(count)]
        self._rows = list(zip([0, *ends], ends))
        self._workers: list[Process] = []
        try:
            for _ in self._rows:
                self._workers.append(Process(BEGIN, list(worker.__path__), True, _variables(), GRACE, python))
        except BaseException:
            self.close()
            raise
        shares = [{**arguments, "num_envs": end - begin, "first": begin} for begin, end in self._rows]
        self._all(lambda child, k: child.send((module, "make_share", shares[k])))
        crash = "out of memory? try a smaller num_envs"
        facts = self._all(lambda child, k: child.answer(START, crash))[0]
        self.obs_dim, self.action_dim = facts["obs_dim"], facts["action_dim"]
        self.max_episode_steps, self.dt = facts["max_episode_steps"], facts["dt"]
        self.metric_names = tuple(dict.fromkeys(metrics))
        path = self._workers[0].folder / "block"
        self._block = block(num_envs, self.obs_dim, self.action_dim, len(self.metric_names), path)
        self._tensors = self._block._make(torch.from_numpy(field) for field in self._block)
        self._all(lambda child, k: child.send((path, num_envs, self._rows[k][0])))
        self._do("reset", START)

    def _all(self, call: Callable[[Process, int], Any]) -> list[Any]:
        """`call(worker, its number)` for each; where one fails, all end, and the failure says whose it was."""
        found = []
        for k, child in enumerate(self._workers):
            try:
                found.append(call(child, k))
            except BaseException as error:
                self.close()
                for other in self._workers:
                    if other is not child:
                        shutil.rmtree(str(other.folder), ignore_errors=True)
                if isinstance(error, RuntimeError):
                    begin, end = self._rows[k]
                    raise TaskError(f"{self.name}, environments {begin} to {end - 1}: {error}") from error
                raise
        return found

    def _do(self, what: str, seconds: float) -> None:
        """Have all workers do it at the same time."""
        slow, beats = "sim.step_timeout allows more", self._block.beats
        self._all(lambda child, k: child.send(what))
        self._all(lambda child, k: child.answer(seconds, "", slow, lambda: int(beats[slice(*self._rows[k])].sum())))

    def reset(self) -> Tensor:
        self._do("reset", self._limit)
        return self._tensors.obs.to(self.device)

    def step(self, action: Tensor) -> Step:
        if action.shape != (self.num_envs, self.action_dim):
            raise TaskError(f"{self.name} takes actions {self.num_envs, self.action_dim}, not {tuple(action.shape)}")
        t = self._tensors
        t.action.copy_(action)
        self._do("step", self._limit)
        fields = t.obs, t.reward, t.terminated, t.truncated, t.next_obs, t.valid
        info = {name: told.to(self.device) for name, told in zip(self.metric_names, t.metrics.unbind(1))}
        info["diverged_episodes"] = t.diverged.sum().to(self.device)
        return Step(*(field.to(self.device) for field in fields), info)

    def render(self, width: int = 640, height: int = 480, index: int = 0) -> Any:
        if not 0 <= index < self.num_envs:
            raise TaskError(f"no environment {index} to render: index must be in 0..{self.num_envs - 1}")
        k = next(k for k, (_, end) in enumerate(self._rows) if index < end)
        self._workers[k].send((width, height, index - self._rows[k][0]))
        return fitted(self._workers[k].answer(START), width, height)

    def close(self) -> None:
        for child in self._workers:
            child.begin_close()
        end = time.monotonic() + GRACE
        for child in self._workers:
            child.close(max(0.0, end - time.monotonic()))


def _variables() -> dict[str, str]:
    """Of a worker: one thread per library, as the workers are the parallelism, and pictures without a display."""
    given = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    if sys.platform == "linux" and not os.environ.get("DISPLAY") and ctypes.util.find_library("EGL"):
        given["MUJOCO_GL"] = "egl"  # left to themselves, Gymnasium and dm_control try a window first
    return {name: value for name, value in given.items() if name not in os.environ}


def fitted(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """A picture (h, w, 3) uint8 scaled to fit into (height, width, 3), with black bars."""
    if picture.shape == (height, width, 3):
        return picture
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.pad(Image.fromarray(picture), (width, height)))
