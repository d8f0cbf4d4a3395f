"""What a learner looks at once in many updates: its networks from inside, its steps, rows it has not trained on.

A diagnosis is a fixed sequence of tensor operations beside an update, which can be recorded as one, draws nothing and
changes nothing that learning depends on. What it measures: docs/metrics.md.
"""

from __future__ import annotations

from typing import Any, Mapping

import torch
from torch import Tensor, nn

from pql.algorithms.base import P_LEARNER, V_LEARNER, Algorithm, Nets
from pql.algorithms.diagnostics import Measured, of_critic, of_policy, single
from pql.memory.replay import Replay

EVERY = 256  # updates of a role, at least, from one diagnosis to the next: one costs as much as two critic updates
MAIN = {V_LEARNER: "critic", P_LEARNER: "policy"}  # the group that is looked into


class Diagnosis:
    """When a learner looks, and where.

    Where to look in the ring, and the noise that a loss wants, are drawn once and from a seed of their own.
    """

    def __init__(self, algorithm: Algorithm, role: str, batch_size: int, replay: Replay, device: torch.device):
        (loss,) = {group.loss for group in algorithm.trained_by(role) if group.name == MAIN[role]}
        generator, home = torch.Generator().manual_seed(0), replay.rows.device
        self.unit = torch.rand(batch_size, generator=generator, dtype=torch.float64).to(home)
        self.noise = torch.randn(batch_size, algorithm.noise_columns(loss), generator=generator).to(device)
        self.fresh_rows = min(batch_size, replay.layout.num_envs)
        self.sampled = torch.zeros(1, dtype=torch.int64, device=home)  # rows that training may have met
        self.updates = self.steps = 0  # of the last diagnosis; of the last update

    def due(self, updates: int, vector_steps: int) -> bool:
        """Call before each update. Due is the first that finds a new vector step, `EVERY` after the last one."""
        new, self.steps = vector_steps != self.steps, vector_steps
        if not new or updates - self.updates < EVERY:
            return False
        self.updates = updates
        return True

    def note_sampled(self, replay: Replay) -> None:
        """After each sample of the learner, which may hold what was in the ring by now."""
        self.sampled.copy_(replay.head)

    def state_dict(self) -> dict[str, Tensor]:
        return {"diagnosis": torch.tensor([self.updates, self.steps]), "sampled": self.sampled}

    def load_state_dict(self, state: Mapping[str, Tensor], replay: Replay) -> None:
        if "diagnosis" in state:  # checkpoints of before have none
            self.updates, self.steps = state["diagnosis"].tolist()
            self.sampled.copy_(torch.minimum(state["sampled"].to(replay.head.device), replay.head))


def look(learner: Any, nets: Nets, modules: Mapping[str, nn.Module]) -> Measured:
    """The networks of a learner, on rows of its ring.

    Args:
        nets: as the losses have them.
        modules: those that compute in them.
    """
    replay, diagnosis, algorithm = learner.replay, learner.diagnosis, learner.algorithm
    batch = learner.unpack(replay.gather(diagnosis.unit).to(learner.device))
    for module in modules.values():  # running statistics stand still
        module.eval()
    try:
        with learner.autocast:
            if learner.role == P_LEARNER:
                return of_policy(algorithm, nets, modules["policy"], batch)
            rows, numbers = replay.newest(diagnosis.fresh_rows)
            fresh = learner.unpack(rows.to(learner.device))
            unmet = (numbers >= diagnosis.sampled).to(fresh.weight)
            fresh = fresh._replace(weight=fresh.weight * unmet)
            found = of_critic(algorithm, nets, modules["critic"], batch, fresh, diagnosis.noise)
    finally:
        for module in modules.values():
            module.train()
    return {**found, **single({"replay_age": replay.ages(diagnosis.unit).double().mean().to(learner.device)})}


def of_steps(optimizers: Mapping[str, Any]) -> Measured:
    """The norm of each group's weights, and the main one's last step as a share of it."""
    told = {f"{name}_weight_norm": torch.linalg.vector_norm(one.data) for name, one in optimizers.items()}
    told.update({f"{name}_step": one.relative_step() for name, one in optimizers.items() if name in MAIN.values()})
    return single(told)


def names_of(algorithm: Algorithm, role: str, seen: tuple) -> tuple:
    """All that a learner's diagnoses tell, where `seen` is what they see of its networks."""
    ages = ("replay_age",) if role == V_LEARNER else ()
    norms = (f"{group.name}_weight_norm" for group in algorithm.trained_by(role))
    return (*seen, *ages, *norms, f"{MAIN[role]}_step")
