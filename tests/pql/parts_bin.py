"""An algorithm that uses every part of the contract: running statistics, a schedule, a constraint, a scalar."""

from __future__ import annotations

import torch
from torch import nn

from pql import algorithms
from pql.algorithms.base import P_LEARNER, V_LEARNER, Adam, Algorithm, Group, MLPOptions, normal
from pql.algorithms.networks import EnsembleMLP, Scalar


class Normed(nn.Module):
    """A linear policy behind batch normalisation."""

    def __init__(self, obs_dim, action_dim):
        super().__init__()
        self.norm = nn.BatchNorm1d(obs_dim)
        self.head = nn.Linear(obs_dim, action_dim)

    def forward(self, obs):
        return self.head(self.norm(obs)).tanh()


@torch.no_grad()
def unit_columns(critic):
    critic.weights[0].div_(critic.weights[0].norm(dim=1, keepdim=True))


class PartsBin(Algorithm):
    Options = MLPOptions

    def groups(self):
        c, s = self.cfg, self.spaces
        halving = Adam(c.critic_lr, schedule=lambda updates: torch.where(updates < 50, 1.0, 0.5))
        return [
            Group("critic", lambda: EnsembleMLP(s.critic_dim + s.action_dim, c.hidden, 1), V_LEARNER, halving,
                  "critic_loss", tau=c.tau, after_step=unit_columns),
            Group("policy", lambda: Normed(s.obs_dim, s.action_dim), P_LEARNER, Adam(c.actor_lr), "policy_loss"),
            Group("width", lambda: Scalar(-1.0), P_LEARNER, Adam(0.01), "width_loss", resets=False),
        ]  # fmt: skip

    def noise_columns(self, loss):
        return 0

    def critic_loss(self, nets, batch, noise):
        with torch.no_grad():
            value = self.value(nets.critic_target, batch.next_critic_obs, nets.policy(batch.next_obs)).amin(0)
            y = batch.return_n + batch.discount * value
        loss = (self.value(nets.critic, batch.critic_obs, batch.action) - y).square().mean()
        return loss, {"critic_loss": loss.detach()}

    def policy_loss(self, nets, batch, noise):
        loss = -self.value(nets.critic, batch.critic_obs, nets.policy(batch.obs)).mean()
        return loss, {"policy_loss": loss.detach()}

    def width_loss(self, nets, batch, noise):
        return (nets.width() + 2).square(), {"width": nets.width().detach()}

    def exploration(self, num_envs, device):
        return {"held": torch.zeros(num_envs, self.spaces.action_dim, device=device)}

    def explore(self, nets, obs, memory, generator):
        action = nets.policy(obs)
        memory["held"].mul_(0.9).add_(normal(action, generator), alpha=0.1)
        return (action + nets.width().exp() * memory["held"]).clamp(-1, 1)


algorithms.register("parts_bin", PartsBin)
