"""A worker's share of environments registered with Gymnasium: single ones, or one vector environment."""

from __future__ import annotations

import contextlib
import difflib
from typing import Any, Iterator, Sequence

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector.utils import iterate

from .block import Block
from .errors import Mistake, blame
from .plugins import import_plugins
from .serial import Actions, Outcome, Serial, Single, flat_dim, seed_globals
from .told import Told

NEXT_STEP, SAME_STEP, DISABLED = "NextStep", "SameStep", "Disabled"  # gymnasium.vector.AutoresetMode's, from 1.1 on


def make_share(
    name: str, options: dict[str, Any], seed: int, plugins: list[str], num_envs: int, first: int,
    metrics: Sequence[str] = (),
) -> Any:  # fmt: skip
    """Environments number `first` to `first + num_envs - 1`; arguments as in `tasks.simulators.gymnasium`."""
    import_plugins(plugins)
    spec = _spec(name)
    if "vectorization_mode" not in options and spec.entry_point is not None:
        if metrics and not first:
            _look_at_info(name, spec, options, metrics)
        return Serial(name, lambda: GymEnv(name, spec, options), num_envs, first, seed, metrics)
    seed_globals(seed + first)
    try:
        made = gymnasium.make_vec(name, num_envs, **options)
    except Exception as error:
        raise blame(f"{name} cannot be made", error) from error
    return GymVector(name, made, seed + first, metrics)


def _spec(name: str) -> Any:
    """What is registered under an id, "module:id" imports the module first. Raises Mistake naming the nearest."""
    module, _, key = name.rpartition(":")
    if module:
        import_plugins([module])
    known = sorted(gymnasium.registry)
    if key not in known:
        near = difflib.get_close_matches(key.lower(), [k.lower() for k in known], n=1, cutoff=0.5)
        # of an id without a version, the newest
        hint = next((f"did you mean {k}? " for k in reversed(known) if [k.lower()] == near), "")
        hint = next((f"did you mean {k}? " for k in reversed(known) if k.rpartition("-v")[0] == key), hint)
        raise Mistake(
            f"nothing is registered with Gymnasium as {key!r}; {hint}what registers it is imported by plugins=[module] "
            "or task=module:id"
        )
    return gymnasium.registry[key]


def _look_at_info(name: str, spec: Any, options: dict[str, Any], metrics: Sequence[str]) -> None:
    """Step an environment of its own once, so that a name misspelt is told before anything is compiled or trained."""
    try:
        env = GymEnv(name, spec, options)
        env.reset(0)
        info = env.step(env.actions(np.zeros((1, env.actions.dim)))[0]).info
        env.close()
    except Mistake:
        raise
    except (Exception, SystemExit) as error:
        raise blame(f"{name} cannot be made and stepped", error) from error
    Told(metrics, 1, name).look([info], False)


class Observations:
    """Flattens what a space's environments show, as `gymnasium.spaces.flatten` does.

    A dictionary's entries follow one another in the order of its space, which Gymnasium sorts by key unless it was made
    from an OrderedDict; discrete entries become one-hot, arrays are taken row by row.

    Raises:
        Mistake: for pictures, and for spaces of no fixed size (sequences, graphs, text).
    """

    def __init__(self, space: Any, name: str):
        self._space = space
        if not space.is_np_flattenable:
            raise Mistake(f"{name} observes {type(space).__name__}, which has no fixed size: choose another version")
        flat_dim(self._boxes(space, ""), name)
        self.dim = spaces.flatdim(space)
        self._plain = isinstance(space, spaces.Box)

    def _boxes(self, space: Any, key: str) -> dict[str, Any]:
        inner = getattr(space, "spaces", None)
        if inner is None:
            return {key: (space.shape, space.dtype)} if space.shape is not None else {}
        found: dict[str, Any] = {}
        for name, part in inner.items() if hasattr(inner, "items") else enumerate(inner):
            found.update(self._boxes(part, str(name)))
        return found

    def __call__(self, obs: Any) -> np.ndarray:
        """(dim,) of one environment's observation."""
        return np.asarray(obs).ravel() if self._plain else spaces.flatten(self._space, obs)


def _actions(space: Any, name: str) -> Actions:
    if not isinstance(space, spaces.Box):
        raise Mistake(
            f"{name} takes {type(space).__name__} actions: only continuous ones (a Box) can be learned; "
            "is there a continuous version of it?"
        )
    return Actions(space.low, space.high, space.dtype, name)


def _limit(spec: Any, name: str) -> int:
    steps = None if spec is None else spec.max_episode_steps or spec.kwargs.get("max_episode_steps")
    if not steps or steps < 1:
        raise Mistake(f"{name} has no time limit that it tells: give task.options.max_episode_steps=1000, say")
    return int(steps)


def _dt(env: Any) -> float:
    """Seconds per control step: the environment's `dt`, else a frame's length, else 1/30, for videos' sake."""
    dt = getattr(env.unwrapped, "dt", None)
    fps = env.metadata.get("render_fps")
    return float(dt) if isinstance(dt, (int, float)) and dt > 0 else 1 / float(fps or 30)


