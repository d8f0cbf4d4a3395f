"""PQL: double Q-learning with a deterministic policy (Li et al. 2023; losses after TD3, Fujimoto et al. 2018).

Losses are pure functions of networks and tensors: no devices, no processes, no optimizers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pql.algorithms.networks import EnsembleMLP, Policy
from pql.memory.replay import Batch


class PQL:
    """`critic_loss` and `policy_loss` take batches whose observations are already normalised.

    Where a task has observations for the critic alone (an asymmetric actor-critic, Pinto et al. 2017) they are
    `critic_obs_dim` numbers; else `batch.critic_obs` is `batch.obs`.
    """

    critic_outputs = 1

    def __init__(self, cfg, obs_dim: int, action_dim: int, critic_obs_dim: int = 0):
        self.cfg, self.obs_dim, self.action_dim = cfg, obs_dim, action_dim
        self.critic_obs_dim = critic_obs_dim or obs_dim

    def make_policy(self) -> Policy:
        c = self.cfg
        return Policy(self.obs_dim, self.action_dim, c.hidden, c.activation, c.layer_norm)

    def make_critic(self) -> EnsembleMLP:
        c = self.cfg
        width = self.critic_obs_dim + self.action_dim
        return EnsembleMLP(width, c.hidden, self.critic_outputs, 2, c.activation, c.layer_norm)

    def smoothed_action(self, policy: nn.Module, obs: Tensor, noise: Tensor) -> Tensor:
        """Target policy smoothing: the policy's action plus clipped noise; `noise` (B, A) is standard normal."""
        bound = self.cfg.target_noise_clip
        return (policy(obs) + (noise * self.cfg.target_noise).clamp_(-bound, bound)).clamp_(-1.0, 1.0)

    def critic_loss(
        self, critic: nn.Module, target: nn.Module, policy: nn.Module, batch: Batch, noise: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weighted squared error of both critics to `return_n + discount * min Q_target(next_obs, a')`.

        Returns:
            The loss, a scalar: a sum over critics and a mean over rows, and metrics as 0-d tensors.
        """
        with torch.no_grad():
            next_action = self.smoothed_action(policy, batch.next_obs, noise)
            next_q = target(torch.cat([batch.next_critic_obs, next_action], 1)).squeeze(2).amin(0)
            y = batch.return_n + batch.discount * next_q
        q = critic(torch.cat([batch.critic_obs, batch.action], 1)).squeeze(2)
        loss = ((q - y).square() * batch.weight).mean(1).sum()
        return loss, {"critic_loss": loss.detach(), "q": q.detach().mean()}

    def policy_loss(self, policy: nn.Module, critic: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """-min Q(critic_obs, policy(obs)), mean over rows."""
        q = self.value(critic(torch.cat([batch.critic_obs, policy(batch.obs)], 1))).amin(0)
        loss = -q.mean()
        return loss, {"policy_loss": loss.detach()}

    def value(self, outputs: Tensor) -> Tensor:
        """Critic outputs (E, B, critic_outputs) -> values (E, B)."""
        return outputs.squeeze(2)
