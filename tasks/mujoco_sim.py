"""Physics on the CPU: `mujoco.batch.Batch` behind the Simulator interface."""

from __future__ import annotations

import logging
import os
from typing import Any

import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from torch import Tensor

from tasks.env import TaskEnv
from tasks.errors import TaskError
from tasks.render import Renderer
from tasks.simulator import Simulator
from tasks.task import State, Task

# MuJoCo meets a value that is not finite by resetting the simulation or the control to its default and going on
# as if nothing had been; only these counters tell.
_FATAL = slice(mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADCTRL + 1)

# Unless told otherwise MuJoCo prints a line per diverged simulation and writes MUJOCO_LOG.TXT where it stands.
if mujoco.get_mju_user_warning() is None:
    mujoco.set_mju_user_warning(logging.getLogger("tasks.mujoco").debug)


def make_env(
    name: str, task: Task, num_envs: int, device: torch.device, seed: int = 0, threads: int | None = None
) -> TaskEnv:
    """The environments of `task` on this simulator; called by `tasks.make`."""
    return TaskEnv(name, task, MujocoSimulator(task, num_envs, threads), seed)


class MujocoSimulator(Simulator):
    """N simulations on a pool of `threads` threads. Trajectories do not depend on their number."""

    def __init__(self, task: Task, num_envs: int, threads: int | None = None):
        try:
            self.model = mujoco.MjModel.from_xml_string(task.mjcf())
        except ValueError as error:
            what = " ".join(str(error).split())
            raise TaskError(f"the model of {type(task).__name__} does not compile: {what}") from error
        self.num_envs, self.device = num_envs, torch.device("cpu")
        self.substeps = task.substeps
        self.dt = self.model.opt.timestep * task.substeps
        self.batch = Batch(self.model, num_envs, min(threads or _cores(), num_envs))
        self._rows = torch.from_numpy(self.batch.state)  # float64; a write is the state at the next step
        self._default_row = self._rows[0].clone()
        nq, nv = self.model.nq, self.model.nv
        start = _offset(self.batch, "qpos")
        if _offset(self.batch, "qvel") != start + nq:
            raise RuntimeError("mujoco.batch no longer keeps qvel behind qpos; this simulator relies on it")
        # One conversion to float32 serves positions and velocities.
        self._motion = self._rows[:, start : start + nq + nv]
        self._split = [nq, nv]
        self._ctrl = torch.from_numpy(self.batch.bind("ctrl"))
        self._sensors = self.batch.bind("sensordata") if self.model.nsensordata else np.zeros((num_envs, 0))
        self._warnings = torch.from_numpy(self.batch.warning)
        self._renderer: Any = None

    def step(self, ctrl: Tensor) -> tuple[State, Tensor]:
        self._ctrl.copy_(ctrl)
        self.advance()
        diverged = self._warnings[:, _FATAL, 1].sum(1) > 0
        self._warnings.zero_()
        qpos, qvel = self._motion.float().split(self._split, dim=1)
        return State(qpos, qvel, torch.from_numpy(self._sensors.astype(np.float32))), diverged

    def advance(self) -> None:
        self.batch.step(nstep=self.substeps)

    def reset(self, mask: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        # On the CPU few rows end per step: indices are cheaper than selecting over every row.
        index = mask.nonzero().squeeze(1)
        self._rows[index] = self._default_row
        self._motion[index] = torch.cat((qpos[index], qvel[index]), dim=1).double()

    def state_dict(self) -> dict[str, Tensor]:
        return {"rows": self._rows.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._rows.copy_(state["rows"])

    def render(self, task: Task, width: int, height: int, index: int) -> Any:
        if self._renderer is None or self._renderer.size != (width, height):
            self.close()
            self._renderer = Renderer(task, width, height)
        return self._renderer.draw(self.batch.qpos[index])

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _offset(batch: Batch, field: str) -> int:
    """Column of a state field in the batch's rows."""
    view = batch.bind(field)
    return (view.ctypes.data - batch.state.ctypes.data) // batch.state.itemsize

