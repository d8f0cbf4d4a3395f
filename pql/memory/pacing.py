"""Pacing: one counter follows another at an exact ratio, by blocking.

With `leader` L and `follower` F counts, `Pacer` holds, at every moment after the warm-up,

    0 <= ratio * L - F <= ratio * lead + 1

so the follower is never ahead of the ratio and at most `lead` leader steps (and one update) behind it. The leader
of the first pacer is the actor, in vector steps, its follower the V-learner; the V-learner leads the P-learner.
After the leader has stopped the follower ends at floor(ratio * L), warm-up steps included. The same idea as
Reverb's SampleToInsertRatio limiter, with counters that have one writer each instead of a lock.
"""

from __future__ import annotations

import math

IN_FLIGHT = 2  # steps or updates of a role that its GPU may be behind (`runtime.device.InFlight`)


class Pacer:
    """The rule that both sides of a ratio ask before they take their next step.

    Args:
        ratio: follower steps per leader step, > 0.
        lead: leader steps that the leader may be ahead, >= 1; else both sides would wait for each other.
        warmup: leader steps before the follower begins; the follower then catches up.
    """

    def __init__(self, ratio: float, lead: float, warmup: int = 0):
        if ratio <= 0 or lead < 1:
            raise ValueError(f"ratio must be > 0 and lead >= 1, not {ratio} and {lead}")
        self.ratio, self.lead, self.warmup = ratio, lead, warmup

    @property
    def tolerance(self) -> float:
        """The largest value of ratio * leader - follower, in follower steps."""
        return self.ratio * self.lead + 1

    def due(self, leader: int) -> int:
        """Follower steps that belong to `leader` leader steps."""
        return 0 if leader < self.warmup else math.floor(self.ratio * leader + 1e-6)

    def follower_may_step(self, leader: int, follower: int) -> bool:
        return follower < self.due(leader)

    def leader_may_step(self, leader: int, follower: int) -> bool:
        return leader < self.warmup or self.ratio * (leader + 1) - follower <= self.tolerance + 1e-6


def critic_pacer(cfg, learning_starts: int | None = None) -> Pacer:
    """Critic updates follow vector steps, from vector step `learning_starts` on (None: after the warm-up)."""
    warmup = cfg.algo.warmup_steps if learning_starts is None else learning_starts
    return Pacer(cfg.algo.critic_updates_per_step, cfg.lead_steps, warmup)


def policy_pacer(cfg) -> Pacer:
    """Policy updates follow critic updates."""
    every = cfg.algo.critic_updates_per_policy_update
    return Pacer(1 / every, 2 * every)


def replay_guard(cfg) -> int:
    """Rows that the actor can write while a learner gathers one batch, plus the N it may be writing already.

    While the V-learner stands still the actor can do `tolerance / ratio` vector steps more; while the P-learner
    does, the V-learner can still do `tolerance / ratio` updates, each worth 1 / ratio vector steps. On a GPU the
    gathering may belong to an update that was counted already.
    """
    if cfg.data is not None:  # nobody writes
        return 0
    critic, policy = critic_pacer(cfg), policy_pacer(cfg)
    behind = IN_FLIGHT if cfg.device.startswith("cuda") else 0
    critic_updates = (policy.tolerance + behind) / policy.ratio + critic.tolerance + behind
    return cfg.num_envs * (math.ceil(critic_updates / critic.ratio) + 2)
