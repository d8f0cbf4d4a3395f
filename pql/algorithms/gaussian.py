"""A normal distribution squashed by tanh: what stochastic policies act with."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor


def sample(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The action tanh(u), u = mean + std * noise, and the logarithm of its density in [-1, 1]^A.

    log(1 - tanh(u)^2) is written as 2 (log 2 - u - softplus(-2 u)), which is exact where tanh(u) rounds to 1.

    Args:
        mean, log_std, noise: (B, A); noise is standard normal.
    Returns:
        (B, A) and (B,).
    """
    u = mean + log_std.exp() * noise
    log_normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2 * math.pi)
    log_slope = 2 * (math.log(2) - u - F.softplus(-2 * u))
    return u.tanh(), (log_normal - log_slope).sum(1)


def finite_mean(values: Tensor) -> Tensor:
    """Mean over the rows (B,) that are finite; 0 where none is: one bad density must not spoil a scalar for good."""
    finite = values.isfinite()
    return values.where(finite, values.new_zeros(())).sum() / finite.sum().clamp(min=1)
