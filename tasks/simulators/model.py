"""What the simulators of MuJoCo models share: the compiled model and its pictures."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch

from tasks.errors import TaskError
from tasks.render import Renderer, compiled
from tasks.simulators.base import Simulator
from tasks.task import Task, looks

STAGES = {"none": 0, "position": 1, "velocity": 2}  # Task.stage as mujoco's mjtStage


class ModelSimulator(Simulator):
    """N simulations of the model that `task` writes as MJCF."""

    def __init__(self, task: Task, num_envs: int, device: torch.device):
        self.model = compiled(task)
        self.num_envs, self.device = num_envs, device
        self.substeps, self.stage, self.reads = task.substeps, STAGES[task.stage], task.reads
        self.looks = looks(task)
        self.dt = self.model.opt.timestep * task.substeps
        self._renderer: Any = None

    @abstractmethod
    def positions(self, index: int) -> Any:
        """Where simulation `index` stands: qpos (nq,) as an array on the host."""

    def render(self, task: Task, width: int, height: int, index: int, shown: dict[str, Any] | None = None) -> Any:
        if self._renderer is None or self._renderer.size != (width, height):
            self.close()
            self._renderer = Renderer(task, width, height)
        return self._renderer.draw(self.positions(index), shown)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def fitted(name: str, values: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """`values` if they are one value of model field `name` for each simulation, `shape` together; else TaskError."""
    if values.shape != torch.Size(shape):
        raise TaskError(f"model field {name!r} takes values {tuple(shape)}, not {tuple(values.shape)}")
    return values
