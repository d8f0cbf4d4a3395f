"""How many threads each role gets."""

from __future__ import annotations

from typing import Any

from tasks.cores import cores


def threads_of(cfg: Any) -> dict[str, int]:
    """Threads of each role's torch and of the simulation: fair shares, so that the roles do not fight.

    On a GPU each needs one. On a CPU the V-learner does most of the arithmetic and gets half of the cores, the
    P-learner and the simulation a quarter each; the actor's own arithmetic is small, and torch's threads would
    fight with the simulation's.
    """
    have = cores()
    on_gpu = cfg.device.startswith("cuda")
    fair = {
        "actor": 1,
        "v_learner": 1 if on_gpu else max(1, have // 2),
        "p_learner": 1 if on_gpu else max(1, have // 4),
        "sim": max(1, have - 2) if on_gpu else max(1, have // 4),
    }
    asked = {
        "actor": cfg.threads.actor,
        "v_learner": cfg.threads.v_learner,
        "p_learner": cfg.threads.p_learner,
        "sim": cfg.sim.threads,
    }
    return {role: asked[role] or fair[role] for role in fair}
