"""Simulators: what a task runs on, and the registry that `sim=` names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Callable, NamedTuple, Sequence

import torch
from torch import Tensor

from tasks.base import VectorEnv
from tasks.errors import TaskError
from tasks.task import Start, State, Task


class Simulator(ABC):
    """N simulations of one model, stepped together on one device."""

    num_envs: int
    device: torch.device
    dt: float  # seconds per control step
    model: Any  # the compiled mujoco.MjModel
    in_place: bool = False  # what `step` returns lies in the same memory every time

    @abstractmethod
    def step(self, ctrl: Tensor) -> tuple[State, Tensor]:
        """Advance one control step under `ctrl` (N, nu). Returns the state and who diverged, (N,) bool."""

    @abstractmethod
    def advance(self) -> None:
        """The physics of one control step alone, under the controls last set: what `tasks.bench` compares with."""

    @abstractmethod
    def reset(self, mask: Tensor, start: Start) -> None:
        """Where `mask` (N,), forget everything and continue from the rows of `start`."""

    @abstractmethod
    def state(self) -> State:
        """The state: where a reset was the last to change it, with what the task reads as it is at that start."""

    def randomize(self, fields: dict[str, Tensor]) -> None:
        """Give each simulation its own values of model fields, {MjModel's name: (N, ...)}, and of what MuJoCo derives.

        Raises TaskError for a field that can't differ between simulations, or values of another shape.
        """
        if fields:
            raise TaskError(f"{type(self).__name__} has one model for all of its simulations")

    def vary(self, names: Sequence[str]) -> None:
        """Let these model fields differ between simulations as a reset's start has them; nothing follows from them."""
        if names:
            raise TaskError(f"{type(self).__name__} has one model for all of its simulations")

    def metrics(self) -> dict[str, Tensor]:
        """Counts for a step's info, of each simulation since it was made, (N,)."""
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """Everything the next step depends on (copies)."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict()`, exactly."""

    def render(self, task: Task, width: int, height: int, index: int, shown: dict[str, Any] | None = None) -> Any:
        """A picture of simulation `index`, with what `Task.shown` says of it: (height, width, 3) uint8 array."""
        raise TaskError(f"{type(self).__name__} cannot render")

    def close(self) -> None:
        """Release what is held outside Python."""


class Backend(NamedTuple):
    """An entry of the registry: how to make environments, where, and whether that is possible here."""

    name: str
    device_type: str  # "cpu" or "cuda"
    unavailable: Callable[[], str | None]  # why it can't run here and how to mend that, in one line; None if it can
    # (name, task, num_envs, device, seed, threads) -> the task's Simulator, or environments made without one
    make: Callable[..., Simulator | VectorEnv]
    # Names of the tasks that come with the simulator; `make` is then given the task's options in the task's place.
    own_tasks: Callable[[], list[str]] | None = None
    other_devices: tuple[str, ...] = ()  # device types that it also runs on, when asked to
    options: tuple[str, ...] = ()  # what else `make` takes


# In the order in which `sim="auto"` tries them.
BACKENDS: dict[str, Backend] = {}


def register_simulator(backend: Backend, first: bool = False) -> None:
    """Add a simulator; with `first`, `sim="auto"` prefers it to those registered so far."""
    others = {key: value for key, value in BACKENDS.items() if key != backend.name}
    BACKENDS.clear()
    BACKENDS.update({backend.name: backend, **others} if first else {**others, backend.name: backend})
