"""A worker's share of `dm_env.Environment`s: the Control Suite's, or a user's own."""

from __future__ import annotations

import importlib
import math
from typing import Any, Mapping

import numpy as np

from .errors import Mistake, did_you_mean
from .plugins import import_plugins
from .serial import Actions, Outcome, Serial, Single, flat_dim


def make_share(name: str, options: dict[str, Any], seed: int, plugins: list[str], num_envs: int, first: int) -> Serial:
    """Environments number `first` to `first + num_envs - 1`; arguments as in `tasks.simulators.dm_control`."""
    import_plugins(plugins)
    options = dict(options)
    limit = options.pop("max_episode_steps", None)
    make = _factory(name) if ":" in name else load(name)
    seeds = iter(range(seed + first, seed + first + num_envs))
    return Serial(name, lambda: DmEnv(name, make(next(seeds), options), limit), num_envs, first, seed)


def _factory(name: str) -> Any:
    module, _, function = name.partition(":")
    import_plugins([module])
    found = getattr(importlib.import_module(module), function, None)
    if not callable(found):
        raise Mistake(f"{module} has no function {function!r}: task=module:function names one that makes a dm_env")
    return lambda seed, options: found(seed=seed, **options)


def load(name: str) -> Any:
    """What makes a task of the suite, "<domain>-<task>", of a seed and options. Raises Mistake."""
    suite = _import_suite()
    known = {f"{domain}-{task}": (domain, task) for domain, task in suite.ALL_TASKS}
    if name not in known:
        hint = did_you_mean(name, known)
        raise Mistake(
            f"the Control Suite has no task {name!r}; {hint}there are: {', '.join(sorted(known))}; or give "
            "task=module:function"
        )

    def make(seed: int, options: dict[str, Any]) -> Any:
        task = {key: value for key, value in options.items() if key != "environment_kwargs"}
        return suite.load(*known[name], {**task, "random": seed % 2**32}, options.get("environment_kwargs"))

    return make


def _import_suite() -> Any:
    """`dm_control.suite`. dm-control 1.0.50 binds fields that MuJoCo 4 no longer has, and no task needs them."""
    import mujoco
    from dm_control.mujoco.wrapper.mjbindings import sizes

    model = mujoco.MjModel.from_xml_string("<mujoco/>")
    for table, owner in (("mjmodel", model), ("mjdata", mujoco.MjData(model))):
        for field in [field for field in sizes.array_sizes[table] if not hasattr(owner, field)]:
            del sizes.array_sizes[table][field]
    return importlib.import_module("dm_control.suite")


class DmEnv(Single):
    """One `dm_env.Environment`.

    An episode that ends with a discount below 1 terminated; with 1 it was cut by its time limit. (A discount below 1
    elsewhere is not passed on: algo.gamma is the discount.) Observations are flattened in the order of the
    observation_spec, numbers without a dimension too. An environment that begins an episode unasked gives a step that
    is not `valid`.

    Args:
        env: the environment; it is duck-typed, so that dm_env need not be imported.
        limit: control steps after which an episode is cut; None leaves that to the environment.
    """

    def __init__(self, name: str, env: Any, limit: int | None):
        self.name, self._env = name, env
        spec = env.observation_spec()
        self._keys = list(spec) if isinstance(spec, Mapping) else None
        shapes = {key: (part.shape, part.dtype) for key, part in (spec if self._keys else {"": spec}).items()}
        self.obs_dim = flat_dim(shapes, name)
        action = env.action_spec()
        if not all(hasattr(action, bound) for bound in ("minimum", "maximum")):
            raise Mistake(f"{name} takes actions of {type(action).__name__}: only a BoundedArray can be learned")
        low, high = (np.broadcast_to(bound, action.shape) for bound in (action.minimum, action.maximum))
        self.actions = Actions(low, high, action.dtype, name)
        # dm_control ends an episode at the first count of steps that is no less than this
        own = getattr(env, "_step_limit", math.inf)
        self.max_episode_steps = min(limit or math.inf, math.ceil(own) if math.isfinite(own) else math.inf)
        if not math.isfinite(self.max_episode_steps) or self.max_episode_steps < 1:
            raise Mistake(f"{name} has no time limit that it tells: give task.options.max_episode_steps=1000, say")
        self.dt = float(env.control_timestep()) if hasattr(env, "control_timestep") else 1 / 30
        self._steps = 0

    def reset(self, seed: int | None) -> np.ndarray:
        self._steps = 0
        return self._flat(self._env.reset().observation)

    def step(self, action: np.ndarray) -> Outcome:
        found = self._env.step(action)
        self._steps = 0 if found.first() else self._steps + 1
        terminated = found.last() and found.discount is not None and found.discount < 1
        truncated = found.last() or self._steps >= self.max_episode_steps
        return Outcome(self._flat(found.observation), found.reward or 0.0, terminated, truncated, not found.first())

    def _flat(self, obs: Any) -> np.ndarray:
        return np.ravel(obs) if self._keys is None else np.concatenate([np.ravel(obs[key]) for key in self._keys])

    def render(self, width: int, height: int) -> np.ndarray:
        if not hasattr(self._env, "physics"):
            raise Mistake(f"{self.name} has no pictures: a dm_env without physics has nothing to draw")
        return self._env.physics.render(height, width, camera_id=0)

    def close(self) -> None:
        self._env.close()
