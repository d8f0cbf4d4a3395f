"""How many runs are worth training side by side: a simple model of what they save, and the memory they take."""

from __future__ import annotations

import os
from typing import NamedTuple

import torch

from pql import algorithms
from pql.algorithms.base import V_LEARNER
from pql.algorithms.survey import survey
from pql.config import Config, make_env
from pql.config.together import why_not_together
from pql.errors import UserError
from pql.memory.replay import WORD
from pql.roles.build import ring_of
from tasks.base import Spaces, VectorEnv

# Measured on one core with 1 to 16 replicas (README): what an update or a vector step takes before there is any
# arithmetic, which replicas share, and how fast that of small networks and a light simulation goes, which they do not.
UPDATE_S, STEP_S = 1e-3, 2.5e-3
FLOPS, ENV_S = 2e10, 2e-5
MOST = 16  # more save hardly anything
WORTH = 1.25  # what is saved must be worth what a pack costs: its start, and that its cells wait for each other
# Critic updates of all runs. With as many, gradients that were compiled before save 10 s of 66, with twice as many 15
# of 99; to compile them takes 25 s, which a sweep's packs of one shape pay once.
COMPILED = 30_000


class Size(NamedTuple):
    """How many runs side by side are worth it, and for how many there is memory."""

    best: int
    fits: int


def size_of(cfg: Config, at_a_time: int = 1) -> Size:
    """Of packs of runs like this one, `at_a_time` of them on this machine.

    Raises:
        UserError, TaskError: none can be trained side by side.
    """
    why = why_not_together([cfg])
    if why:
        raise UserError(why)
    env = make_env(cfg, 1, [0, 1])  # raises TaskError where a simulator knows no such sets
    env.close()
    free = free_memory(env.device)
    fits = max(1, int(free / (ring_bytes(cfg, env.spaces) * at_a_time))) if free is not None else 1 << 20
    flops = survey(algorithms.make(cfg.algo, env.spaces)).flops[V_LEARNER]
    pays = cfg.device == "cpu" and not cfg.compile and saves(cfg, flops, MOST) >= WORTH  # a GPU was not measured
    return Size(MOST if pays else 1, fits)


def compiles(cfg: Config, count: int) -> bool:
    """Whether the gradients of so many runs are compiled: where that is asked for, or the runs are long enough."""
    return cfg.device == "cpu" and (cfg.compile or count * cfg.algo.utd * cfg.max_env_steps >= COMPILED)


def ring_bytes(cfg: Config, spaces: Spaces) -> int:
    """What a run's replay ring takes."""
    layout = ring_of(cfg, spaces)
    return layout.slots * layout.words * WORD


def demand_room(cfg: Config, env: VectorEnv, count: int) -> None:
    """Raises UserError where the rings of so many runs have no room in the memory where they will lie."""
    ring, free = ring_bytes(cfg, env.spaces), free_memory(env.device)
    if free is not None and count * ring > free:
        raise UserError(
            f"the replay rings of {count} runs side by side need {count * ring / 2**20:.0f} MiB and "
            f"{free / 2**20:.0f} MiB are free: take at most {max(1, free // ring)} runs, or lower algo.replay_size"
        )


def saves(cfg: Config, flops: float, size: int) -> float:
    """How many times as fast runs are side by side as one after the other; `flops` of a critic update."""
    updates = cfg.algo.utd * cfg.num_envs * (1 + 1 / cfg.algo.critic_updates_per_policy_update)
    shared = STEP_S + updates * UPDATE_S
    own = cfg.num_envs * ENV_S + updates * flops / FLOPS
    return (shared + own) / (shared / size + own)


def free_memory(device: torch.device) -> int | None:
    """Bytes on a GPU or in the host's memory, as far as the system says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
