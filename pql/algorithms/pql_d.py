"""PQL-D: PQL with a categorical critic (C51, Bellemare et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pql.algorithms.base import Loss, Nets, Require
from pql.algorithms.diagnostics import mass_at_ends
from pql.algorithms.pql import PQL, PQLOptions
from pql.keys import key
from pql.memory.replay import Batch


def project(probs: Tensor, return_n: Tensor, discount: Tensor, v_min: float, v_max: float) -> Tensor:
    """Distribute the mass of `return_n + discount * z` onto the atoms z (Bellemare et al. 2017, equation 7).

    Each shifted atom's mass goes to its two neighbours on the grid, in proportion to nearness; mass beyond the
    ends goes to the end atoms. Sums of probabilities are kept.

    Args:
        probs: (B, Z) distribution over the Z atoms linspace(v_min, v_max, Z).
        return_n, discount: (B,), discount in [0, 1].
    Returns:
        (B, Z).
    """
    spacing = (v_max - v_min) / (probs.shape[1] - 1)
    # positions in units of atoms, in float64: in float32 the rounding of b near 50 is already 2e-6
    discount = discount.double().unsqueeze(1)
    shift = (return_n.double().unsqueeze(1) - v_min) / spacing + discount * (v_min / spacing)
    # atomic additions are what a GPU is slow at, gathers what a CPU is
    return (gathered if probs.is_cuda else scattered)(probs, shift, discount)


def scattered(probs: Tensor, shift: Tensor, discount: Tensor) -> Tensor:
    """Atom i's mass, which lies at b = shift + discount * i, added to the atoms on both sides of b."""
    num_atoms = probs.shape[1]
    grid = torch.arange(num_atoms, device=probs.device, dtype=torch.float64)
    b = (shift + discount * grid).clamp_(0, num_atoms - 1)
    lower = b.floor().clamp_(max=num_atoms - 2)
    upper_mass = probs * (b - lower).to(probs.dtype)
    lower = lower.long()
    out = torch.zeros_like(probs)
    out.scatter_add_(1, lower, probs - upper_mass)
    return out.scatter_add_(1, lower.add_(1), upper_mass)


def gathered(probs: Tensor, shift: Tensor, discount: Tensor) -> Tensor:
    """The same without a scatter: an atom's share is a second difference of the integrated distribution.

    With b_i = shift + discount * i and G(x) = sum of p_i (x - b_i) over b_i <= x, the mass that belongs to atoms up
    to j is G(j + 1) - G(j), and all of it at the last. As b_i rises with i, G needs two running sums of probs, of
    p_i and of i p_i, where b_i passes x.
    """
    num_atoms = probs.shape[1]
    p = probs.double()  # differences of sums: float32 would leave 1e-5
    grid = torch.arange(num_atoms, device=probs.device, dtype=torch.float64)
    mass, moment = p.cumsum(1), (p * grid).cumsum(1)
    x = grid - shift.clamp(-num_atoms, num_atoms)  # of an atom, from b_0; further away all mass is at an end anyway
    last = (x / discount.clamp(min=1e-300)).floor().clamp_(-1, num_atoms - 1).long()  # the last i with b_i <= atom
    index = last.clamp(min=0)
    integral = x * mass.gather(1, index) - discount * moment.gather(1, index)
    integral = torch.where(last < 0, 0.0, integral)
    up_to = torch.cat([torch.zeros_like(shift), integral.diff(dim=1), mass[:, -1:]], 1)
    return up_to.diff(dim=1).to(probs.dtype)


@dataclass
class PQLDOptions(PQLOptions):
    num_atoms: int = key(51, "atoms of the return distribution", identity=True)
    v_min: float = key(-10.0, "smallest scaled return represented", identity=True)
    v_max: float = key(10.0, "largest scaled return represented", identity=True)

    def check(self, require: Require) -> None:
        super().check(require)
        require(self.num_atoms >= 2, "num_atoms", "at least 2")
        require(self.v_min < self.v_max, "v_min", "less than algo.v_max")


class PQLD(PQL):
    """The critic predicts the distribution of the return over `num_atoms` atoms in [v_min, v_max]."""

    Options = PQLDOptions

    @property
    def critic_outputs(self) -> int:
        return self.cfg.num_atoms

    def critic_loss(self, nets: Nets, batch: Batch, noise: Tensor) -> Loss:
        """Cross-entropy of both critics to the projected distribution of the twin with the smaller mean.

        The element-wise minimum of two distributions is none; the twin is chosen row by row.
        """
        y = self.target(nets, batch, noise)
        logits = nets.critic(torch.cat([batch.critic_obs, batch.action], 1))
        cross_entropy = -(F.log_softmax(logits, 2) * y).sum(2)
        loss = (cross_entropy * batch.weight).mean(1).sum()
        return loss, {"critic_loss": loss.detach(), "q": self.mean(logits.detach()).mean()}

    @torch.no_grad()
    def target(self, nets: Nets, batch: Batch, noise: Tensor) -> Tensor:
        """The projected distribution (B, Z)."""
        next_action = self.smoothed_action(nets.policy, batch.next_obs, noise)
        probs = nets.critic_target(torch.cat([batch.next_critic_obs, next_action], 1)).softmax(2)
        smaller = (probs @ self.atoms(probs)).argmin(0)  # (B,)
        probs = torch.where((smaller == 0).unsqueeze(1), probs[0], probs[1])
        return project(probs, batch.return_n, batch.discount, self.cfg.v_min, self.cfg.v_max)

    def diagnose(self, nets: Nets, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        return {"mass_at_ends": mass_at_ends(self.target(nets, batch, noise))}

    def atoms(self, like: Tensor) -> Tensor:
        c = self.cfg
        return torch.linspace(c.v_min, c.v_max, c.num_atoms, device=like.device, dtype=like.dtype)

    def mean(self, logits: Tensor) -> Tensor:
        """Critic outputs (E, B, Z) -> values (E, B)."""
        return logits.softmax(2) @ self.atoms(logits)

    def value(self, critic: nn.Module, critic_obs: Tensor, action: Tensor) -> Tensor:
        return self.mean(critic(torch.cat([critic_obs, action], 1)))
