"""The P-learner: policy updates along the newest critic's gradient, and the average of what they have led to.

The newest policy explores and is what the critic learns about. The average is what is evaluated and deployed: a
policy that follows a moving critic swings about a good one, and the mean of its swings is better than most of them.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from pql.algorithms.networks import FlatParameters
from pql.memory.replay import Replay
from pql.memory.shared import Shared
from pql.roles.learner import Learner, Optimizer, fuse


class PLearner(Learner):
    """One policy update at a time: sample, loss, step, average, publish."""

    role = "p_learner"
    measures = ("policy_loss", "policy_grad_norm")

    def __init__(self, cfg, algorithm, replay: Replay, shared: Shared):
        super().__init__(cfg, algorithm, replay, shared)
        device = self.device
        self.policy = algorithm.make_policy().to(device)
        self.weights = FlatParameters(self.policy)
        shared.policy.read(self.weights.data)  # the initial weights
        self.critic = algorithm.make_critic().to(device).requires_grad_(False)
        self.critic_weights = FlatParameters(self.critic)
        self.critic_version = torch.zeros(1, dtype=torch.int64, device=device)
        self.average = FlatParameters(copy.deepcopy(self.policy).requires_grad_(False))
        self.others = {"average": self.average}
        self.updates = shared.policy_updates.to(device, copy=True)  # where the device can count them
        self.optimizer = Optimizer(self.weights, self.cfg.actor_lr, self.cfg.weight_decay, self.cfg.max_grad_norm)
        self.loss = self.loss_of
        if cfg.compile:
            self.loss = fuse(self.loss_of, torch.zeros(self.cfg.batch_size, replay.row_dim, device=device))

    def update(self) -> None:
        """One gradient step of the policy."""
        self.graphed_step()
        self.in_flight()
        self.shared.policy_updates += 1

    def step(self) -> None:
        shared = self.shared
        shared.critic.receive(self.critic_weights.data, self.critic_version)
        self.normalizer.receive(shared.normalizer)
        loss, metrics = self.loss(self.sample())
        metrics["policy_grad_norm"] = self.optimizer.step(loss)
        shared.boards[self.role].add(metrics)
        self.average.data.lerp_(self.weights.data, average_rate(self.updates, self.cfg.policy_average))
        self.updates += 1
        self.publish()

    def loss_of(self, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The algorithm's loss of the policy on replay rows (B, row_dim)."""
        with self.autocast:
            return self.algorithm.policy_loss(self.policy, self.critic, self.replay.unpack(rows, self.normalizer))

    def publish(self) -> None:
        self.shared.policy.publish(self.weights.data)
        self.shared.average.publish(self.average.data)


def average_rate(updates: Tensor, least: float) -> Tensor:
    """The newest policy's share in the average, after `updates` (1,) earlier ones.

    Polynomial-decay averaging (Shamir and Zhang 2013) with eta = 8: about the last ninth of the updates
    counts, however many there are, until the share has fallen to `least`; from then on an exponential average.
    """
    return (9 / (updates + 9)).clamp_(min=least)
