"""Where episodes begin: drawn by a task as tensors, or one by one on the host for what tensors can't say.

Settling, and trying until nothing touches, take a simulation of their own. On a CPU each episode that begins gets such
a start of its own; where the host must not be waited for, it is one of a pool drawn beforehand.
"""

from __future__ import annotations

import copy
from typing import Any, Callable

import numpy as np
import torch
from torch import Tensor

from tasks.simulators.base import Simulator
from tasks.task import Sampler, Start, Task

POOL = 1024  # starts of a pool
_STATE = ("qpos", "qvel", "act", "qacc_warmstart")  # what a start can consist of

# Given who begins an episode, (N,) bool: starts for all, of which only those need be new.
Starts = Callable[[Tensor], Start]


def make(task: Task, simulator: Simulator, sampler: Sampler, seed: int) -> Starts:
    """Starts as `task` and `simulator` can have them."""
    if not task.draws:
        return lambda mask: task.reset(sampler)
    drawn = Drawn(task, simulator, seed)
    return Pool(drawn, sampler) if simulator.in_place else drawn


class Scene:
    """One simulation on the host, with a model of its own, for drawing starts."""

    def __init__(self, model: Any):
        import mujoco

        self._mujoco = mujoco
        self.model = copy.copy(model)
        self.data = mujoco.MjData(self.model)

    def clear(self) -> None:
        """Go to the default state."""
        self._mujoco.mj_resetData(self.model, self.data)

    def look(self) -> None:
        """Compute everything about the state, without actuators, as dm_control does between episodes."""
        flags = self.model.opt.disableflags
        self.model.opt.disableflags |= self._mujoco.mjtDisableBit.mjDSBL_ACTUATION
        self._mujoco.mj_forward(self.model, self.data)
        self.model.opt.disableflags = flags

    def touches(self) -> bool:
        """Compute positions. Whether anything touches."""
        self._mujoco.mj_fwdPosition(self.model, self.data)
        return self.data.ncon > 0

    def settle(self, substeps: int) -> None:
        """Let time pass, as dm_control does: the first substep is of the pose that was last looked at."""
        self._mujoco.mj_step2(self.model, self.data)
        self._mujoco.mj_step(self.model, self.data, nstep=substeps - 1)

    def qpos(self, joint: str) -> np.ndarray:
        """A joint's positions, to be written to."""
        return self.data.joint(joint).qpos

    def qvel(self, joint: str) -> np.ndarray:
        """A joint's velocities, to be written to."""
        return self.data.joint(joint).qvel


class Drawn:
    """Starts from `Task.draw`, one after the other for those who begin an episode."""

    def __init__(self, task: Task, simulator: Simulator, seed: int):
        self._task = task
        self._scene = Scene(simulator.model)
        self._random = np.random.RandomState(seed)
        self._start = Start(*self._rows(simulator.num_envs))

    def _rows(self, count: int) -> tuple[Any, ...]:
        """Room for `count` starts, as the arguments of Start."""
        model, data = self._scene.model, self._scene.data
        state = {name: torch.zeros(count, len(getattr(data, name)), dtype=torch.float64) for name in _STATE}
        fields = {
            name: torch.as_tensor(getattr(model, name)).expand(count, *getattr(model, name).shape).clone()
            for name in self._task.episode_fields
        }
        return state.pop("qpos"), state.pop("qvel"), {}, state, fields

    def __call__(self, mask: Tensor) -> Start:
        for index in mask.nonzero().squeeze(1).tolist():
            self._draw(self._start, index)
        return self._start

    def _draw(self, start: Start, index: int) -> None:
        self._scene.clear()
        self._task.draw(self._scene, self._random)
        for name, value in {"qpos": start.qpos, "qvel": start.qvel, **start.more}.items():
            value[index] = torch.from_numpy(getattr(self._scene.data, name))
        for name, value in start.model.items():
            value[index] = torch.from_numpy(getattr(self._scene.model, name))

    def many(self, count: int) -> Start:
        """`count` starts, all new."""
        start = Start(*self._rows(count))
        for index in range(count):
            self._draw(start, index)
        return start

    def state_dict(self) -> dict[str, Tensor]:
        """What the next start depends on."""
        _, words, place, cached, gauss = self._random.get_state()
        numbers = torch.from_numpy(words.astype(np.int64)), torch.tensor([place, cached])
        return {"random": torch.cat(numbers), "gauss": torch.tensor(gauss, dtype=torch.float64)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        *words, place, cached = state["random"].tolist()
        self._random.set_state(("MT19937", np.array(words, dtype=np.uint32), place, cached, float(state["gauss"])))


class Pool:
    """Starts chosen at random from POOL that were drawn beforehand."""

    def __init__(self, drawn: Drawn, sampler: Sampler):
        self._sampler = sampler
        self._pool = _each(drawn.many(POOL), lambda tensor: tensor.to(sampler.device))

    def __call__(self, mask: Tensor) -> Start:
        chosen = torch.randint(
            POOL, (len(mask),), generator=self._sampler.generator, device=self._sampler.device
        )
        return _each(self._pool, lambda tensor: tensor[chosen])


def _each(start: Start, function: Callable[[Tensor], Tensor]) -> Start:
    """`function` of every tensor of a start."""
    groups = ({name: function(value) for name, value in group.items()} for group in start[2:])
    return Start(function(start.qpos), function(start.qvel), *groups)
