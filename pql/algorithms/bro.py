"""BRO: bigger, regularised, optimistic (Nauman et al. 2024, arXiv 2405.16158), and BRO-Fast.

Quantile critics on wide residual networks, no minimum over twins, AdamW, resets, and a second policy that collects data
by optimism within a bound on its divergence from the first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Optional

import torch
from torch import Tensor, nn

from pql.algorithms import gaussian
from pql.algorithms.base import P_LEARNER, V_LEARNER, Adam, Algorithm, Group, Loss, Nets, Options, Require, normal
from pql.algorithms.bronet import BroPolicy, QuantileCritic, Shift, squashed
from pql.algorithms.networks import Scalar
from pql.keys import key
from pql.memory.replay import Batch

ADJUSTER = (-10.0, 7.5)  # bounds of the logarithm of optimism and of the divergence's weight


@dataclass
class BROOptions(Options):
    """The authors' values: ten updates per transition, everything begun anew after the transitions named here."""

    batch_size: int = 128
    utd: Optional[float] = 10.0
    normalize_obs: bool = False
    warmup_steps: int = 313
    reset_env_steps: List[int] = key([15_001, 50_001, 250_001, 500_001, 750_001, 1_000_001, 1_500_001, 2_000_001])
    critic_width: int = key(512, "width of the critics' layers", identity=True)
    critic_blocks: int = key(2, "residual blocks of a critic", identity=True)
    actor_width: int = key(256, "width of both policies' layers", identity=True)
    actor_blocks: int = key(1, "residual blocks of a policy", identity=True)
    num_quantiles: int = key(100, "quantiles of the return", identity=True)
    weight_decay: float = key(1e-4, "AdamW weight decay of critics and policies")
    temperature_lr: float = key(3e-4, "step size of the temperature")
    adjuster_lr: float = key(3e-5, "step size of optimism and of the divergence's weight")
    initial_temperature: float = key(1.0, "weight of the entropy at first")
    initial_optimism: float = key(1.0, "weight of the critics' disagreement in the optimistic policy at first")
    initial_kl_weight: float = key(0.25, "weight of that policy's divergence from the other at first")
    target_entropy: Optional[float] = key(None, "entropy that the temperature steers for, in nats; null: -actions / 2")
    target_kl: float = key(0.05, "divergence per action that optimism and its weight steer for, in nats")
    std_multiplier: float = key(0.75, "the optimistic policy's standard deviation, as a share of the other's")
    critic_pessimism: Optional[float] = key(
        None, "weight of the twins' disagreement in targets; 1: the smaller; null: 1 where a task terminates, else 0"
    )

    def check(self, require: Require) -> None:
        super().check(require)
        for name in ("critic_width", "critic_blocks", "actor_width", "actor_blocks", "num_quantiles"):
            require(getattr(self, name) >= 1, name, "at least 1")
        for name in ("temperature_lr", "adjuster_lr", "initial_temperature", "std_multiplier", "target_kl"):
            require(getattr(self, name) > 0, name, "greater than 0")
        for name in ("initial_optimism", "initial_kl_weight"):
            inside = getattr(self, name) > 0 and ADJUSTER[0] < math.log(getattr(self, name)) < ADJUSTER[1]
            require(inside, name, "between exp(-10) and exp(7.5)")
        require(self.weight_decay >= 0, "weight_decay", "0 or more")
        require(self.critic_pessimism is None or self.critic_pessimism >= 0, "critic_pessimism", "0 or more")


