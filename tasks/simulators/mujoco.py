"""Physics on the CPU: `mujoco.batch.Batch` behind the Simulator interface."""

from __future__ import annotations

import logging
import warnings
from typing import Sequence

import mujoco
import numpy as np
import torch
from mujoco.batch import Batch
from torch import Tensor

from tasks.cores import cores
from tasks.errors import TaskError
from tasks.simulators.last_substep import LastSubstep
from tasks.simulators.model import ModelSimulator, fitted
from tasks.task import Start, State, Task

# MuJoCo meets a value that is not finite by resetting the simulation or the control to its default and going on
# as if nothing had been; only these counters tell.
_FATAL = slice(mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADCTRL + 1)

# Unless told otherwise MuJoCo prints a line per diverged simulation and writes MUJOCO_LOG.TXT where it stands.
if mujoco.get_mju_user_warning() is None:
    mujoco.set_mju_user_warning(logging.getLogger("tasks.mujoco").debug)


def make(
    name: str, task: Task, num_envs: int, device: torch.device, seed: int = 0, threads: int | None = None
) -> MujocoSimulator:
    """Simulations of `task`; called by `tasks.make`."""
    return MujocoSimulator(task, num_envs, threads)


class MujocoSimulator(ModelSimulator):
    """N simulations on a pool of `threads` threads. Trajectories do not depend on their number."""

    def __init__(self, task: Task, num_envs: int, threads: int | None = None):
        super().__init__(task, num_envs, torch.device("cpu"))
        self.batch = Batch(self.model, num_envs, min(threads or cores(), num_envs))
        self._rows = torch.from_numpy(self.batch.state)  # float64; a write is the state at the next step
        self._default_row = self._rows[0].clone()
        nq, nv = self.model.nq, self.model.nv
        start = _offset(self.batch, "qpos")
        if _offset(self.batch, "qvel") != start + nq:
            raise RuntimeError("mujoco.batch no longer keeps qvel behind qpos; this simulator relies on it")
        # One conversion to float32 serves positions and velocities.
        self._motion = self._rows[:, start : start + nq + nv]
        self._split = [nq, nv]
        self._dtype = task.dtype
        self._ctrl = torch.from_numpy(self.batch.bind("ctrl"))
        self._sensors = self._output("sensordata") if self.model.nsensordata else torch.zeros((num_envs, 0))
        self._outputs = {name: self._output(name) for name in task.reads}
        # Only activations make actuators push on a start, which has no controls.
        self._flags = self.batch.expand("opt.disableflags") if self.looks and self.model.na else None
        self._last: LastSubstep | None = None
        if "cfrc_ext" in task.reads:
            outputs = {name: field.numpy() for name, field in self._outputs.items()}
            self._last = LastSubstep(self.batch, outputs, self.batch.nthread)
        self._none_diverged = torch.zeros(num_envs, dtype=torch.bool)
        self._fields: dict[str, Tensor] = {}
        self._derives = False

    def step(self, ctrl: Tensor) -> tuple[State, Tensor]:
        self._ctrl.copy_(ctrl)
        self.advance()
        warned = self.batch.warning
        if not warned.any():
            return self.state(), self._none_diverged
        diverged = torch.from_numpy(warned[:, _FATAL, 1].sum(1) > 0)
        warned.fill(0)
        return self.state(), diverged

    def advance(self) -> None:
        if self._last is None:
            self.batch.step(nstep=self.substeps, stage=self.stage)
            return
        if self.substeps > 1:
            self.batch.step(nstep=self.substeps - 1)
        self._last()

    def state(self) -> State:
        qpos, qvel = self._motion.to(self._dtype).split(self._split, dim=1)
        fields = {name: field.to(self._dtype) for name, field in self._outputs.items()}
        return State(qpos, qvel, self._sensors.to(self._dtype), fields)

    def reset(self, mask: Tensor, start: Start) -> None:
        # On the CPU few rows end per step: indices are cheaper than selecting over every row.
        index = mask.nonzero().squeeze(1)
        self._rows[index] = self._default_row
        self._motion[index] = torch.cat((start.qpos[index], start.qvel[index]), dim=1).double()
        for name, values in start.more.items():
            torch.from_numpy(self.batch.bind(name))[index] = values[index]
        for name, values in start.model.items():
            self._fields[name][index] = values[index]
        if self.looks and len(index):
            self._look(index.numpy())

    def _look(self, index: np.ndarray) -> None:
        """Compute everything about some simulations as they begin, that is without their actuators."""
        if self._flags is None:
            self.batch.forward(index)
            return
        self._flags[index] |= int(mujoco.mjtDisableBit.mjDSBL_ACTUATION)
        self.batch.forward(index)
        self._flags[index] = self.model.opt.disableflags

    def _output(self, name: str) -> Tensor:
        """A field that every call computes anew, (N, ...), as torch sees it."""
        try:
            field = self.batch.bind(name)
        except (AttributeError, ValueError) as error:
            raise TaskError(f"mujoco.batch has no {name!r} to read: {error}") from error
        with warnings.catch_warnings():  # that it must not be written to
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(field)

    def vary(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                self._fields[name] = torch.from_numpy(self.batch.expand(name))
            except ValueError as error:
                raise TaskError(f"there is no model field {name!r} to give each simulation its own: {error}") from error
        if names and self._last is not None:
            self._last.give_models()

    def randomize(self, fields: dict[str, Tensor]) -> None:
        self.vary(list(fields))
        for name, values in fields.items():
            self._fields[name].copy_(fitted(name, values, self._fields[name].shape))
        self._derives = bool(fields.keys() & set(mujoco.MjModel._setconst_inputs))
        if self._derives:
            self.batch.set_const()

    def state_dict(self) -> dict[str, Tensor]:
        fields = {f"model.{name}": field.clone() for name, field in self._fields.items()}
        return {"rows": self._rows.clone(), **fields}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._rows.copy_(state["rows"])
        for name, field in self._fields.items():
            field.copy_(state[f"model.{name}"])
        if self._derives:
            self.batch.set_const()

    def positions(self, index: int) -> np.ndarray:
        return self.batch.qpos[index]


def _offset(batch: Batch, field: str) -> int:
    """Column of a state field in the batch's rows."""
    view = batch.bind(field)
    return (view.ctypes.data - batch.state.ctypes.data) // batch.state.itemsize
