"""The contract of a vector environment: one `Step` per vector step, whatever simulates underneath."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Step(NamedTuple):
    """What one vector step of N environments returned. Tensors stay valid until the next `step`.

    Episodes restart within the step: where one ended, `obs` already belongs to the next episode while
    `next_obs` is the terminal observation of the old one.
    """

    obs: Tensor  # (N, obs_dim) float32: what the policy sees next
    reward: Tensor  # (N,) float32
    terminated: Tensor  # (N,) bool: the episode ended in a state without a future
    truncated: Tensor  # (N,) bool: the episode was cut (time limit, diverged simulation); never with terminated
    next_obs: Tensor  # (N, obs_dim) float32: the true successor of the state acted in
    valid: Tensor  # (N,) bool: False where (previous obs, action, next_obs) is no transition of one episode
    info: dict[str, Tensor]  # extra per-environment or scalar values, for metrics
    # (N, critic_obs_dim) float32, like obs and next_obs but for the critic; None where it sees what the policy sees
    critic_obs: Tensor | None = None
    next_critic_obs: Tensor | None = None


class Spaces(NamedTuple):
    """The sizes of an environment, for those who learn in it."""

    obs_dim: int
    action_dim: int
    critic_obs_dim: int = 0  # 0: the critic sees what the policy sees
    terminates: bool = True  # whether an episode can end other than by being cut

    @property
    def seen_dim(self) -> int:
        """All that is observed: the policy's part, then the critic's own."""
        return self.obs_dim + self.critic_obs_dim

    @property
    def critic_dim(self) -> int:
        """What the critic sees."""
        return self.critic_obs_dim or self.obs_dim


class VectorEnv(ABC):
    """N independent environments of one task, stepped together on one device.

    A task may show the critic, which is needed in training alone, more than the policy: masses, forces, a goal
    (asymmetric actor-critic). Then `critic_obs_dim` is positive, steps have `critic_obs`, and so has an environment
    that was reset or restored, as an attribute.
    """

    name: str
    num_envs: int
    obs_dim: int
    action_dim: int
    critic_obs_dim: int = 0
    critic_obs: Tensor | None = None  # (N, critic_obs_dim): belongs to the observations last returned
    terminates: bool = True  # False: episodes are only ever cut
    metric_names: tuple[str, ...] = ()  # of what every step's `info` holds for a log: (N, ...) each, or one number
    max_episode_steps: int
    device: torch.device

    @property
    def spaces(self) -> Spaces:
        return Spaces(self.obs_dim, self.action_dim, self.critic_obs_dim, self.terminates)

    @abstractmethod
    def reset(self) -> Tensor:
        """Start a new episode everywhere. Returns observations (N, obs_dim)."""

    @abstractmethod
    def step(self, action: Tensor) -> Step:
        """Advance one control step. `action` (N, action_dim); values outside [-1, 1] are clipped."""

    def state_dict(self) -> dict[str, Any]:
        """Everything the next step depends on, as tensors; raises NotImplementedError where a simulator can't."""
        raise NotImplementedError(f"{type(self).__name__} cannot save its state")

    def load_state_dict(self, state: dict[str, Any]) -> Tensor:
        """Continue from `state_dict()`, exactly. Returns the current observations (N, obs_dim)."""
        raise NotImplementedError(f"{type(self).__name__} cannot restore its state")

    def render(self, width: int = 640, height: int = 480, index: int = 0) -> Any:
        """A picture of environment `index`: (height, width, 3) uint8 array."""
        raise NotImplementedError(f"{type(self).__name__} cannot render")

    def close(self) -> None:
        """Release the simulator."""
