"""What mjlab's and Isaac Lab's manager-based environments have in common, behind the contract of a step.

Runs in the interpreter that has one of them (`tasks.simulators.lab`): Python 3.10 or newer, torch and numpy.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import sys
from abc import abstractmethod
from dataclasses import is_dataclass
from typing import Any, Iterator, Mapping, NamedTuple, Sequence

import numpy as np
import torch
from torch import Tensor

from tasks.base import Step, VectorEnv
from tasks.simulators.worker.errors import Mistake, blame, did_you_mean
from tasks.simulators.worker.plugins import import_plugins
from tasks.simulators.worker.serial import UNBOUNDED


class Stepped(NamedTuple):
    """What a foreign step returned, as copies: it rewrites its tensors in place."""

    seen: Tensor  # (N, obs_dim + critic_obs_dim) as returned, of whichever moment that is where an episode ended
    reward: Tensor  # (N,) float32
    terminated: Tensor  # (N,) bool
    truncated: Tensor  # (N,) bool, never with terminated
    extras: dict[str, Any]


class Moved(NamedTuple):
    """Where a step led to."""

    seen: Tensor  # (N, obs_dim + critic_obs_dim): what is seen next
    following: Tensor  # the same of the state that followed the action, which may have been an episode's last
    diverged: Tensor  # (N,) bool: whose numbers are not finite
    lost: Tensor  # (N,) bool: whose successor is not told
    idle: Tensor  # (N,) bool: whose step was no step of an episode


class ManagedEnv(VectorEnv):
    """N environments made by such a package.

    * What the policy sees are its groups of observations one after the other, and so are the critic's where these are
      others. A group that is a dictionary is taken in the order of its terms, each of them row by row.
    * An action in [-1, 1] is passed on times `action_scale` where the task's action space has no bounds, as is the rule
      there; it is mapped onto bounds where there are some.
    * A row flagged both ways terminated. Where the task says that its horizon is finite, so does one that timed out.
    * A row that is no longer finite is truncated, not valid, and reset (`info["diverged_episodes"]` counts).
    * A reward is what the package says: of manager-based tasks a rate times `step_dt`, and so are returns.

    Args:
        env: of it are used `num_envs`, `step`, `reset`, `single_action_space`, `max_episode_length`, `step_dt`.
        groups: names of the groups that the policy and the critic see.

    Raises:
        Mistake: for spaces that can't be learned.
    """

    def __init__(
        self, name: str, env: Any, device: str, groups: tuple[Sequence[str], Sequence[str]], action_scale: float
    ):
        self.name, self.env, self.device, self._groups = name, env, torch.device(device), groups
        self.num_envs, self.dt = int(env.num_envs), float(env.step_dt)
        self.max_episode_steps = int(min(env.max_episode_length, 2**31 - 1))
        if self.max_episode_steps < 1:
            raise Mistake(f"{name} has no time limit: give task.cfg.episode_length_s=20, say")
        self._middle, self._half = self._actions(getattr(env, "single_action_space", None), action_scale)
        self.action_dim = self._middle.numel()
        self._diverged = torch.zeros((), dtype=torch.int64, device=self.device)
        with self._blamed("reset"):
            found = env.reset()[0]
        self.obs_dim, self.critic_obs_dim = (self._columns(found, names).shape[1] for names in groups)
        if tuple(groups[0]) == tuple(groups[1]):
            self.critic_obs_dim = 0
        self._seen = self._observed(found)

    @property
    def critic_obs(self) -> Tensor | None:
        return self._seen[:, self.obs_dim :] if self.critic_obs_dim else None

    @torch.no_grad()
    def reset(self) -> Tensor:
        with self._blamed("reset"):
            self._seen = _finite(self._observed(self.env.reset()[0]))
        return self._seen[:, : self.obs_dim]

    @torch.no_grad()
    def step(self, action: Tensor) -> Step:
        with self._blamed("step"):
            found, reward, *flags, extras = self.env.step(
                self._middle + self._half * action.to(self.device).clamp(-1.0, 1.0)
            )
            reward = reward.to(self.device, torch.float32, copy=True)
            stepped = Stepped(self._observed(found), reward, *self._flags(*flags), extras)
            moved = self._moved(stepped)
        self._diverged += moved.diverged.sum()
        self._seen = seen = _finite(moved.seen)
        following = _finite(moved.following)
        valid = ~(moved.diverged | moved.lost | moved.idle)
        terminated = stepped.terminated & ~moved.diverged & ~moved.idle
        truncated = (stepped.truncated | moved.diverged) & ~moved.idle
        reward = torch.where(moved.diverged | moved.idle, torch.zeros_like(reward), reward)
        d = self.obs_dim
        step = Step(
            seen[:, :d], reward, terminated, truncated, following[:, :d], valid,
            {"diverged_episodes": self._diverged.clone()},
        )  # fmt: skip
        return step._replace(critic_obs=seen[:, d:], next_critic_obs=following[:, d:]) if self.critic_obs_dim else step

    def _flags(self, terminated: Tensor, time_outs: Tensor) -> tuple[Tensor, Tensor]:
        """Who terminated and who was cut, (N,) bool each, never both."""
        if getattr(self.env.cfg, "is_finite_horizon", False):
            return terminated | time_outs, torch.zeros_like(terminated)
        return terminated.clone(), time_outs & ~terminated

    @abstractmethod
    def _moved(self, stepped: Stepped) -> Moved:
        """Where the step led to. On return whoever ended or isn't finite has begun another episode, or will."""

    def _observed(self, found: Any) -> Tensor:
        """What the policy sees and then what the critic sees, as a copy."""
        policy, critic = self._groups
        return self._columns(found, (*policy, *critic) if self.critic_obs_dim else policy)

    def _columns(self, found: Any, names: Sequence[str]) -> Tensor:
        """(N, columns) float32 of groups of observations, as a copy."""
        told = found if isinstance(found, Mapping) else {}
        missing = [name for name in names if name not in told]
        if missing:
            raise Mistake(f"{self.name} shows no group {missing[0]!r} of observations, but {', '.join(told) or 'none'}")
        leaves = [leaf for name in names for leaf in _leaves(name, told[name])]
        for key, leaf in leaves:
            if not isinstance(leaf, Tensor) or leaf.dim() > 3 or (leaf.dim() == 3 and leaf.dtype == torch.uint8):
                shape = tuple(getattr(leaf, "shape", ()))[1:]
                raise Mistake(f"{self.name} observes pictures in {key!r} {shape}: choose one with vector observations")
        return torch.cat([leaf.to(self.device, torch.float32).reshape(self.num_envs, -1) for _, leaf in leaves], 1)

    def _actions(self, space: Any, scale: float) -> tuple[Tensor, Tensor]:
        """Middle and half width of what [-1, 1] becomes, (action_dim,) each."""
        if hasattr(self.env, "possible_agents"):
            raise Mistake(f"{self.name} has several agents: only tasks with one can be learned")
        if not hasattr(space, "low") or not hasattr(space, "high") or not space.shape:
            kind = type(space).__name__
            raise Mistake(f"{self.name} takes {kind} actions: only continuous ones (a Box) can be learned")
        low, high = (np.broadcast_to(np.float64(bound), space.shape).ravel() for bound in (space.low, space.high))
        bounded = (np.abs(low) < UNBOUNDED) & (np.abs(high) < UNBOUNDED)
        if not isinstance(scale, (int, float)) or not math.isfinite(scale) or scale <= 0:
            raise Mistake(f"task.options.action_scale={scale}: must be greater than 0")
        if bounded.any() and scale != 1:
            raise Mistake(f"{self.name} has bounds of its own for actions: leave task.options.action_scale out")
        low, high = np.where(bounded, low, -scale), np.where(bounded, high, scale)
        middle, half = (high + low) / 2, (high - low) / 2
        return tuple(torch.tensor(part, dtype=torch.float32, device=self.device) for part in (middle, half))

    @contextlib.contextmanager
    def _blamed(self, where: str) -> Iterator[None]:
        """What the task raises in here is told in one line that names it."""
        try:
            yield
        except Mistake:
            raise
        except (Exception, SystemExit) as error:
            raise blame(f"{self.name} raised in {where}", error) from error

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self.env.close()


