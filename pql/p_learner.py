"""The P-learner: policy updates along the newest critic's gradient, and the average of what they have led to.

The newest policy explores and is what the critic learns about. The average is what is evaluated and deployed: a
policy that follows a moving critic swings about a good one, and the mean of its swings is better than most of them.
"""

from __future__ import annotations

import copy

import torch

from pql.learner import Learner, Optimizer, fuse, generator_of
from pql.networks import FlatParameters
from pql.normalizer import Normalizer
from pql.replay import Replay
from pql.runtime.shared import Shared


class PLearner(Learner):
    """One policy update at a time: sample, loss, step, average, publish."""

    role = "p_learner"
    measures = ("policy_loss", "policy_grad_norm")

    def __init__(self, cfg, algorithm, replay: Replay, shared: Shared, device: torch.device):
        a = cfg.algo
        self.cfg, self.algorithm, self.replay, self.shared = a, algorithm, replay, shared
        self.policy = algorithm.make_policy().to(device)
        self.weights = FlatParameters(self.policy)
        shared.policy.receive(self.weights.data, seen=0)  # the initial weights
        self.critic = algorithm.make_critic().to(device).requires_grad_(False)
        self.critic_weights = FlatParameters(self.critic)
        self.critic_version = 0
        self.average = FlatParameters(copy.deepcopy(self.policy).requires_grad_(False))
        self.others = {"average": self.average}
        self.optimizer = Optimizer(self.weights, a.actor_lr, a.weight_decay, a.max_grad_norm)
        self.normalizer = Normalizer(replay.obs_dim, device)
        self.generator = generator_of(cfg.seed, self.role, device)
        self.policy_loss = algorithm.policy_loss
        if cfg.compile:
            obs = torch.zeros(a.batch_size, replay.obs_dim, device=device)
            self.policy_loss = fuse(algorithm.policy_loss, self.policy, self.critic, obs)

    def update(self) -> None:
        """One gradient step of the policy."""
        shared = self.shared
        self.critic_version = shared.critic.receive(self.critic_weights.data, self.critic_version)
        self.normalizer.receive(shared.normalizer)
        batch = self.replay.sample(self.cfg.batch_size, self.generator)
        loss, metrics = self.policy_loss(self.policy, self.critic, self.normalizer(batch.obs))
        metrics["policy_grad_norm"] = self.optimizer.step(loss)
        shared.boards[self.role].add(metrics)
        self.average.data.lerp_(self.weights.data, average_rate(int(shared.policy_updates), self.cfg.policy_average))
        self.publish()
        shared.policy_updates += 1

    def publish(self) -> None:
        self.shared.policy.publish(self.weights.data)
        self.shared.average.publish(self.average.data)


def average_rate(updates: int, least: float) -> float:
    """The newest policy's share in the average, after `updates` earlier ones.

    Polynomial-decay averaging (Shamir and Zhang 2013) with eta = 8: about the last ninth of the updates
    counts, however many there are, until the share has fallen to `least`; from then on an exponential average.
    """
    return max(least, 9 / (updates + 9))
