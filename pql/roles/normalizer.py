"""Running statistics: of observations, and of returns."""

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
        m2 += (obs - batch_mean).square().sum(0) + delta.square() * (count * obs.shape[0] / total)
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
        # Before any observation, and for a constant one, the scale is 1. Constant is what varies by no more than
        # float32's rounding of its mean: a rule that knows no units.
        varies = variance > 1e-12 * self.state[1 : 1 + self.dim].square()
        variance = torch.where(varies, variance, torch.ones_like(variance))
        self.inv_std.copy_(variance.rsqrt())

    def __call__(self, obs: Tensor) -> Tensor:
        """(…, K) -> (…, K), the first K <= D columns, clipped to +-clip standard deviations."""
        k = obs.shape[-1]
        return ((obs - self.mean[:k]) * self.inv_std[:k]).clamp(-self.clip, self.clip)


class ReturnScale:
    """Scales rewards by the spread of the discounted returns seen so far, so that values fit a bound.

    `factor` is 1 / max(std of the running discounted return, largest |return| / bound), as in SimbaV2 (Lee et al. 2025,
    section 4.3) and FlashSAC. It moves, so it is applied to what is sampled, not to what is stored. All state is one
    float64 vector [count, mean, sum of squared deviations, largest size].

    Args:
        bound: of the scaled values.
        num_envs, gamma: of the actor, who gathers; the learners only receive.
    """

    SIZE = 4

    def __init__(self, bound: float, num_envs: int = 0, gamma: float = 0.0, device: torch.device | str = "cpu"):
        self.bound, self.gamma = bound, gamma
        self.state = torch.zeros(self.SIZE, dtype=torch.float64, device=device)
        self.running = torch.zeros(num_envs, dtype=torch.float64, device=device)  # (N,) the discounted returns
        self.factor = torch.ones((), device=device)
        self.version = torch.zeros(1, dtype=torch.int64, device=device)

    def update(self, reward: Tensor, done: Tensor) -> None:
        """Take in one vector step: rewards (N,), and whose episodes ended with them (N,)."""
        self.running.mul_(self.gamma).add_(reward)
        count, mean, m2, largest = self.state.unbind()
        n = len(reward)
        batch_mean = self.running.mean()
        delta, total = batch_mean - mean, count + n
        m2 += (self.running - batch_mean).square().sum() + delta.square() * (count * n / total)
        mean += delta * (n / total)
        count.copy_(total)
        largest.copy_(torch.maximum(largest, self.running.abs().max()))
        self.running.masked_fill_(done, 0.0)

    def receive(self, mailbox: Mailbox) -> None:
        """Take the newest statistics, which another process gathers."""
        mailbox.receive(self.state, self.version)
        count, _, m2, largest = self.state.unbind()
        size = torch.maximum((m2 / count.clamp(min=1.0)).sqrt(), largest / self.bound)
        self.factor.copy_(torch.where(size > 0, 1 / size, torch.ones_like(size)))