class GymEnv(Single):
    """One environment made by `gymnasium.make`, drawn by its rgb_array where it has that."""

    def __init__(self, name: str, spec: Any, options: dict[str, Any]):
        self.name = name
        self._env = gymnasium.make(name, **{**_rgb_array(spec), **options})
        self._flat = Observations(self._env.observation_space, name)
        self.actions, self.obs_dim = _actions(self._env.action_space, name), self._flat.dim
        self.max_episode_steps, self.dt = _limit(self._env.spec, name), _dt(self._env)

    def reset(self, seed: int | None) -> np.ndarray:
        if seed is not None:
            self._env.action_space.seed(seed)
        return self._flat(self._env.reset(seed=seed)[0])

    def step(self, action: np.ndarray) -> Outcome:
        obs, reward, terminated, truncated, info = self._env.step(action)
        if getattr(reward, "ndim", 0):  # some give an array of one
            if np.size(reward) != 1:
                raise Mistake(f"{self.name} gives rewards of shape {np.shape(reward)}: only one number can be learned")
            reward = np.ravel(reward)[0]
        return Outcome(self._flat(obs), reward, terminated, truncated, True, info)

    def render(self, width: int, height: int) -> np.ndarray:
        if self._env.render_mode != "rgb_array":
            raise Mistake(f"{self.name} doesn't say that it has pictures: try task.options.render_mode=rgb_array")
        return self._env.render()

    def close(self) -> None:
        self._env.close()


def _rgb_array(spec: Any) -> dict[str, str]:
    creator = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    modes = getattr(creator, "metadata", {}).get("render_modes", ())
    return {"render_mode": "rgb_array"} if "rgb_array" in modes else {}


class GymVector:
    """A `gymnasium.vector.VectorEnv`, of whichever autoreset mode its metadata says, as a share of the environments.

    * NextStep: the step after an episode's last only resets; it is not `valid` and its reward is 0.
    * SameStep: the terminal observation is the one in `final_obs`; where that is missing the step is not `valid`.
    * Disabled: rows that ended are reset within the step, by `reset_mask`.

    Args:
        envs: the vector environment; environment i begins with seed + i.
    """

    def __init__(self, name: str, envs: Any, seed: int, metrics: Sequence[str] = ()):
        self.name, self.num_envs, self._envs = name, envs.num_envs, envs
        mode = envs.metadata.get("autoreset_mode")
        self._mode = getattr(mode, "value", mode)
        if self._mode not in (NEXT_STEP, SAME_STEP, DISABLED):
            raise Mistake(
                f"{name}'s vector environment doesn't say in metadata['autoreset_mode'] when it resets; add that"
            )
        self._flat = Observations(envs.single_observation_space, name)
        self._actions = _actions(envs.single_action_space, name)
        self.obs_dim, self.action_dim = self._flat.dim, self._actions.dim
        self.max_episode_steps, self.dt = _limit(envs.spec, name), _dt(envs)
        self._seed: int | None = seed
        self.told = Told(metrics, self.num_envs, name)

    def reset(self, rows: Block) -> None:
        self.told.reset(rows)
        seed, self._seed = self._seed, None
        self._ended = np.zeros(self.num_envs, bool)  # NextStep: who will be reset by the next step
        with self._blamed("reset"):
            rows.obs[:] = self._rows(self._envs.reset(seed=seed)[0])
        np.add(rows.beats, 1, rows.beats)

    def step(self, rows: Block) -> None:
        with self._blamed("step"):
            found, rows.reward[:], rows.terminated[:], rows.truncated[:], infos = self._envs.step(
                self._actions(rows.action)
            )
            seen = self._rows(found)
        ended = rows.terminated | rows.truncated
        rows.next_obs[:], rows.valid[:] = seen, True
        if self.told.count:
            self._tell(infos, ended, rows)
        if self._mode == NEXT_STEP:
            for field in (rows.reward, rows.terminated, rows.truncated, rows.valid):
                field[self._ended] = 0
            self._ended = ended
        elif self._mode == SAME_STEP:
            for at in np.flatnonzero(ended):
                last = _final(infos, at)
                rows.valid[at] = last is not None
                rows.next_obs[at] = rows.obs[at] if last is None else self._flat(last)
        elif ended.any():
            with self._blamed("reset"):
                first = self._rows(self._envs.reset(options={"reset_mask": ended})[0])
            seen = np.where(ended[:, None], first, seen)
        np.logical_and(rows.truncated, ~rows.terminated, rows.truncated)
        rows.obs[:] = seen
        np.add(rows.beats, 1, rows.beats)

    def _tell(self, infos: dict[str, Any], ended: np.ndarray, rows: Block) -> None:
        final = infos.get("final_info", {}) if self._mode == SAME_STEP else infos
        told = [_row(final if over else infos, at) for at, over in enumerate(ended)]
        reset = self._ended if self._mode == NEXT_STEP else np.zeros_like(ended)
        self.told.step([{} if new else info for new, info in zip(reset, told)], ended & ~reset, rows)

    def _rows(self, obs: Any) -> np.ndarray:
        """(N, obs_dim) float32, a copy: a vector environment may use its memory again."""
        return np.stack([self._flat(row) for row in iterate(self._envs.observation_space, obs)]).astype(np.float32)

    @contextlib.contextmanager
    def _blamed(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise blame(f"{self.name}'s vector environment raised in {what}", error) from error

    def render(self, width: int = 640, height: int = 480, index: int = 0) -> np.ndarray:
        return np.asarray(self._envs.render()[index], np.uint8)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._envs.close()


def _row(infos: dict[str, Any], at: int) -> dict[str, Any]:
    """One environment's info: of what is told in arrays, where `_<key>`, if there, says that it is told."""
    arrays = {key: values for key, values in infos.items() if isinstance(values, np.ndarray)}
    told = {key: values for key, values in arrays.items() if not key.startswith("_") and values.ndim}
    return {key: values[at] for key, values in told.items() if f"_{key}" not in arrays or arrays[f"_{key}"][at]}


def _final(infos: dict[str, Any], at: int) -> Any:
    """One environment's terminal observation, as single environments give it; None where it is not told."""
    final, told = infos.get("final_obs"), infos.get("_final_obs")
    if final is None or (told is not None and not told[at]):
        return None
    if isinstance(final, dict):
        return {key: part[at] for key, part in final.items()}
    return final[at]
