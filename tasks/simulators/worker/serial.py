"""A worker's share of single environments, stepped one after the other."""

from __future__ import annotations

import contextlib
import random
import sys
from abc import ABC, abstractmethod
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence

import numpy as np

from .block import Block
from .errors import Mistake, blame
from .told import Told

UNBOUNDED = 1e9  # a bound of this size stands for none


class Outcome(NamedTuple):
    """What one environment's step returned."""

    obs: np.ndarray  # (obs_dim,) the true successor, where the episode ended its terminal observation
    reward: float
    terminated: bool
    truncated: bool
    valid: bool = True  # False where the environment began another episode by itself
    info: Mapping[str, Any] = {}  # what else is told


class Single(ABC):
    """One environment of a foreign package."""

    name: str
    obs_dim: int
    max_episode_steps: int
    dt: float  # seconds per control step
    actions: Actions

    @abstractmethod
    def reset(self, seed: int | None) -> np.ndarray:
        """Begin an episode: its first observation (obs_dim,). The very first call gives the seed."""

    @abstractmethod
    def step(self, action: np.ndarray) -> Outcome:
        """One control step under an action in the environment's own units. After an end `reset` is called."""

    @abstractmethod
    def render(self, width: int, height: int) -> np.ndarray:
        """A picture, (h, w, 3) uint8, of about this size."""

    def close(self) -> None:
        """Release what is held."""


class Actions:
    """The affine map from [-1, 1] onto an action space's bounds.

    Args:
        low, high: bounds, (...) of any shape.
        dtype: of the actions that the environment takes.
        name: of the environment, for messages.

    Raises:
        Mistake: for a space without bounds (or with bounds of 1e9 and more, which stand for none), or of integers.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, dtype: Any, name: str):
        self.shape, self.dtype = np.shape(low), np.dtype(dtype)
        self.low, self.high = (np.asarray(bound, np.float64).ravel() for bound in (low, high))
        self.dim = len(self.low)
        if not np.issubdtype(self.dtype, np.floating) or not self.dim:
            raise Mistake(f"{name} takes actions of {self.dtype} {self.shape}: only continuous ones can be learned")
        if not (np.abs(self.low).max() < UNBOUNDED and np.abs(self.high).max() < UNBOUNDED):
            raise Mistake(
                f"{name} has an action space without bounds, onto which [-1, 1] cannot be mapped: register a version "
                "with bounds (gymnasium.wrappers.RescaleAction, or minimum and maximum in its action_spec)"
            )
        self._middle, self._half = (self.high + self.low) / 2, (self.high - self.low) / 2

    def __call__(self, action: np.ndarray) -> np.ndarray:
        """(N, dim) float32, clipped to [-1, 1] -> (N, *shape) within the bounds."""
        # Rounding may leave the bounds, and what lies outside [-1, 1] does: one clip for both.
        exact = self._middle + self._half * action
        exact = np.minimum(np.maximum(exact, self.low), self.high)
        return exact.astype(self.dtype).reshape(-1, *self.shape)


class Serial:
    """`num_envs` environments, each step of which fills the rows of a block as `tasks.base.Step` says.

    An environment whose episode ended is reset within the step, so that nothing is lost. Of an end flagged both ways
    the termination counts. An environment that is no longer finite is truncated, not valid, and reset.

    Args:
        name: of the task, for messages.
        make: makes one environment.
        num_envs: how many.
        first: the number of the first of them among all workers' environments.
        seed: environment i of all begins with seed + i; global generators of this process with the first one's.
        metrics: of `info`, see `Told`.

    Raises:
        Broke: where an environment raises, here or later.
    """

    def __init__(self, name: str, make: Callable[[], Single], num_envs: int, first: int, seed: int,
                 metrics: Sequence[str] = ()):  # fmt: skip
        self.name, self.num_envs, self._first = name, num_envs, first
        seed_globals(seed + first)
        with self._blamed(lambda: "cannot be made"):
            self.envs = [make() for _ in range(num_envs)]
        one = self.envs[0]
        self.obs_dim, self.action_dim = one.obs_dim, one.actions.dim
        self.max_episode_steps, self.dt = one.max_episode_steps, one.dt
        self.told = Told(metrics, num_envs, name)
        self._seeds: list[int | None] = [seed + first + index for index in range(num_envs)]

    def reset(self, rows: Block) -> None:
        at, seeds, self._seeds = 0, self._seeds, [None] * self.num_envs
        with self._blamed(lambda: f"(environment {self._first + at}) raised"):
            for at, env in enumerate(self.envs):
                rows.obs[at] = env.reset(seeds[at])
                rows.beats[at] += 1
        self.told.reset(rows)

    def step(self, rows: Block) -> None:
        at, actions = 0, self.envs[0].actions(rows.action)
        _, obs, following, reward, terminated, truncated, valid, beats, *_ = rows
        infos = []
        with self._blamed(lambda: f"(environment {self._first + at}) raised"):
            for at, env in enumerate(self.envs):
                following[at], reward[at], terminated[at], truncated[at], valid[at], info = env.step(actions[at])
                infos.append(info)
                beats[at] += 1
            diverged = ~np.isfinite(following.sum(1) + reward)
            if self.told.count:
                self.told.step(infos, terminated | truncated | diverged, rows)
                rows.metrics[diverged] = np.nan
            obs[:] = following
            if (terminated | truncated | diverged).any():
                for at in np.flatnonzero(terminated | truncated | diverged):
                    obs[at] = self.envs[at].reset(None)
                    beats[at] += 1
                following[diverged] = 0.0
                np.add(rows.diverged, diverged, rows.diverged)
                terminated &= ~diverged
                truncated |= diverged
                truncated &= ~terminated
                valid &= ~diverged
        reward[~valid] = 0.0

    def render(self, width: int = 640, height: int = 480, index: int = 0) -> np.ndarray:
        return np.asarray(self.envs[index].render(width, height), np.uint8)

    def close(self) -> None:
        for env in self.envs:
            with contextlib.suppress(Exception):
                env.close()

    @contextlib.contextmanager
    def _blamed(self, what: Callable[[], str]) -> Iterator[None]:
        """What the user's own code raises in here is told in one line that names it."""
        try:
            yield
        except Mistake:
            raise
        except (Exception, SystemExit) as error:
            raise blame(f"{self.name} {what()}", error) from error


def seed_globals(seed: int) -> None:
    """Seed the global generators of Python, numpy and, where something has imported it, torch: some draw from these."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (theirs, not ours)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def flat_dim(shapes: dict[str, tuple[tuple[int, ...], Any]], name: str) -> int:
    """Numbers in observations of these shapes and dtypes. Raises Mistake for pictures, which no network here sees."""
    for key, (shape, dtype) in shapes.items():
        if len(shape) > 2 or (len(shape) == 2 and np.dtype(dtype) == np.uint8):
            part = f" in {key!r}" if key else ""
            raise Mistake(f"{name} observes pictures{part} {shape}: choose a version with vector observations")
    return sum(int(np.prod(shape)) for shape, _ in shapes.values())
