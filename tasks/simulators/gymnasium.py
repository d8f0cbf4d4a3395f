"""Anybody's environments that are registered with Gymnasium, single or vectorised, behind the contract of a step."""

from __future__ import annotations

from typing import Any, Sequence

import torch

from tasks.base import VectorEnv
from tasks.simulators import interpreter
from tasks.simulators.pool import Pool


def make_env(
    name: str,
    options: dict[str, Any],
    num_envs: int,
    device: torch.device,
    seed: int,
    threads: int | None,
    step_timeout: float,
    python: str | None,
    plugins: Sequence[str],
    metrics: Sequence[str],
) -> VectorEnv:
    """`num_envs` environments of the id `name` in a pool of worker processes; called by `tasks.make`.

    Nothing of Gymnasium or of a user's is imported in this process.

    Args:
        options: arguments of `gymnasium.make` (max_episode_steps, and what the environment's constructor takes); with
            `vectorization_mode` among them those of `gymnasium.make_vec`, one vector environment in each worker.
        python: the workers' interpreter, which needs gymnasium and what it needs; None is this one.
        metrics: of `info`, see `tasks.simulators.worker.told`.
    """
    here = "pip install .[gym], or name one that has it by sim.python=<its virtual environment>/bin/python"
    interpreter.look("gymnasium", ["gymnasium", "numpy"], "pip install gymnasium", here, python)
    arguments = {"name": name, "options": options, "seed": seed, "plugins": list(plugins), "metrics": list(metrics)}
    return Pool(name, "gymnasium_share", arguments, num_envs, threads, device, step_timeout, python, metrics)
