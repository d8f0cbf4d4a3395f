"""Residual networks whose weights are of unit norm (after SimbaV2, Lee et al. 2025, and FlashSAC, 2026).

Every output of a layer is the product of its input with a unit vector, and every layer's output is normalised, so that
neither weights nor features grow, however many updates there are. Layer normalisation stands where FlashSAC has batch
normalisation: one kernel, and no row depends on another, so that a state and its successor need not pass together.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pql.algorithms.activations import ReLU
from pql.algorithms.bronet import Dense, squashed
from pql.algorithms.networks import Features, exact


class UnitDense(Dense):
    """E linear layers without bias, whose columns are kept at norm 1 by `unit_columns`."""

    def __init__(self, in_dim: int, out_dim: int, ensemble: int = 1):
        super().__init__(in_dim, out_dim, ensemble, gain=1.0, bias=False)
        with torch.no_grad():
            self.keep()

    def keep(self) -> None:
        self.weight.div_(self.weight.norm(dim=1, keepdim=True).clamp(min=1e-8))


@torch.no_grad()
def unit_columns(module: nn.Module) -> None:
    """What follows every optimizer step."""
    for layer in module.modules():
        if isinstance(layer, UnitDense):
            layer.keep()


class Residual(nn.Module):
    """(B, in_dim) -> (E, B, width): a layer, `blocks` of two layers beside a skip, and a last normalisation."""

    def __init__(self, in_dim: int, width: int, blocks: int, expansion: int, ensemble: int = 1):
        super().__init__()
        self.ensemble = ensemble
        self.entry = UnitDense(in_dim, width, ensemble)
        self.wide = nn.ModuleList(UnitDense(width, expansion * width, ensemble) for _ in range(blocks))
        self.narrow = nn.ModuleList(UnitDense(expansion * width, width, ensemble) for _ in range(blocks))
        self.width, self.relu, self.features = width, ReLU(), Features()

    def forward(self, x: Tensor) -> Tensor:
        h = self.entry(x.unsqueeze(0).expand(self.ensemble, *x.shape))
        for wide, narrow in zip(self.wide, self.narrow):
            h = h + self.relu(normalised(narrow(self.relu(normalised(wide(h), wide.width))), self.width))
        return self.features(normalised(h, self.width))


def normalised(x: Tensor, width: int) -> Tensor:
    """(..., width) -> the same. The width is told, as torch 2.4's export takes a shape for a variable."""
    return F.layer_norm(x, (width,))


class CategoricalCritic(nn.Module):
    """(B, in_dim) -> (E, B, atoms): logits of the return's distribution."""

    def __init__(self, in_dim: int, width: int, blocks: int, expansion: int, atoms: int, ensemble: int = 2):
        super().__init__()
        self.body = Residual(in_dim, width, blocks, expansion, ensemble)
        self.head, self.bias = UnitDense(width, atoms, ensemble), nn.Parameter(torch.zeros(ensemble, 1, atoms))

    def forward(self, x: Tensor) -> Tensor:
        return exact(self.head(self.body(x)) + self.bias)


class ResidualPolicy(nn.Module):
    """(B, obs_dim) -> mean and log standard deviation (B, A) of a normal that tanh then squashes."""

    LOG_STD = (-10.0, 2.0)

    def __init__(self, obs_dim: int, action_dim: int, width: int, blocks: int, expansion: int):
        super().__init__()
        self.body = Residual(obs_dim, width, blocks, expansion)
        self.head, self.bias = UnitDense(width, 2 * action_dim), nn.Parameter(torch.zeros(2 * action_dim))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = exact(self.head(self.body(obs)).squeeze(0) + self.bias).chunk(2, 1)
        return mean, squashed(log_std, *self.LOG_STD)