def not_finite(seen: Tensor, reward: Tensor) -> Tensor:
    """Whose numbers are not, (N,) bool."""
    return ~torch.isfinite(seen.sum(1) + reward)


def _finite(seen: Tensor) -> Tensor:
    return torch.nan_to_num(seen, nan=0.0, posinf=0.0, neginf=0.0)


def _leaves(key: str, found: Any) -> Iterator[tuple[str, Any]]:
    """The tensors of a group: itself, or those of a dictionary in its order."""
    if isinstance(found, Mapping):
        for name, part in found.items():
            yield from _leaves(f"{key}.{name}", part)
    else:
        yield key, found


def imported(name: str, here: str) -> str:
    """The id in "module:id", the module being imported first, also from the folder `here`."""
    module, _, key = name.rpartition(":")
    if module:
        sys.path.append(here)
        import_plugins([module])
    return key


def unknown_task(name: str, package: str, known: Sequence[str]) -> Mistake:
    """The package has registered no task of this name."""
    hint = did_you_mean(name, known)
    return Mistake(
        f"{package} has no task {name!r}; {hint}known: {', '.join(sorted(known))}; task=module:id imports the module "
        "that registers it"
    )


def change(cfg: Any, changes: Mapping[str, Any], name: str, way: str = "task.cfg") -> None:
    """Write what the user changed over a task's configuration, of dataclasses and dictionaries.

    Raises Mistake for a field that it hasn't, naming the nearest.
    """
    for key, value in changes.items():
        fields = list(cfg) if isinstance(cfg, dict) else [field for field in vars(cfg) if not field.startswith("_")]
        if key not in fields:
            near = difflib.get_close_matches(key, map(str, fields), n=1)
            hint = f"; did you mean {way}.{near[0]}?" if near else f"; it has {', '.join(map(str, fields))}"
            raise Mistake(f"{way}.{key}: {name} has no such field{hint}")
        old = cfg[key] if isinstance(cfg, dict) else getattr(cfg, key)
        if isinstance(value, Mapping) and (isinstance(old, dict) or is_dataclass(old)):
            change(old, value, name, f"{way}.{key}")
            continue
        value = tuple(value) if isinstance(old, tuple) and isinstance(value, list) else value
        if isinstance(cfg, dict):
            cfg[key] = value
        else:
            setattr(cfg, key, value)
