"""Anybody's `dm_env.Environment`, the Control Suite's among them, behind the contract of a step."""

from __future__ import annotations

from typing import Any, Sequence

import torch

from tasks.base import VectorEnv
from tasks.simulators import interpreter
from tasks.simulators.pool import Pool

PORT = "dmc/"  # begins the names of tasks.suite.dmc


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
) -> VectorEnv:
    """`num_envs` environments in a pool of worker processes; called by `tasks.make`.

    Args:
        name: "<domain>-<task>" of the suite ("cartpole-swingup"; its port's name, "dmc/cartpole-swingup", too), or
            "module:function" of a user's.
        options: of the suite, arguments of the task (time_limit, ...), with `environment_kwargs` among them; else
            arguments of the function, which gets `seed=` too. `max_episode_steps` is the time limit in control steps,
            where the environment has none or a later one.
        python: the workers' interpreter; None is this one.
    """
    packages, install = (["numpy"], "numpy") if ":" in name else (["dm_control", "numpy"], "dm-control")
    here = "pip install .[dmc], or name one that has it by sim.python=<its virtual environment>/bin/python"
    interpreter.look("dm_control", packages, f"pip install {install}", here, python)
    name = name[len(PORT) :] if name.startswith(PORT) else name
    arguments = {"name": name, "options": options, "seed": seed, "plugins": list(plugins)}
    return Pool(name, "dm_share", arguments, num_envs, threads, device, step_timeout, python)
