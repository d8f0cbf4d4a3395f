"""What the tasks of dm_control's suite (1.0.50) share: model files, controls, the instants at which they look.

A step's observation is, as there, of the state after its last substep in all that depends on positions and velocities,
and of the substep before in touch, force, torque and acceleration. Observations are flattened in dm_control's order.
Episodes last 1000 control steps and are cut then (discount 1); none ends earlier unless a task says so. Actions are in
[-1, 1], scaled to the model's control range where there is one.
"""

from __future__ import annotations

import sys
from typing import Any, Iterable
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from tasks.packages import folder
from tasks.task import State, Task, actions_of

EPISODE = 1000  # control steps
_COMMON = ("materials", "skybox", "visual")
# Its model files are all that is needed of it. What it depends on has no wheels for later Pythons.
_REMEDY = "pip install .[dmc]" if sys.version_info < (3, 13) else "pip install --no-deps dm-control==1.0.50"


class Suite(Task):
    """A task of dm_control's suite.

    Args:
        action_repeat: control steps that an action lasts, a divisor of 1000; their rewards are summed.
    """

    file: str  # the model's name
    dtype = torch.float64
    stage = "velocity"
    draws = True
    max_episode_steps = EPISODE
    camera = 0

    def __init__(self, action_repeat: int = 1):
        self.action_repeat, self.max_episode_steps = action_repeat, actions_of(EPISODE, action_repeat)

    def mjcf(self) -> str:
        root = ElementTree.fromstring((self._folder() / f"{self.file}.xml").read_bytes())
        self.edit(root)
        return ElementTree.tostring(root, encoding="unicode")

    def edit(self, root: ElementTree.Element) -> None:
        """Turn the model file into the task's own."""

    def assets(self) -> dict[str, bytes]:
        return {f"./common/{name}.xml": (self._folder() / "common" / f"{name}.xml").read_bytes() for name in _COMMON}

    def _folder(self, *parts: str) -> Any:
        return folder("dm_control", _REMEDY, "suite", *parts)

    def setup(self, model: Any, device: torch.device) -> None:
        self._model, self._device = model, device
        self.action_dim = model.nu
        lower, upper = torch.as_tensor(model.actuator_ctrlrange, dtype=self.dtype, device=device).unbind(1)
        limited = torch.as_tensor(model.actuator_ctrllimited, dtype=torch.bool, device=device)
        self._middle = torch.where(limited, (upper + lower) / 2, 0.0)
        self._reach = torch.where(limited, (upper - lower) / 2, 1.0)
        self._direct = bool((self._middle == 0).all() and (self._reach == 1).all())

    def control(self, action: Tensor, memory: dict[str, Tensor]) -> Tensor:
        action = action.double()
        return action if self._direct else self._middle + self._reach * action

    def sensors(self, *names: str | int) -> Tensor:
        """Columns of sensors, by names or numbers, in `state.sensors`."""
        each = (self._model.sensor(name) for name in names)
        return self.columns(sensor.adr[0] + place for sensor in each for place in range(sensor.dim[0]))

    def sensors_of(self, *kinds: str) -> Tensor:
        """Columns of all sensors of some of MuJoCo's kinds ("GYRO", ...), in the model's order."""
        import mujoco

        wanted = [int(getattr(mujoco.mjtSensor, f"mjSENS_{kind}")) for kind in kinds]
        return self.sensors(*(one for one, kind in enumerate(self._model.sensor_type.tolist()) if kind in wanted))

    def default_pose(self) -> Any:
        """The model's default pose, as a mujoco.MjData."""
        import mujoco

        data = mujoco.MjData(self._model)
        mujoco.mj_forward(self._model, data)
        return data

    def columns(self, numbers: Iterable[int]) -> Tensor:
        """Numbers as an index."""
        return torch.tensor([int(number) for number in numbers], device=self._device)

    def bodies(self, *names: str) -> list[int]:
        """Numbers of bodies."""
        return [self._model.body(name).id for name in names]

    def geoms(self, *names: str) -> list[int]:
        """Numbers of geoms."""
        return [self._model.geom(name).id for name in names]

    def sites(self, *names: str) -> list[int]:
        """Numbers of sites."""
        return [self._model.site(name).id for name in names]

    def never(self, reward: Tensor) -> tuple[Tensor, Tensor]:
        """The reward of a task that doesn't terminate."""
        return reward, torch.zeros_like(reward, dtype=torch.bool)


def sensed(state: State, columns: Tensor) -> Tensor:
    """Some columns of the sensors."""
    return state.sensors.index_select(1, columns)


def within(vector: Tensor, frame: Tensor) -> Tensor:
    """A world vector (N, 3) along the axes of a frame, (N, 9) body to world."""
    return (vector[:, :, None] * frame.reshape(-1, 3, 3)).sum(1)


def remove(root: ElementTree.Element, tag: str, *names: str) -> None:
    """Take the elements of that name out of a model."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == tag and (not names or child.get("name") in names):
                parent.remove(child)


def unit(random: Any, size: int) -> np.ndarray:
    """A direction, uniformly."""
    vector = random.randn(size)
    return vector / np.linalg.norm(vector)


def joints_at_random(scene: Any, random: Any) -> None:
    """Limited joints within their range, free hinges at any angle, free joints as dm_control turns them (not evenly).

    A free joint's quaternion is of numbers in [0, 1): within 60 degrees of upright in 16 % of starts, where 25 % would
    be uniform. Joints are drawn in the model's order.
    """
    model, data = scene.model, scene.data
    free, ball, hinge = 0, 1, 3  # mujoco.mjtJoint
    for joint in range(model.njnt):
        kind, place, (low, high) = model.jnt_type[joint], model.jnt_qposadr[joint], model.jnt_range[joint]
        if kind == ball:
            raise NotImplementedError("no task of the suite has a ball joint")
        if model.jnt_limited[joint]:
            data.qpos[place] = random.uniform(low, high)
        elif kind == hinge:
            data.qpos[place] = random.uniform(-np.pi, np.pi)
        elif kind == free:
            turn = random.rand(4)
            data.qpos[place + 3 : place + 7] = turn / np.linalg.norm(turn)
