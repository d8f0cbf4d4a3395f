"""The V-learner: critic updates on batches from the replay ring."""

from __future__ import annotations

import copy

import torch

from pql.learner import Learner, Optimizer, fuse, generator_of
from pql.networks import FlatParameters
from pql.normalizer import Normalizer
from pql.replay import Batch, Replay
from pql.runtime.shared import Shared


class VLearner(Learner):
    """One critic update at a time: sample, loss, step, soft target, publish."""

    role = "v_learner"
    measures = ("critic_loss", "q", "critic_grad_norm", "policy_age")

    def __init__(self, cfg, algorithm, replay: Replay, shared: Shared, device: torch.device):
        a = cfg.algo
        self.cfg, self.algorithm, self.replay, self.shared, self.device = a, algorithm, replay, shared, device
        self.critic = algorithm.make_critic().to(device)
        self.weights = FlatParameters(self.critic)
        shared.critic.receive(self.weights.data, seen=0)  # the initial weights
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.target_weights = FlatParameters(self.target)
        self.others = {"target": self.target_weights}
        self.policy = algorithm.make_policy().to(device).requires_grad_(False)
        self.policy_weights = FlatParameters(self.policy)
        self.policy_version = 0
        self.optimizer = Optimizer(self.weights, a.critic_lr, a.weight_decay, a.max_grad_norm)
        self.normalizer = Normalizer(replay.obs_dim, device)
        self.generator = generator_of(cfg.seed, self.role, device)
        self.critic_loss = algorithm.critic_loss
        if cfg.compile:
            batch = self.normalized(replay.unpack(torch.zeros(a.batch_size, replay.row_dim, device=device)))
            noise = torch.zeros(batch.action.shape, device=device)
            self.critic_loss = fuse(algorithm.critic_loss, self.critic, self.target, self.policy, batch, noise)

    def update(self) -> None:
        """One gradient step of both critics."""
        shared = self.shared
        self.policy_version = shared.policy.receive(self.policy_weights.data, self.policy_version)
        self.normalizer.receive(shared.normalizer)
        batch = self.normalized(self.replay.sample(self.cfg.batch_size, self.generator))
        noise = torch.randn(batch.action.shape, generator=self.generator, device=self.device)
        loss, metrics = self.critic_loss(self.critic, self.target, self.policy, batch, noise)
        metrics["critic_grad_norm"] = self.optimizer.step(loss)
        self.target_weights.data.lerp_(self.weights.data, self.cfg.tau)
        every = self.cfg.critic_updates_per_policy_update
        updates = int(shared.critic_updates) + 1
        # how many policy updates the ratio allows for by now that the policy used here has not had
        metrics["policy_age"] = torch.tensor(max(0.0, (updates - 1) // every - (self.policy_version - 1)))
        shared.boards[self.role].add(metrics)
        if updates % every == 0:
            self.publish()
        shared.critic_updates.fill_(updates)

    def normalized(self, batch: Batch) -> Batch:
        return batch._replace(obs=self.normalizer(batch.obs), next_obs=self.normalizer(batch.next_obs))

    def publish(self) -> None:
        self.shared.critic.publish(self.weights.data)
