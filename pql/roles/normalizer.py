"""Running mean and variance of observations."""

from __future__ import annotations

import torch
from torch import Tensor

from pql.memory.shared import Mailbox


class Normalizer:
    """Normalises observations by the mean and variance of all seen so far.

    Moments are merged batch by batch (Chan, Golub, LeVeque 1979) in float64. All state is one vector
    `state` = [count, mean (D), sum of squared deviations (D)], so that it travels as one tensor.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu", clip: float = 10.0):
        self.dim = dim
        self.clip = clip
        self.state = torch.zeros(1 + 2 * dim, dtype=torch.float64, device=device)
        self.mean = torch.zeros(dim, device=device)
        self.inv_std = torch.ones(dim, device=device)
        self.version = torch.zeros(1, dtype=torch.int64, device=device)

    def update(self, obs: Tensor) -> None:
        """Take in a batch of observations (B, D)."""
        obs = obs.double()
        count, mean, m2 = self.state[:1], self.state[1 : 1 + self.dim], self.state[1 + self.dim :]
        batch_mean = obs.mean(0)
        delta = batch_mean - mean
        total = count + obs.shape[0]
        m2 += (obs - batch_mean).square_().sum(0) + delta.square() * (count * obs.shape[0] / total)
        mean += delta * (obs.shape[0] / total)
        count.copy_(total)
        self.refresh()

    def receive(self, mailbox: Mailbox) -> None:
        """Take the newest statistics, where another process gathers them."""
        before = None if mailbox.on_device else int(self.version)
        mailbox.receive(self.state, self.version)
        if before is None or before != int(self.version):
            self.refresh()

    def refresh(self) -> None:
        """Derive scale and shift from `state`, after it was updated or received."""
        count = self.state[:1].clamp_min(1.0)
        self.mean.copy_(self.state[1 : 1 + self.dim])
        variance = self.state[1 + self.dim :] / count
        # before any observation, and for a constant one, the scale is 1
        variance = torch.where(variance > 1e-8, variance, torch.ones_like(variance))
        self.inv_std.copy_(variance.rsqrt())

    def __call__(self, obs: Tensor) -> Tensor:
        """(…, K) -> (…, K), the first K <= D columns, clipped to +-clip standard deviations."""
        k = obs.shape[-1]
        return ((obs - self.mean[:k]) * self.inv_std[:k]).clamp_(-self.clip, self.clip)
