"""FlashSAC's ingredients (arXiv 2604.04539, 2026) for thousands of environments and few updates.

Soft actor-critic with a categorical critic on rewards of a known scale, networks whose norms are bounded, and noise
that an environment keeps for some steps. `pql.algorithms.residual` says where its networks differ from the paper's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pql.algorithms import gaussian
from pql.algorithms.base import P_LEARNER, V_LEARNER, Adam, Algorithm, Group, Loss, Nets, Options, Require, normal
from pql.algorithms.diagnostics import mass_at_ends
from pql.algorithms.networks import Scalar
from pql.algorithms.pql_d import project
from pql.algorithms.residual import CategoricalCritic, ResidualPolicy, unit_columns
from pql.keys import key
from pql.memory.replay import Batch


@dataclass
class FlashSACOptions(Options):
    """The authors' values for 1024 environments."""

    batch_size: int = 2048
    critic_updates_per_step: Optional[float] = 2.0
    critic_updates_per_policy_update: int = 2
    n_step: int = 3
    tau: float = 0.01
    replay_size: int = 5_000_000
    critic_width: int = key(256, "width of the critics' residual stream", identity=True)
    critic_blocks: int = key(2, "residual blocks of a critic", identity=True)
    actor_width: int = key(128, "width of the policy's residual stream", identity=True)
    actor_blocks: int = key(2, "residual blocks of the policy", identity=True)
    expansion: int = key(4, "how many times as wide a block is inside", identity=True)
    num_atoms: int = key(101, "atoms of the return distribution", identity=True)
    value_bound: float = key(5.0, "the atoms lie within this, and rewards are scaled to fit it", identity=True)
    lr_decay_updates: int = key(0, "updates over which step sizes fall to half, along a cosine; 0: they stay")
    temperature_lr: float = key(3e-4, "step size of the temperature")
    initial_temperature: float = key(0.01, "weight of the entropy at first")
    target_std: float = key(0.15, "the temperature steers for the entropy of normal actions this wide")
    noise_steps: int = key(16, "exploration noise is kept for at most so many steps; 1: new at every step")

    def check(self, require: Require) -> None:
        super().check(require)
        for name in ("critic_width", "critic_blocks", "actor_width", "actor_blocks", "expansion", "noise_steps"):
            require(getattr(self, name) >= 1, name, "at least 1")
        for name in ("value_bound", "temperature_lr", "initial_temperature", "target_std"):
            require(getattr(self, name) > 0, name, "greater than 0")
        require(self.num_atoms >= 2, "num_atoms", "at least 2")
        require(self.lr_decay_updates >= 0, "lr_decay_updates", "0 or more")


