"""When networks begin anew (Nikishin et al. 2022; D'Oro et al. 2023): counted in critic updates, replay stays."""

from __future__ import annotations

import math
from bisect import bisect_right
from typing import Any

from pql.algorithms.base import P_LEARNER
from pql.memory.pacing import critic_pacer


class Resets:
    """The resets of a run, seen from one role. They follow from counters alone, so that a resumed run repeats none.

    A reset that is due after u critic updates comes before the next one; the P-learner, who counts its own updates, has
    it before the first of those that belong to later critic updates.
    """

    def __init__(self, cfg: Any, role: str):
        a = cfg.algo
        self.interval = a.reset_interval
        self.per_update = a.critic_updates_per_policy_update if role == P_LEARNER else 1
        pacer = critic_pacer(cfg)
        by_env_steps = [pacer.due(math.ceil(steps / cfg.num_envs)) for steps in a.reset_env_steps]
        self.points = sorted({*a.reset_updates, *(updates for updates in by_env_steps if updates > 0)})

    def before(self, critic_updates: int) -> int:
        """Resets that belong to the first so many critic updates."""
        regular = critic_updates // self.interval if self.interval else 0
        return regular + bisect_right(self.points, critic_updates)

    def due(self, updates: int) -> int:
        """The number, from 1, of the reset that comes before the role's update after `updates` ones; 0: none does."""
        now = self.before(updates * self.per_update)
        return now if updates > 0 and now > self.before((updates - 1) * self.per_update) else 0
