"""SAC: soft actor-critic with a learned temperature (Haarnoja et al. 2018, arXiv 1812.05905)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional

import torch
from torch import Tensor, nn

from pql.algorithms import gaussian
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
)  # fmt: skip
from pql.algorithms.networks import EnsembleMLP, GaussianPolicy, Scalar
from pql.keys import key
from pql.memory.replay import Batch


@dataclass
class SACOptions(MLPOptions):
    """The authors' values: one update per transition, networks of 256-256, Adam at 3e-4, raw observations."""

    utd: Optional[float] = 1.0
    normalize_obs: bool = False
    warmup_steps: int = 625
    temperature_lr: float = key(3e-4, "step size of the temperature")
    initial_temperature: float = key(1.0, "weight of the entropy at first")
    target_entropy: Optional[float] = key(None, "entropy that the temperature steers for, in nats; null: -actions")

    def check(self, require: Require) -> None:
        super().check(require)
        for name in ("temperature_lr", "initial_temperature"):
            require(getattr(self, name) > 0, name, "greater than 0")


class SAC(Algorithm):
    """Twin critics of the soft value, a tanh-Gaussian policy, and the temperature that keeps its entropy.

    Densities and entropies are of actions in [-1, 1], the range that every task takes and replay holds: a task's own
    range differs from it by a constant factor, which a target entropy would have to know.
    """

    Options = SACOptions

    def groups(self) -> list[Group]:
        c = self.cfg
        return [
            Group("critic", self.make_critic, V_LEARNER, Adam(c.critic_lr), "critic_loss", tau=c.tau),
            Group("policy", self.make_policy, P_LEARNER, Adam(c.actor_lr), "policy_loss"),
            Group("temperature", self.make_temperature, P_LEARNER, Adam(c.temperature_lr), "policy_loss"),
        ]

    def make_critic(self) -> EnsembleMLP:
        c, width = self.cfg, self.spaces.critic_dim + self.spaces.action_dim
        return EnsembleMLP(width, c.hidden, 1, 2, c.activation, c.layer_norm)

    def make_policy(self) -> GaussianPolicy:
        c, s = self.cfg, self.spaces
        return GaussianPolicy(s.obs_dim, s.action_dim, c.hidden, c.activation, c.layer_norm)

    def make_temperature(self) -> Scalar:
        return Scalar(math.log(self.cfg.initial_temperature))

    def critic_loss(self, nets: Nets, batch: Batch, noise: Tensor) -> Loss:
        """Weighted squared error of both critics to `return_n + discount * (min Q_target(s', a') - alpha log pi)`."""
        with torch.no_grad():
            next_action, log_prob = gaussian.sample(*nets.policy(batch.next_obs), noise)
            next_q = self.value(nets.critic_target, batch.next_critic_obs, next_action).amin(0)
            y = batch.return_n + batch.discount * (next_q - nets.temperature().exp() * log_prob)
        q = self.value(nets.critic, batch.critic_obs, batch.action)
        loss = ((q - y).square() * batch.weight).mean(1).sum()
        return loss, {"critic_loss": loss.detach(), "q": q.detach().mean()}

    def policy_loss(self, nets: Nets, batch: Batch, noise: Tensor) -> Loss:
        """The policy's `alpha log pi - min Q` and the temperature's `-log alpha (log pi + target)`, means over rows.

        Neither's gradient reaches the other's parameters.
        """
        action, log_prob = gaussian.sample(*nets.policy(batch.obs), noise)
        q = self.value(nets.critic, batch.critic_obs, action).amin(0)
        log_temperature = nets.temperature()
        temperature = log_temperature.detach().exp()
        policy_loss = (temperature * log_prob - q).mean()
        surplus = gaussian.finite_mean(log_prob.detach()) + self.target_entropy
        temperature_loss = -log_temperature * surplus
        return policy_loss + temperature_loss, {
            "policy_loss": policy_loss.detach(),
            "temperature": temperature,
            "entropy": -log_prob.detach().mean(),
        }

    @property
    def target_entropy(self) -> float:
        return -float(self.spaces.action_dim) if self.cfg.target_entropy is None else self.cfg.target_entropy

    def act(self, policy: nn.Module, obs: Tensor) -> Tensor:
        """The mean action."""
        return policy(obs)[0].tanh()

    def explore(self, nets: Nets, obs: Tensor, memory: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        mean, log_std = nets.policy(obs)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return (mean + log_std.exp() * noise).tanh()
