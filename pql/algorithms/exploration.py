"""Mixed exploration: every environment has its own noise scale (Li et al. 2023, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor


class MixedNoise:
    """Gaussian action noise whose standard deviation is spread evenly over the environments."""

    def __init__(self, num_envs: int, low: float, high: float, device: torch.device | str = "cpu"):
        self.scale = torch.linspace(low, high, num_envs, device=device).unsqueeze(1)  # (N, 1)

    def __call__(self, action: Tensor, generator: torch.Generator) -> Tensor:
        """(N, A) -> (N, A): noisy actions within [-1, 1]."""
        noise = torch.randn(action.shape, generator=generator, device=action.device)
        return (action + self.scale * noise).clamp_(-1.0, 1.0)
