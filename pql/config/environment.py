"""A configuration's environments."""

from __future__ import annotations

import tasks
from pql.config.schema import Config


def make_env(cfg: Config, num_envs: int, seed: int, threads: int | None = None) -> tasks.VectorEnv:
    """The configuration's task. Raises TaskError."""
    options = {**cfg.task.options, **({"cfg": cfg.task.cfg} if cfg.task.cfg else {})}
    sim = cfg.sim
    return tasks.make(
        cfg.task.name, num_envs, sim.name, cfg.device, seed, threads, sim.contacts_per_env, sim.step_timeout,
        cfg.plugins, sim.python, sim.metrics, **options,
    )  # fmt: skip
