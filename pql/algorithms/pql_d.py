"""PQL-D: PQL with a categorical critic (C51, Bellemare et al. 2017)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pql.algorithms.pql import PQL
from pql.replay import Batch


def project(probs: Tensor, return_n: Tensor, discount: Tensor, v_min: float, v_max: float) -> Tensor:
    """Distribute the mass of `return_n + discount * z` onto the atoms z (Bellemare et al. 2017, equation 7).

    Each shifted atom's mass goes to its two neighbours on the grid, in proportion to nearness; mass beyond the
    ends goes to the end atoms. Sums of probabilities are kept.

    Args:
        probs: (B, Z) distribution over the Z atoms linspace(v_min, v_max, Z).
        return_n, discount: (B,).
    Returns:
        (B, Z).
    """
    num_atoms = probs.shape[1]
    spacing = (v_max - v_min) / (num_atoms - 1)
    # positions in units of atoms, in float64: in float32 the rounding of b near 50 is already 2e-6
    grid = torch.arange(num_atoms, device=probs.device, dtype=torch.float64)
    shift = (return_n.double() - v_min) / spacing + discount.double() * (v_min / spacing)
    b = (shift.unsqueeze(1) + discount.double().unsqueeze(1) * grid).clamp_(0, num_atoms - 1)
    lower = b.floor().clamp_(max=num_atoms - 2)
    upper_mass = probs * (b - lower).to(probs.dtype)
    lower = lower.long()
    out = torch.zeros_like(probs)
    out.scatter_add_(1, lower, probs - upper_mass)
    return out.scatter_add_(1, lower.add_(1), upper_mass)


class PQLD(PQL):
    """The critic predicts the distribution of the return over `num_atoms` atoms in [v_min, v_max]."""

    def __init__(self, cfg, obs_dim: int, action_dim: int, critic_obs_dim: int = 0):
        super().__init__(cfg, obs_dim, action_dim, critic_obs_dim)
        self.critic_outputs = cfg.num_atoms

    def critic_loss(
        self, critic: nn.Module, target: nn.Module, policy: nn.Module, batch: Batch, noise: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of both critics to the projected distribution of the twin with the smaller mean.

        The element-wise minimum of two distributions is none; the twin is chosen row by row.
        """
        with torch.no_grad():
            next_action = self.smoothed_action(policy, batch.next_obs, noise)
            probs = target(torch.cat([batch.next_critic_obs, next_action], 1)).softmax(2)
            smaller = (probs @ self.atoms(probs)).argmin(0)  # (B,)
            probs = torch.where((smaller == 0).unsqueeze(1), probs[0], probs[1])
            y = project(probs, batch.return_n, batch.discount, self.cfg.v_min, self.cfg.v_max)
        logits = critic(torch.cat([batch.critic_obs, batch.action], 1))
        cross_entropy = -(F.log_softmax(logits, 2) * y).sum(2)
        loss = (cross_entropy * batch.weight).mean(1).sum()
        return loss, {"critic_loss": loss.detach(), "q": self.value(logits.detach()).mean()}

    def atoms(self, like: Tensor) -> Tensor:
        c = self.cfg
        return torch.linspace(c.v_min, c.v_max, c.num_atoms, device=like.device, dtype=like.dtype)

    def value(self, outputs: Tensor) -> Tensor:
        return outputs.softmax(2) @ self.atoms(outputs)
