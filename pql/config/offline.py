"""What the keys of a run mean where it learns from a fixed dataset (`data=`)."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import tasks
from pql.config.schema import Config
from pql.errors import UserError
from pql.memory import dataset
from pql.memory.dataset import Steps

ALL = sys.maxsize  # as max_env_steps: as many transitions as there are
PASSES = 256.0  # a million updates of 256 rows on a million transitions, as is usual
EVERY = {"eval_interval": 5_000, "log_interval": 1_000, "checkpoint_interval": 50_000}  # critic updates
OF_ENVIRONMENTS = ("num_envs", "algo.replay_size", "algo.warmup_steps", "algo.critic_updates_per_step", "lead_steps",
                   "algo.reset_env_steps")  # fmt: skip


def task_words(given: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The words that choose the task a dataset says it is of, and the task's options. Raises UserError."""
    name, sim, options = dataset.task_of(str(given["data"]))
    words = [f"task='{name}'"]
    if sim is not None and "sim" not in given:
        words.append(f"sim={sim}")
    return words, options


def resolve(cfg: Config, given: dict[str, Any], fresh: bool) -> None:
    """Keys that count environments and steps, for a run without any; before the ratio is. Raises UserError.

    Args:
        fresh: the run begins; else it has been through `size` already.
    """
    a = cfg.algo
    for name in OF_ENVIRONMENTS:
        if given.get(name):
            raise UserError(f"{name}={given[name]}: with data= nothing is stepped; drop it (passes= says how long)")
    if "passes" in given and "algo.utd" in given:
        raise UserError("passes and algo.utd (x algo.batch_size) say the same of a dataset: give one of them")
    if cfg.passes is not None and not 0 < cfg.passes < math.inf:
        raise UserError(f"passes={cfg.passes}: must be a finite number greater than 0")
    if "max_env_steps" in given and not fresh and cfg.max_env_steps != cfg.num_envs:
        raise UserError(f"run_dir={cfg.run_dir} learns from {cfg.num_envs} transitions of its dataset, not from "
                        f"{cfg.max_env_steps}: drop max_env_steps, or name another run_dir")  # fmt: skip
    if (Path(cfg.data) / "metadata.json").is_file() or (Path(cfg.data) / "data" / "metadata.json").is_file():
        cfg.data = str(Path(cfg.data).resolve())
    if cfg.runtime == "auto":
        cfg.runtime = "sync"
    if fresh:
        for name, every in EVERY.items():
            if name not in given:
                setattr(cfg, name, every)
        cfg.num_envs = 1
        a.warmup_steps = max(a.warmup_steps, a.n_step)  # there is none, whatever the rule between these two
        if "max_env_steps" not in given:
            cfg.max_env_steps = ALL
    if "algo.utd" in given:
        cfg.passes = a.utd * a.batch_size
    else:
        cfg.passes = PASSES if cfg.passes is None else cfg.passes
        a.utd = cfg.passes / max(1, a.batch_size)
    a.critic_updates_per_step = a.utd * cfg.num_envs


def size(cfg: Config, steps: Steps, spaces: tasks.Spaces) -> None:
    """Set what follows from the dataset: all of it is one vector step of so many environments. Raises UserError."""
    a, count = cfg.algo, len(steps.reward)
    seen, actions = steps.obs.shape[1], steps.action.shape[1]
    if (seen, actions) != (spaces.seen_dim, spaces.action_dim):
        raise UserError(
            f"data={cfg.data} has {seen} observations and {actions} actions in a step, task={cfg.task.name} "
            f"{spaces.seen_dim} and {spaces.action_dim}: name the task that the data is of"
        )
    if a.batch_size > count:
        raise UserError(f"algo.batch_size={a.batch_size} is larger than the dataset of {count} transitions: shrink it")
    if a.utd * count < 1:
        raise UserError(f"passes={cfg.passes:g} over {count} transitions are not one update of {a.batch_size}: do more")
    cfg.num_envs = cfg.max_env_steps = a.replay_size = count
    a.critic_updates_per_step = a.utd * count
    cfg.checkpoint_replay = False  # it is the dataset
