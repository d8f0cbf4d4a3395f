"""What a task's functions return, held against what they promise: torch would broadcast what is of another shape."""

from __future__ import annotations

from typing import Any, Iterable

import torch
from torch import Tensor

from tasks.base import Step, VectorEnv
from tasks.errors import TaskError
from tasks.task import Start


class Border:
    """The shapes and dtypes of one task's environments. Nothing here looks at a tensor's value.

    Args:
        name: the task's, for the line that tells what is wrong.
        rows: environments.
        dtype: of the state that the task is given: what it computes from that may be float32, or this.
    """

    def __init__(self, name: str, rows: int, dtype: torch.dtype):
        self.name, self.rows = name, rows
        self.floats = {torch.float32, dtype}

    def sizes(self, task: Any) -> None:
        """The whole numbers that a task declares. Raises TaskError."""
        for name, least in (("obs_dim", 1), ("action_dim", 1), ("critic_obs_dim", 0), ("max_episode_steps", 1)):
            value = getattr(task, name, None)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise TaskError(f"{self.name}.{name} is {value!r}: must be a whole number of at least {least}")

    def floating(self, function: str, value: Any, columns: int | None, rule: str, any_float: bool = False) -> Tensor:
        """`value`, which is (N, columns), or (N,) where `columns` is None, of floats. Raises TaskError with `rule`."""
        shape = (self.rows,) if columns is None else (self.rows, columns)
        self._tensor(function, value, rule)
        if value.shape != shape:
            raise TaskError(f"{self.name}.{function} gave {tuple(value.shape)}, but {rule}")
        if not value.is_floating_point() or not (any_float or value.dtype in self.floats):
            kinds = "floats" if any_float else " or ".join(sorted(map(_short, self.floats)))
            raise TaskError(f"{self.name}.{function} gave {_short(value.dtype)}, but {rule}, of {kinds}")
        return value

    def judged(self, found: Any) -> tuple[Tensor, Tensor]:
        """What `judge` returned. Raises TaskError."""
        if not isinstance(found, tuple) or len(found) != 2:
            raise TaskError(f"{self.name}.judge gave {type(found).__name__}, but must give (reward, terminated)")
        reward, terminated = found
        self.floating("judge", reward, None, f"the reward must be one number per environment, ({self.rows},)")
        rule = f"terminated must be one bool per environment, ({self.rows},)"
        self._tensor("judge", terminated, rule)
        if terminated.shape != (self.rows,) or terminated.dtype != torch.bool:
            raise TaskError(
                f"{self.name}.judge gave {_short(terminated.dtype)} {tuple(terminated.shape)}, but {rule}"
            )
        return reward, terminated

    def begun(self, start: Start, model: Any) -> None:
        """What `reset` returned. Raises TaskError."""
        for name, value, columns in (("qpos", start.qpos, model.nq), ("qvel", start.qvel, model.nv)):
            self.floating("reset", value, columns, f"{name} must be ({self.rows}, {columns})", any_float=True)
        self._each("reset", start.memory, "what is remembered must have a row per environment", ())

    def metrics(self, found: dict[str, Tensor], function: str = "metrics") -> dict[str, Tensor]:
        """Extra values for a step's info, (N, ...) or single ones. Raises TaskError."""
        return self._each(function, found, "a metric must be one number, or have a row per environment", (0,))

    def _each(self, function: str, found: Any, rule: str, dims: Iterable[int]) -> dict[str, Tensor]:
        for key, value in found.items():
            self._tensor(function, value, rule)
            if value.dim() not in dims and value.shape[:1] != (self.rows,):
                shape = tuple(value.shape)
                raise TaskError(f"{self.name}.{function} gave {key} {shape}, but {rule}, ({self.rows}, ...)")
        return found

    def _tensor(self, function: str, value: Any, rule: str) -> None:
        if not isinstance(value, Tensor):
            raise TaskError(f"{self.name}.{function} gave {type(value).__name__}, but {rule}, a torch tensor")


def look_at_first_step(env: VectorEnv) -> VectorEnv:
    """`env`, made by a simulator that brings its own environments: its first step is held against `Step`'s promises.

    That step raises TaskError where a tensor has another shape or dtype, which a replay row would hide by broadcasting.
    """
    step = env.step

    def first(action: Tensor) -> Step:
        found = step(action)
        _check(env, found)
        if vars(env).get("step") is first:
            del env.step  # the class's own again
        return found

    env.step = first
    return env


def _check(env: VectorEnv, step: Step) -> None:
    rows, flag, seen = (env.num_envs,), torch.bool, (env.num_envs, env.obs_dim)
    kinds = {"obs": (seen, torch.float32), "reward": (rows, torch.float32), "next_obs": (seen, torch.float32)}
    kinds.update(dict.fromkeys(("terminated", "truncated", "valid"), (rows, flag)))
    if env.critic_obs_dim:
        told = (env.num_envs, env.critic_obs_dim), torch.float32
        kinds.update({"critic_obs": told, "next_critic_obs": told})
    for name, (shape, dtype) in kinds.items():
        value = getattr(step, name, None)
        rule = f"{_short(dtype)} {shape}"
        if not isinstance(value, Tensor):
            raise TaskError(f"{env.name}.step gave {name} as {type(value).__name__}, but it must be a tensor, {rule}")
        if value.shape != shape or value.dtype != dtype:
            found = f"{_short(value.dtype)} {tuple(value.shape)}"
            raise TaskError(f"{env.name}.step gave {name} as {found}, but it must be {rule}")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).replace("torch.", "")
