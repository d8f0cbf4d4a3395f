"""rsl_rl (mjlab, Isaac Lab, legged_gym): iterations to env steps, without the episodes that random ages cut short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from scaling.curves.readers.base import Ask, EventReader, Files, Given, Log, Source
from scaling.curves.readers.events import EventFile
from scaling.errors import InputError

FPS, RETURN, LENGTH = "Perf/total_fps", "Train/mean_reward", "Train/mean_episode_length"
EPISODES = 100  # that RETURN and LENGTH average over
FULL = 0.995  # share of the longest mean length from which on no episode was cut short


class RslRl(EventReader):
    """Its first episodes of every session are no returns: environments begin at random ages (init_at_random_ep_len)."""

    library = "rsl_rl"

    def matches(self, tags: set[str]) -> bool:
        return FPS in tags and bool({RETURN, "Loss/value", "Loss/value_function"} & tags)

    def read(self, files: Files, source: Source, given: Given) -> Log:
        log, params = files.events(source.path), read_params(source.path / "params")
        settings = params["settings"]
        log.sessions(FPS)  # refuses files written side by side
        limits = limits_of(log.files, params, given)
        parts, notes, dropped, done, before = [], [], 0, 0.0, None
        for file in (file for file in log.files if FPS in file.scalars):
            iterations = file.scalars[FPS][:, 0]
            if before is not None:
                # A checkpoint's counter is one iteration short: the iteration that it was saved after is logged again.
                first, last, size = before
                done += (max(min(iterations[0], last) - first, -1.0) + 1.0) * size
                if iterations[0] <= last:
                    notes.append(f"{file.path.name} resumes at iteration {iterations[0]:g}, which counts a second time")
            size = steps_of_iteration(file, params["steps"], given, settings)
            points = file.scalars.get(given.get("return_tag", RETURN), np.empty((0, 2)))
            steps = (points[:, 0] - iterations[0] + 1.0) * size
            keep = steps >= whole_from(file, size, size / (params["steps"] or size), *limits)
            dropped += int((~keep).sum())
            parts.append(np.column_stack([done + steps, points[:, 1]])[keep])
            before = (iterations[0], iterations[-1], size)
        gpus = size / params["steps"] if params["steps"] else 1.0
        if gpus > 1:
            settings.update(batch_size=settings["batch_size"] * gpus, utd=settings["utd"] / gpus)
            notes.append(f"its iterations have the env steps of {gpus:g} GPUs, each with the environments of env.yaml")
        if dropped:
            notes.append(f"{dropped} points at its sessions' starts are of episodes cut short by random ages: left out")
        steps, returns = np.concatenate(parts).T
        if not len(steps):
            raise InputError(
                f"its {dropped} points are all of episodes cut short by random ages: no session is long enough; "
                'where sessions begin with whole episodes say meta="max_episode_length=0"'
                if dropped
                else f"it has no points under {RETURN}"
            )
        return Log(steps, returns, settings, notes, on_policy=True)


class PlainLoader(yaml.SafeLoader):
    """Tags such as !!python/tuple and !!python/name are passed over: the plain node is the value."""


def plain(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)


PlainLoader.add_constructor(None, plain)


def read_params(folder: Path) -> dict[str, Any]:
    """What mjlab's or Isaac Lab's agent.yaml and env.yaml tell; None and no settings where they are not there.

    Keys: settings, num_envs, max_episode_length (in steps), steps (of an iteration, of one process).
    """
    out: dict[str, Any] = {"settings": {}, "num_envs": None, "max_episode_length": None, "steps": None}
    if not (folder / "agent.yaml").exists() or not (folder / "env.yaml").exists():
        return out
    try:
        agent, env = (yaml.load((folder / f"{name}.yaml").read_text(), PlainLoader) for name in ("agent", "env"))
        algorithm, sim = agent["algorithm"], env["sim"]
        num_envs, steps = env["scene"]["num_envs"], agent["num_steps_per_env"]
        step_dt = env["decimation"] * (sim["mujoco"]["timestep"] if "mujoco" in sim else sim["dt"])
        updates = algorithm["num_learning_epochs"] * algorithm["num_mini_batches"]
        settings = {
            "task": agent["experiment_name"],
            "seed": agent["seed"],
            "learning_rate": algorithm["learning_rate"],
            "batch_size": num_envs * steps / algorithm["num_mini_batches"],
            "utd": updates / (num_envs * steps),
        }
        out.update(settings=settings, num_envs=num_envs, steps=num_envs * steps,
                   max_episode_length=int(np.ceil(env["episode_length_s"] / step_dt - 1e-9)))  # fmt: skip
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(f"params/agent.yaml or env.yaml cannot be read ({type(error).__name__}: {error})") from None
    return out


def steps_of_iteration(file: EventFile, told: float | None, given: Given, settings: dict[str, Any]) -> float:
    """Env steps of one iteration over all environments and GPUs.

    total_fps is those by the time of the iteration, cut to an integer: every point bounds them from both sides.
    """
    if "env_steps_per_step" in given:
        return float(given["env_steps_per_step"])
    scalars = file.scalars
    collection = scalars.get("Perf/collection_time", scalars.get("Perf/collection time"))
    learning, fps = scalars.get("Perf/learning_time"), scalars[FPS][:, 1]
    if collection is None or learning is None or not len(collection) == len(learning) == len(fps):
        if told is None:
            raise Ask("env_steps_per_step", "environments x steps of an iteration", settings)
        return told
    seconds = collection[:, 1] + learning[:, 1]
    low, high = (fps * seconds).max() * (1 - 1e-6), ((fps + 1) * seconds).min() * (1 + 1e-6)
    if told is not None:
        gpus = max(1, round(high / told))
        return told * gpus if low <= told * gpus <= high else told
    if int(np.ceil(low)) != int(np.floor(high)):
        raise Ask("env_steps_per_step", f"environments x steps of an iteration, from {low:.0f} to {high:.0f} here",
                  settings)  # fmt: skip
    return float(np.ceil(low))


def limits_of(files: list[EventFile], params: dict[str, Any], given: Given) -> tuple[float | None, float | None]:
    """(env steps of a session until its mean return is of whole episodes, None), or (None, a whole episode's length).

    The length is told by the log where the mean length stays at its highest: that is the time limit.
    """
    longest = given.get("max_episode_length", params["max_episode_length"])
    num_envs = given.get("num_envs", params["num_envs"])
    if longest == 0:
        return 0.0, None
    if longest is not None and num_envs is not None:
        # Every environment ends its cut episode within `longest` steps; EPISODES whole ones after that fill the mean.
        return longest * (num_envs + EPISODES), None
    lengths = np.concatenate([file.scalars.get(LENGTH, np.empty((0, 2)))[:, 1] for file in files])
    at_limit = lengths >= FULL * lengths.max(initial=0.0)
    if at_limit.sum() < 5 or at_limit.mean() < 0.1:
        key = "max_episode_length" if longest is None else "num_envs"
        raise Ask(key, "the first episodes of each session are cut short by random ages, for as long as "
                       "max_episode_length and num_envs tell; max_episode_length=0 if none are",
                  params["settings"])  # fmt: skip
    return None, float(lengths.max())


def whole_from(file: EventFile, size: float, gpus: float, steps: float | None, length: float | None) -> float:
    """The env step of a session from which on its mean return is of whole episodes; inf if it never is.

    size: env steps of an iteration. steps, length: as limits_of tells, of one GPU.
    """
    if steps is not None:
        return steps * gpus
    lengths = file.scalars.get(LENGTH, np.empty((0, 2)))
    reached = lengths[lengths[:, 1] >= FULL * length, 0]
    return (reached[0] - file.scalars[FPS][0, 0] + 1.0) * size if len(reached) else np.inf
