"""The V-learner: critic updates on batches from the replay ring."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pql.algorithms.base import V_LEARNER, Algorithm
from pql.memory.replay import Replay
from pql.memory.shared import Shared
from pql.roles.learner import Learner


class VLearner(Learner):
    """One critic update at a time: sample, loss, step, soft target, publish."""

    role = V_LEARNER

    def __init__(self, cfg: Any, algorithm: Algorithm, replay: Replay, shared: Shared):
        super().__init__(cfg, algorithm, replay, shared)
        self.counter = shared.critic_updates
        self.updates = self.counter.to(self.device, copy=True)

    def count(self) -> None:
        updates = int(self.counter) + 1
        if updates % self.cfg.critic_updates_per_policy_update == 0:
            self.publish()
        self.in_flight()
        self.counter.fill_(updates)

    def conclude(self, measured: dict[str, Tensor]) -> None:
        # how many policy updates the ratio allows for by now that the policy used here has not had
        due = torch.div(self.updates, self.cfg.critic_updates_per_policy_update, rounding_mode="floor")
        super().conclude({**measured, "policy_age": (due - self.their_version + 1).clamp_(min=0)})