class BRO(Algorithm):
    """Two quantile critics, whose mean is the target; a policy that is deployed and an optimistic one that explores."""

    Options = BROOptions

    def groups(self) -> list[Group]:
        c, s = self.cfg, self.spaces
        actor = Adam(c.actor_lr, weight_decay=c.weight_decay)
        adjuster = Adam(c.adjuster_lr, (0.5, 0.999))
        shape = s.obs_dim, s.action_dim, c.actor_width, c.actor_blocks
        return [
            Group("critic", self.make_critic, V_LEARNER, Adam(c.critic_lr, weight_decay=c.weight_decay), "critic_loss",
                  tau=c.tau),
            Group("policy", lambda: BroPolicy(*shape), P_LEARNER, actor, "policy_loss"),
            Group("temperature", lambda: Scalar(math.log(c.initial_temperature)), P_LEARNER,
                  Adam(c.temperature_lr, (0.5, 0.999)), "policy_loss"),
            Group("optimist", lambda: Shift(*shape), P_LEARNER, actor, "optimist_loss"),
            Group("optimism", lambda: Scalar(raw(c.initial_optimism)), P_LEARNER, adjuster, "optimist_loss"),
            Group("kl_weight", lambda: Scalar(raw(c.initial_kl_weight)), P_LEARNER, adjuster, "optimist_loss"),
        ]  # fmt: skip

    def make_critic(self) -> QuantileCritic:
        c, width = self.cfg, self.spaces.critic_dim + self.spaces.action_dim
        return QuantileCritic(width, c.critic_width, c.critic_blocks, c.num_quantiles)

    @property
    def pessimism(self) -> float:
        """Where a fall ends an episode, BRO as published overestimates; the smaller twin does not.

        The element-wise minimum of two quantile functions is one: that of a stochastically smaller return.
        """
        if self.cfg.critic_pessimism is None:
            return 1.0 if self.spaces.terminates else 0.0
        return self.cfg.critic_pessimism

    @property
    def target_entropy(self) -> float:
        return -self.spaces.action_dim / 2 if self.cfg.target_entropy is None else self.cfg.target_entropy

    def quantiles(self, critic: nn.Module, critic_obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of the twins' quantiles and half of what they differ by, (B, Q) each."""
        one, two = critic(torch.cat([critic_obs, action], 1)).unbind()
        return (one + two) / 2, (one - two).abs() / 2

    def value(self, critic: nn.Module, critic_obs: Tensor, action: Tensor) -> Tensor:
        return critic(torch.cat([critic_obs, action], 1)).mean(2)

    def critic_loss(self, nets: Nets, batch: Batch, noise: Tensor) -> Loss:
        """Quantile Huber loss of both critics, weighted, to the quantiles of the twins' mean (or below it)."""
        with torch.no_grad():
            next_action, log_prob = gaussian.sample(*nets.policy(batch.next_obs), noise)
            mean, apart = self.quantiles(nets.critic_target, batch.next_critic_obs, next_action)
            entropy_bonus = (nets.temperature().exp() * log_prob).unsqueeze(1)
            future = mean - self.pessimism * apart - entropy_bonus
            y = batch.return_n.unsqueeze(1) + batch.discount.unsqueeze(1) * future
        found = nets.critic(torch.cat([batch.critic_obs, batch.action], 1))
        loss = (quantile_huber(found, y) * batch.weight).mean(1).sum()
        return loss, {"critic_loss": loss.detach(), "q": found.detach().mean()}

    def policy_loss(self, nets: Nets, batch: Batch, noise: Tensor) -> Loss:
        """The policy's `alpha log pi - Q`, and the temperature's `alpha (entropy - target)`, means over rows."""
        action, log_prob = gaussian.sample(*nets.policy(batch.obs), noise)
        mean, apart = self.quantiles(nets.critic, batch.critic_obs, action)
        q = (mean - self.pessimism * apart).mean(1)
        temperature = nets.temperature().exp()
        loss = (temperature.detach() * log_prob - q).mean()
        entropy = -gaussian.finite_mean(log_prob.detach())
        return loss + temperature * (entropy - self.target_entropy), {
            "policy_loss": loss.detach(), "temperature": temperature.detach(), "entropy": entropy
        }  # fmt: skip

    def optimist_loss(self, nets: Nets, batch: Batch, noise: Tensor) -> Loss:
        """The optimist's `lambda KL - Q_optimistic`; optimism and lambda follow the divergence to its target.

        As both normals share the shape of their spread, KL is sum(shift^2) / (2 std^2). Below its target, optimism
        rises and lambda falls.
        """
        with torch.no_grad():
            mean, log_std = nets.policy(batch.obs)
        shift = nets.optimist(batch.obs, mean)
        action, _ = gaussian.sample(mean + shift, log_std + math.log(self.cfg.std_multiplier), noise)
        middle, apart = self.quantiles(nets.critic, batch.critic_obs, action)
        optimism, kl_weight = (squashed(scalar(), *ADJUSTER).exp() for scalar in (nets.optimism, nets.kl_weight))
        kl = (shift.square() / (2 * (2 * log_std).exp())).sum(1).mean()
        loss = kl_weight.detach() * kl - (middle + optimism.detach() * apart).mean()
        surplus = kl.detach() / self.spaces.action_dim - self.cfg.target_kl
        return loss + (optimism - kl_weight) * surplus, {
            "optimist_loss": loss.detach(), "kl": kl.detach(), "optimism": optimism.detach(),
            "kl_weight": kl_weight.detach(),
        }  # fmt: skip

    def act(self, policy: nn.Module, obs: Tensor) -> Tensor:
        """The mean action of the policy that is not optimistic."""
        return policy(obs)[0].tanh()

    def explore(self, nets: Nets, obs: Tensor, memory: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        mean, log_std = nets.policy(obs)
        spread = log_std.exp() * self.cfg.std_multiplier
        return (mean + nets.optimist(obs, mean) + spread * normal(mean, generator)).tanh()


@dataclass
class BROFastOptions(BROOptions):
    """Two updates per transition, one reset."""

    utd: Optional[float] = 2.0
    reset_env_steps: List[int] = key([15_001])


class BROFast(BRO):
    Options = BROFastOptions


def raw(value: float) -> float:
    """The number that `squashed` and exp turn into `value`."""
    low, high = ADJUSTER
    return math.atanh((math.log(value) - low) / ((high - low) * 0.5) - 1)


def quantile_huber(found: Tensor, target: Tensor) -> Tensor:
    """Quantile regression with a Huber loss of threshold 1 (Dabney et al. 2018, equation 10), row by row.

    Args:
        found: (E, B, Q) quantiles at the midpoints (i + 1/2) / Q.
        target: (B, T) samples of what is to be predicted.
    Returns:
        (E, B): summed over predicted quantiles, averaged over targets.
    """
    q = found.shape[2]
    levels = (torch.arange(q, device=found.device, dtype=found.dtype) + 0.5) / q
    error = target.unsqueeze(1) - found.unsqueeze(3)  # (E, B, Q, T)
    size = error.abs()
    huber = torch.where(size <= 1, 0.5 * error.square(), size - 0.5)
    side = (levels.unsqueeze(1) - (error.detach() < 0).to(found.dtype)).abs()
    return (side * huber).sum(2).mean(2)
