"""PQL: double Q-learning with a deterministic policy (Li et al. 2023; losses after TD3, Fujimoto et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional

import torch
from torch import Tensor, nn

from pql.algorithms.base import (
    P_LEARNER,
    V_LEARNER,
    Adam,
    Algorithm,
    Group,
    Loss,
    MLPOptions,
    Nets,
    Require,
    normal,
)  # fmt: skip
from pql.algorithms.networks import EnsembleMLP, Policy
from pql.keys import key
from pql.memory.replay import Batch


@dataclass
class PQLOptions(MLPOptions):
    """The authors' values."""

    batch_size: int = 8192
    critic_lr: float = 5e-4
    actor_lr: float = 5e-4
    critic_updates_per_step: Optional[float] = 8.0
    critic_updates_per_policy_update: int = 2
    n_step: int = 3
    tau: float = 0.05
    replay_size: int = 5_000_000
    policy_average: float = 0.001
    hidden: List[int] = key([512, 256, 128])
    activation: str = "elu"
    layer_norm: bool = True
    weight_decay: float = key(0.01, "AdamW weight decay")
    max_grad_norm: float = key(0.5, "gradients are clipped to this norm")
    noise_low: float = key(0.05, "exploration: smallest standard deviation over the environments")
    noise_high: float = key(0.8, "exploration: largest standard deviation over the environments")
    target_noise: float = key(0.8, "target policy smoothing: standard deviation")
    target_noise_clip: float = key(0.2, "target policy smoothing: bound")
    bc_weight: float = key(
        0.0, "weight of behaviour cloning beside values scaled to 1, for a fixed dataset; .4 is TD3+BC's 1 / alpha"
    )

    def check(self, require: Require) -> None:
        super().check(require)
        require(self.max_grad_norm > 0, "max_grad_norm", "greater than 0")
        for name in ("weight_decay", "target_noise", "target_noise_clip", "noise_low", "noise_high", "bc_weight"):
            require(getattr(self, name) >= 0, name, "0 or more")


class PQL(Algorithm):
    """Twin critics, the smaller of whose targets counts, and a deterministic policy.

    Every environment explores with a noise scale of its own (mixed exploration, Li et al. 2023, section 3.3).
    """

    Options = PQLOptions
    critic_outputs = 1

    def groups(self) -> list[Group]:
        c = self.cfg
        shared = {"weight_decay": c.weight_decay, "max_grad_norm": c.max_grad_norm}
        return [
            Group("critic", self.make_critic, V_LEARNER, Adam(c.critic_lr, **shared), "critic_loss", tau=c.tau),
            Group("policy", self.make_policy, P_LEARNER, Adam(c.actor_lr, **shared), "policy_loss"),
        ]

    def make_policy(self) -> Policy:
        c, s = self.cfg, self.spaces
        return Policy(s.obs_dim, s.action_dim, c.hidden, c.activation, c.layer_norm)

    def make_critic(self) -> EnsembleMLP:
        c, width = self.cfg, self.spaces.critic_dim + self.spaces.action_dim
        return EnsembleMLP(width, c.hidden, self.critic_outputs, 2, c.activation, c.layer_norm)

    def noise_columns(self, loss: str) -> int:
        return self.spaces.action_dim if loss == "critic_loss" else 0

    def smoothed_action(self, policy: nn.Module, obs: Tensor, noise: Tensor) -> Tensor:
        """Target policy smoothing: the policy's action plus clipped noise; `noise` (B, A) is standard normal."""
        bound = self.cfg.target_noise_clip
        return (policy(obs) + (noise * self.cfg.target_noise).clamp(-bound, bound)).clamp(-1.0, 1.0)

    def critic_loss(self, nets: Nets, batch: Batch, noise: Tensor) -> Loss:
        """Weighted squared error of both critics to `return_n + discount * min Q_target(next_obs, a')`.

        Returns:
            The loss, a scalar: a sum over critics and a mean over rows, and metrics as 0-d tensors.
        """
        with torch.no_grad():
            next_action = self.smoothed_action(nets.policy, batch.next_obs, noise)
            next_q = self.value(nets.critic_target, batch.next_critic_obs, next_action).amin(0)
            y = batch.return_n + batch.discount * next_q
        q = self.value(nets.critic, batch.critic_obs, batch.action)
        loss = ((q - y).square() * batch.weight).mean(1).sum()
        return loss, {"critic_loss": loss.detach(), "q": q.detach().mean()}

    def policy_loss(self, nets: Nets, batch: Batch, noise: Tensor) -> Loss:
        """-min Q(critic_obs, policy(obs)), mean over rows.

        With `bc_weight` w it is TD3+BC's (Fujimoto and Gu 2021; their loss divided by alpha = 1 / w):
        -mean Q / mean |Q| + w * mean (policy(obs) - action)^2, the second mean over rows and components.
        """
        action, w = nets.policy(batch.obs), self.cfg.bc_weight
        q = self.value(nets.critic, batch.critic_obs, action).amin(0)
        loss = -q.mean()
        if w > 0:
            cloning = ((action - batch.action).square().mean(1) * batch.weight).mean()
            loss = loss / q.detach().abs().mean().clamp(min=1e-6) + w * cloning
        return loss, {"policy_loss": loss.detach()}

    def exploration(self, num_envs: int, device: torch.device) -> dict[str, Tensor]:
        c = self.cfg
        return {"scale": torch.linspace(c.noise_low, c.noise_high, num_envs, device=device).unsqueeze(1)}

    def explore(self, nets: Nets, obs: Tensor, memory: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        """The policy's action plus normal noise, whose standard deviation is spread evenly over the environments."""
        action = nets.policy(obs)
        return (action + memory["scale"] * normal(action, generator)).clamp_(-1.0, 1.0)
