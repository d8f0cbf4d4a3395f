"""The P-learner: policy updates along the newest critic's gradient, and the average of what they have led to.

The newest policy explores and is what the critic learns about. The average is what is evaluated and deployed: a
policy that follows a moving critic swings about a good one, and the mean of its swings is better than most of them.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor

from pql.algorithms.base import P_LEARNER, Algorithm
from pql.memory.replay import Replay
from pql.memory.shared import Shared
from pql.roles.flat import Flat
from pql.roles.learner import Learner

DEPLOYED = "policy"  # the group that acts without exploration


class PLearner(Learner):
    """One policy update at a time: sample, losses, steps, average, publish."""

    role = P_LEARNER

    def __init__(self, cfg: Any, algorithm: Algorithm, replay: Replay, shared: Shared):
        super().__init__(cfg, algorithm, replay, shared)
        self.average = Flat({DEPLOYED: copy.deepcopy(self.weights.modules[DEPLOYED])}, self.device).fixed()
        shared.average.read(self.average.data)  # that of another run, where this one begins with it
        self.counter = shared.policy_updates
        self.updates = self.counter.to(self.device, copy=True)
        self.averaged = self.updates.clone()  # those that the average may hold

    def count(self) -> None:
        self.in_flight()
        self.counter += 1

    def conclude(self, measured: dict[str, Tensor]) -> None:
        newest = self.weights.data[self.weights.all[DEPLOYED]]
        self.average.data.lerp_(newest, average_rate(self.averaged, self.cfg.policy_average))
        self.averaged += 1
        self.publish()
        super().conclude(measured)

    def begin_anew(self, number: int) -> None:
        super().begin_anew(number)
        self.average.data.copy_(self.weights.data[self.weights.all[DEPLOYED]])
        self.averaged.zero_()

    def publish(self) -> None:
        super().publish()
        self.shared.average.publish(self.average.data)

    def state_dict(self) -> dict[str, Tensor]:
        return {**super().state_dict(), "average": self.average.data, "averaged": self.averaged}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.average.data.copy_(state["average"])
        self.averaged.copy_(state["averaged"])
        super().load_state_dict(state)


def average_rate(updates: Tensor, least: float) -> Tensor:
    """The newest policy's share in the average, after `updates` (1,) earlier ones.

    Polynomial-decay averaging (Shamir and Zhang 2013) with eta = 8: about the last ninth of the updates
    counts, however many there are, until the share has fallen to `least`; from then on an exponential average.
    """
    return (9 / (updates + 9)).clamp(min=least)
