"""How many runs are worth training side by side: a simple model of what they save, and the memory they take."""

from __future__ import annotations

import os
from typing import NamedTuple

from pql import algorithms
from pql.algorithms.base import V_LEARNER
from pql.algorithms.survey import survey
from pql.config import Config, make_env
from pql.config.together import why_not_together
from pql.errors import UserError
from pql.memory.replay import WORD
from pql.roles.build import ring_of

# Measured on one core with 1 to 16 replicas (README): what an update or a vector step takes before there is any
# arithmetic, which replicas share, and how fast that of small networks and a light simulation goes, which they do not.
UPDATE_S, STEP_S = 1e-3, 2.5e-3
FLOPS, ENV_S = 2e10, 2e-5
MOST = 16  # more save hardly anything
WORTH = 1.25  # what is saved must be worth what a pack costs: its start, and that its cells wait for each other


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
    layout = ring_of(cfg, env.spaces)
    ring = layout.slots * layout.words * WORD
    free = free_memory()
    fits = max(1, int(free / (ring * at_a_time))) if free is not None else 1 << 20
    flops = survey(algorithms.make(cfg.algo, env.spaces)).flops[V_LEARNER]
    return Size(MOST if saves(cfg, flops, MOST) >= WORTH and not cfg.compile else 1, fits)


def saves(cfg: Config, flops: float, size: int) -> float:
    """How many times as fast runs are side by side as one after the other; `flops` of a critic update."""
    updates = cfg.algo.utd * cfg.num_envs * (1 + 1 / cfg.algo.critic_updates_per_policy_update)
    shared = STEP_S + updates * UPDATE_S
    own = cfg.num_envs * ENV_S + updates * flops / FLOPS
    return (shared + own) / (shared / size + own)


def free_memory() -> int | None:
    """Bytes, as far as the system says."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