class FlashSAC(Algorithm):
    """Twin categorical critics, of which the one with the smaller mean is the target, and a tanh-Gaussian policy."""

    Options = FlashSACOptions

    @property
    def return_bound(self) -> float:
        return self.cfg.value_bound

    def groups(self) -> list[Group]:
        c, s = self.cfg, self.spaces
        fall = halving(c.lr_decay_updates)
        return [
            Group("critic", self.make_critic, V_LEARNER, Adam(c.critic_lr, schedule=fall), "critic_loss", tau=c.tau,
                  after_step=unit_columns),
            Group("policy", lambda: ResidualPolicy(s.obs_dim, s.action_dim, c.actor_width, c.actor_blocks, c.expansion),
                  P_LEARNER, Adam(c.actor_lr, schedule=fall), "policy_loss", after_step=unit_columns),
            Group("temperature", lambda: Scalar(math.log(c.initial_temperature)), P_LEARNER,
                  Adam(c.temperature_lr, schedule=fall), "policy_loss"),
        ]  # fmt: skip

    def make_critic(self) -> CategoricalCritic:
        c, width = self.cfg, self.spaces.critic_dim + self.spaces.action_dim
        return CategoricalCritic(width, c.critic_width, c.critic_blocks, c.expansion, c.num_atoms)

    @property
    def target_entropy(self) -> float:
        """Of independent normals with standard deviation `target_std`, in nats."""
        return 0.5 * self.spaces.action_dim * math.log(2 * math.pi * math.e * self.cfg.target_std**2)

    def atoms(self, like: Tensor) -> Tensor:
        bound = self.cfg.value_bound
        return torch.linspace(-bound, bound, self.cfg.num_atoms, device=like.device, dtype=like.dtype)

    def value(self, critic: nn.Module, critic_obs: Tensor, action: Tensor) -> Tensor:
        logits = critic(torch.cat([critic_obs, action], 1))
        return logits.softmax(2) @ self.atoms(logits)

    def critic_loss(self, nets: Nets, batch: Batch, noise: Tensor) -> Loss:
        """Weighted cross-entropy of both critics to the projected soft target of the twin with the smaller mean."""
        y = self.target(nets, batch, noise)
        logits = nets.critic(torch.cat([batch.critic_obs, batch.action], 1))
        cross_entropy = -(F.log_softmax(logits, 2) * y).sum(2)
        loss = (cross_entropy * batch.weight).mean(1).sum()
        q = (logits.detach().softmax(2) @ self.atoms(logits)).mean()
        return loss, {"critic_loss": loss.detach(), "q": q}

    @torch.no_grad()
    def target(self, nets: Nets, batch: Batch, noise: Tensor) -> Tensor:
        """The projected soft target (B, Z)."""
        bound = self.cfg.value_bound
        next_action, log_prob = gaussian.sample(*nets.policy(batch.next_obs), noise)
        probs = nets.critic_target(torch.cat([batch.next_critic_obs, next_action], 1)).softmax(2)
        smaller = (probs @ self.atoms(probs)).argmin(0)  # (B,)
        probs = torch.where((smaller == 0).unsqueeze(1), probs[0], probs[1])
        soft = batch.return_n - batch.discount * nets.temperature().exp() * log_prob
        return project(probs, soft, batch.discount, -bound, bound)

    def diagnose(self, nets: Nets, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        return {"mass_at_ends": mass_at_ends(self.target(nets, batch, noise))}

    def policy_loss(self, nets: Nets, batch: Batch, noise: Tensor) -> Loss:
        """The policy's `alpha log pi - min Q`, and the temperature's `alpha (entropy - target)`, means over rows."""
        action, log_prob = gaussian.sample(*nets.policy(batch.obs), noise)
        q = self.value(nets.critic, batch.critic_obs, action).amin(0)
        temperature = nets.temperature().exp()
        loss = (temperature.detach() * log_prob - q).mean()
        entropy = -gaussian.finite_mean(log_prob.detach())
        return loss + temperature * (entropy - self.target_entropy), {
            "policy_loss": loss.detach(), "temperature": temperature.detach(), "entropy": entropy
        }  # fmt: skip

    def act(self, policy: nn.Module, obs: Tensor) -> Tensor:
        """The mean action."""
        return policy(obs)[0].tanh()

    def exploration(self, num_envs: int, device: torch.device) -> dict[str, Tensor]:
        """Each environment's noise, and for how many more steps it is kept."""
        left = torch.zeros(num_envs, 1, device=device)
        return {"noise": torch.zeros(num_envs, self.spaces.action_dim, device=device), "left": left}

    def explore(self, nets: Nets, obs: Tensor, memory: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        """With noise kept for n steps, the chance of n falling as 1 / n^2 up to `noise_steps`."""
        noise, left = memory["noise"], memory["left"]
        over = left <= 0
        noise.copy_(torch.where(over, normal(noise, generator), noise))
        chance = torch.rand(left.shape, generator=generator, device=left.device)
        longer = (chance > self._zeta(left)).sum(1, keepdim=True)  # steps beyond the first
        left.copy_(torch.where(over, longer.to(left.dtype), left - 1))
        mean, log_std = nets.policy(obs)
        return (mean + log_std.exp() * noise).tanh()

    def _zeta(self, like: Tensor) -> Tensor:
        """P(at most n steps) for n = 1 .. noise_steps - 1."""
        n = torch.arange(1, self.cfg.noise_steps + 1, device=like.device, dtype=like.dtype)
        mass = n.pow(-2.0).cumsum(0)
        return mass[:-1] / mass[-1]


def halving(updates: int) -> Callable[[Tensor], Tensor] | None:
    """A step size that falls from 1 to 1/2 along a cosine within so many updates, and stays there."""
    if updates == 0:
        return None
    return lambda n: 0.75 + 0.25 * torch.cos(math.pi * (n / updates).clamp(max=1.0))
