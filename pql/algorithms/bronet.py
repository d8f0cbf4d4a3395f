"""BroNet: residual layers behind layer normalisation (Nauman et al. 2024, figure 2), alone or as an ensemble."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pql.algorithms.activations import ReLU
from pql.algorithms.networks import Features, affine, exact

GAIN = 2**0.5  # of the orthogonal initial weights, heads included
EPSILON = 1e-6  # of the layer normalisation


class Dense(nn.Module):
    """E linear layers of one shape: (E, B, in_dim) -> (E, B, out_dim), orthogonal at first."""

    def __init__(self, in_dim: int, out_dim: int, ensemble: int = 1, gain: float = GAIN, bias: bool = True):
        super().__init__()
        self.width = out_dim
        weights = [nn.init.orthogonal_(torch.empty(in_dim, out_dim), gain) for _ in range(ensemble)]
        self.weight = nn.Parameter(torch.stack(weights))
        self.bias = nn.Parameter(torch.zeros(ensemble, 1, out_dim)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return torch.bmm(x, self.weight) if self.bias is None else affine(x, self.weight, self.bias)


class Norm(nn.Module):
    """Layer normalisation with a learned scale and shift for each member: (E, B, width) -> the same."""

    def __init__(self, width: int, ensemble: int = 1):
        super().__init__()
        self.width = width  # not the input's shape, which torch 2.4's export takes for a variable
        self.scale = nn.Parameter(torch.ones(ensemble, 1, width))
        self.shift = nn.Parameter(torch.zeros(ensemble, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, F.layer_norm(x, (self.width,), eps=EPSILON), self.scale)


class BroNet(nn.Module):
    """(B, in_dim) -> (E, B, width): a normalised layer, then `blocks` of two normalised layers beside a skip."""

    def __init__(self, in_dim: int, width: int, blocks: int, ensemble: int = 1):
        super().__init__()
        self.ensemble = ensemble
        self.entry = nn.Sequential(Dense(in_dim, width, ensemble), Norm(width, ensemble), ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(
                Dense(width, width, ensemble), Norm(width, ensemble), ReLU(),
                Dense(width, width, ensemble), Norm(width, ensemble),
            )
            for _ in range(blocks)
        )  # fmt: skip
        self.features = Features()

    def forward(self, x: Tensor) -> Tensor:
        h = self.entry(x.unsqueeze(0).expand(self.ensemble, *x.shape))
        for block in self.blocks:
            h = h + block(h)
        return self.features(h)


class QuantileCritic(nn.Module):
    """(B, in_dim) -> (E, B, quantiles): the quantiles of the return, one set for each member."""

    def __init__(self, in_dim: int, width: int, blocks: int, quantiles: int, ensemble: int = 2):
        super().__init__()
        self.body = nn.Sequential(BroNet(in_dim, width, blocks, ensemble), Dense(width, quantiles, ensemble))

    def forward(self, x: Tensor) -> Tensor:
        return exact(self.body(x))


class BroPolicy(nn.Module):
    """(B, obs_dim) -> mean and log standard deviation (B, A) of a normal that tanh then squashes."""

    LOG_STD = (-10.0, 2.0)

    def __init__(self, obs_dim: int, action_dim: int, width: int, blocks: int):
        super().__init__()
        self.body = BroNet(obs_dim, width, blocks)
        self.mean, self.log_std = Dense(width, action_dim), Dense(width, action_dim, gain=1.0)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(obs)
        return exact(self.mean(h).squeeze(0)), squashed(exact(self.log_std(h).squeeze(0)), *self.LOG_STD)


class Shift(nn.Module):
    """Observation and the policy's mean -> what the optimistic policy adds to that mean, (B, A)."""

    def __init__(self, obs_dim: int, action_dim: int, width: int, blocks: int):
        super().__init__()
        head = Dense(width, action_dim, gain=0.01, bias=False)
        self.body = nn.Sequential(BroNet(obs_dim + action_dim, width, blocks), head)

    def forward(self, obs: Tensor, mean: Tensor) -> Tensor:
        return exact(self.body(torch.cat([obs, mean], 1)).squeeze(0))


def squashed(x: Tensor, low: float, high: float) -> Tensor:
    """Into (low, high) by tanh, 0 to the middle."""
    return low + (high - low) * 0.5 * (1 + x.tanh())
