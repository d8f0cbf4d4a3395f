"""The P-learner: policy updates along the newest critic's gradient."""

from __future__ import annotations

import torch

from pql.learner import Learner, Optimizer, generator_of
from pql.networks import FlatParameters
from pql.normalizer import Normalizer
from pql.replay import Replay
from pql.runtime.shared import Shared


class PLearner(Learner):
    """One policy update at a time: sample, loss, step, publish."""

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
        self.others = {}
        self.optimizer = Optimizer(self.weights, a.actor_lr, a.weight_decay, a.max_grad_norm)
        self.normalizer = Normalizer(replay.obs_dim, device)
        self.generator = generator_of(cfg.seed, self.role, device)

    def update(self) -> None:
        """One gradient step of the policy."""
        shared = self.shared
        self.critic_version = shared.critic.receive(self.critic_weights.data, self.critic_version)
        self.normalizer.receive(shared.normalizer)
        batch = self.replay.sample(self.cfg.batch_size, self.generator)
        loss, metrics = self.algorithm.policy_loss(self.policy, self.critic, self.normalizer(batch.obs))
        metrics["policy_grad_norm"] = self.optimizer.step(loss)
        shared.boards[self.role].add(metrics)
        self.publish()
        shared.policy_updates += 1

    def publish(self) -> None:
        self.shared.policy.publish(self.weights.data)
