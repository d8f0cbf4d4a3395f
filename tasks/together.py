"""Sets of environments in one simulation: each draws from a seed of its own, and so does what it would do alone."""

from __future__ import annotations

from typing import Any, Sequence

from torch import Tensor

from tasks.base import Step, VectorEnv
from tasks.env import TaskEnv
from tasks.simulators.base import Simulator
from tasks.task import Task

OF_A_SET = ("generator", "diverged_episodes")  # of a state: what there is once per set, not once per environment
COUNTS = ("diverged_episodes", "contact_overflows")  # of a step's info: likewise


class Sets(TaskEnv):
    """`sets[k]` are the environments k N .. (k + 1) N - 1, seen as environments of their own. Made by `tasks.make`."""

    def __init__(self, name: str, task: Task, simulator: Simulator, seeds: Sequence[int]):
        super().__init__(name, task, simulator, seeds)
        self.sets: list[Set] = [Set(self, k, self.num_envs // len(seeds)) for k in range(len(seeds))]


    def get_draws(self) -> Tensor:
        """What each set's next draws depend on, (K, bytes)."""
        return self._sampler.get_state()

    def set_draws(self, states: Tensor) -> None:
        self._sampler.set_state(states)


class Set(VectorEnv):
    """One of several sets: what it is and where it stands. It is stepped and reset with the others, not alone."""

    def __init__(self, whole: Sets, index: int, num_envs: int):
        self.whole, self.index, self.num_envs = whole, index, num_envs
        self.rows = slice(index * num_envs, (index + 1) * num_envs)
        for name in ("name", "obs_dim", "action_dim", "critic_obs_dim", "max_episode_steps", "device", "dt",
                     "metric_names"):  # fmt: skip
            setattr(self, name, getattr(whole, name))

    def reset(self) -> Tensor:
        raise NotImplementedError("sets of environments are reset together")

    def step(self, action: Tensor) -> Step:
        raise NotImplementedError("sets of environments are stepped together")

    @property
    def critic_obs(self) -> Tensor | None:
        seen = self.whole.critic_obs
        return None if seen is None else seen[self.rows]

    def state_dict(self) -> dict[str, Any]:
        """That of as many environments made with this set's seed alone."""
        return {key: value[self._mine(key)] for key, value in self.whole.state_dict().items()}

    def load_state_dict(self, state: dict[str, Any]) -> Tensor:
        whole = self.whole.state_dict()
        for key, value in whole.items():
            value[self._mine(key)] = state[key].to(value.device)
        return self.whole.load_state_dict(whole)[self.rows]

    def _mine(self, key: str) -> slice | int:
        return self.index if key in OF_A_SET else self.rows
