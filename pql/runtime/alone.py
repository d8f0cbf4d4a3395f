"""What a run would take alone: a spare one is timed for a moment, as those beside each other can't tell."""

from __future__ import annotations

import dataclasses
import statistics
import time
from typing import Any, Callable, Sequence

import torch

from pql.algorithms.survey import Survey
from pql.memory.shared import ROLES
from pql.roles.build import make_role, prepare
from tasks.base import Spaces

TIMES = 12  # of which the first quarter is warming up


def pace_alone(
    cfg: Any, spaces: Spaces, found: Survey, task_metrics: Sequence[str] = ()
) -> tuple[float, float, float] | None:
    """Seconds of a vector step, a critic update and a policy update of this run by itself, in this process; medians.

    None where an update would be compiled first: that takes longer than it is worth here.
    """
    if cfg.compile:
        return None
    early = dataclasses.replace(cfg, algo=dataclasses.replace(cfg.algo, warmup_steps=0))
    parts = prepare(early, spaces, found, task_metrics)
    roles = [make_role(role, early, parts.algorithm, parts.shared, cfg.sim.threads) for role in ROLES]
    actor, v_learner, p_learner = roles
    try:
        for _ in range(cfg.algo.n_step):  # the ring is empty until then
            actor.step()
        todo = (actor.step, v_learner.update, p_learner.update)
        step, critic, policy = (_seconds(do, actor.env.device) for do in todo)
    finally:
        actor.env.close()
    return step, critic, policy


def _seconds(do: Callable[[], None], device: torch.device) -> float:
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        do()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[TIMES // 4 :])
