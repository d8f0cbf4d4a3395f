"""What the simulators of MuJoCo models share: the compiled model and its pictures."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import mujoco
import torch

from tasks.errors import TaskError
from tasks.render import Renderer
from tasks.simulators.base import Simulator
from tasks.task import Task


class ModelSimulator(Simulator):
    """N simulations of the model that `task` writes as MJCF."""

    def __init__(self, task: Task, num_envs: int, device: torch.device):
        try:
            self.model = mujoco.MjModel.from_xml_string(task.mjcf())
        except ValueError as error:
            what = " ".join(str(error).split())
            raise TaskError(f"the model of {type(task).__name__} does not compile: {what}") from error
        self.num_envs, self.device = num_envs, device
        self.substeps = task.substeps
        self.dt = self.model.opt.timestep * task.substeps
        self._renderer: Any = None

    @abstractmethod
    def positions(self, index: int) -> Any:
        """Where simulation `index` stands: qpos (nq,) as an array on the host."""

    def render(self, task: Task, width: int, height: int, index: int) -> Any:
        if self._renderer is None or self._renderer.size != (width, height):
            self.close()
            self._renderer = Renderer(task, width, height)
        return self._renderer.draw(self.positions(index))

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def fitted(name: str, values: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """`values` if they are one value of model field `name` for each simulation, `shape` together; else TaskError."""
    if values.shape != torch.Size(shape):
        raise TaskError(f"model field {name!r} takes values {tuple(shape)}, not {tuple(values.shape)}")
    return values
