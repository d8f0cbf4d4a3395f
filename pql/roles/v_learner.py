"""The V-learner: critic updates on batches from the replay ring."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from pql.algorithms.networks import FlatParameters
from pql.memory.replay import Replay
from pql.memory.shared import Shared
from pql.roles.learner import Learner, Optimizer, fuse


class VLearner(Learner):
    """One critic update at a time: sample, loss, step, soft target, publish."""

    role = "v_learner"
    measures = ("critic_loss", "q", "critic_grad_norm", "policy_age")

    def __init__(self, cfg, algorithm, replay: Replay, shared: Shared):
        super().__init__(cfg, algorithm, replay, shared)
        device = self.device
        self.critic = algorithm.make_critic().to(device)
        self.weights = FlatParameters(self.critic)
        shared.critic.read(self.weights.data)  # the initial weights
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.target_weights = FlatParameters(self.target)
        self.others = {"target": self.target_weights}
        self.policy = algorithm.make_policy().to(device).requires_grad_(False)
        self.policy_weights = FlatParameters(self.policy)
        self.policy_version = torch.zeros(1, dtype=torch.int64, device=device)
        self.updates = shared.critic_updates.to(device, copy=True)  # where the device can count them
        self.optimizer = Optimizer(self.weights, self.cfg.critic_lr, self.cfg.weight_decay, self.cfg.max_grad_norm)
        self.loss = self.loss_of
        if cfg.compile:
            shapes = (self.cfg.batch_size, replay.row_dim), (self.cfg.batch_size, replay.action_dim)
            self.loss = fuse(self.loss_of, *(torch.zeros(shape, device=device) for shape in shapes))

    def update(self) -> None:
        """One gradient step of both critics."""
        self.graphed_step()
        updates = int(self.shared.critic_updates) + 1
        if updates % self.cfg.critic_updates_per_policy_update == 0:
            self.publish()
        self.in_flight()
        self.shared.critic_updates.fill_(updates)

    def step(self) -> None:
        shared = self.shared
        shared.policy.receive(self.policy_weights.data, self.policy_version)
        self.normalizer.receive(shared.normalizer)
        rows, shape = self.sample(), (self.cfg.batch_size, self.replay.action_dim)
        noise = torch.randn(shape, generator=self.generator, device=self.generator.device).to(self.device)
        loss, metrics = self.loss(rows, noise)
        metrics["critic_grad_norm"] = self.optimizer.step(loss)
        self.target_weights.data.lerp_(self.weights.data, self.cfg.tau)
        # how many policy updates the ratio allows for by now that the policy used here has not had
        due = torch.div(self.updates, self.cfg.critic_updates_per_policy_update, rounding_mode="floor")
        metrics["policy_age"] = (due - self.policy_version + 1).clamp_(min=0)
        shared.boards[self.role].add(metrics)
        self.updates += 1

    def loss_of(self, rows: Tensor, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The algorithm's loss of both critics on replay rows (B, row_dim); `noise` (B, A) is standard normal."""
        with self.autocast:
            batch = self.replay.unpack(rows, self.normalizer)
            return self.algorithm.critic_loss(self.critic, self.target, self.policy, batch, noise)

    def publish(self) -> None:
        self.shared.critic.publish(self.weights.data)
