"""Networks: a tanh policy and an ensemble of critics evaluated as one batched computation."""

from __future__ import annotations

from typing import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pql.algorithms.activations import ACTIVATIONS, is_for_a_compiler


def exact(x: Tensor) -> Tensor:
    """What a network answers, in float32 where its layers were bfloat16's under autocast."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """E layers: (E, B, in), (E, in, out), (E, 1, out) -> (E, B, out)."""
    if is_for_a_compiler():  # which adds the bias where it reads the product; baddbmm copies it there before
        return torch.bmm(x, weight) + bias
    return torch.baddbmm(bias, x, weight)


class Features(nn.Identity):
    """Marks what a network's last layer takes, where that is not its last activation: diagnostics look at it."""


def hidden_layers(width: int, hidden: Sequence[int], activation: str, layer_norm: bool) -> list[nn.Module]:
    """Linear, normalisation and activation for each of the `hidden` widths."""
    layers: list[nn.Module] = []
    for size in hidden:
        layers.append(nn.Linear(width, size))
        if layer_norm:
            layers.append(nn.LayerNorm(size, elementwise_affine=False))
        layers.append(ACTIVATIONS[activation]())
        width = size
    return layers


class Policy(nn.Module):
    """Deterministic policy: (B, obs_dim) normalised observations -> (B, action_dim) actions in [-1, 1]."""

    def __init__(
        self, obs_dim: int, action_dim: int, hidden: Sequence[int], activation: str = "relu", layer_norm: bool = True
    ):
        super().__init__()
        layers = hidden_layers(obs_dim, hidden, activation, layer_norm)
        head = nn.Linear(hidden[-1], action_dim)
        with torch.no_grad():  # start near the middle of the action range, where tanh has a gradient
            head.weight.mul_(0.1)
            head.bias.zero_()
        self.body = nn.Sequential(*layers, head)

    def forward(self, obs: Tensor) -> Tensor:
        return torch.tanh(exact(self.body(obs)))


class GaussianPolicy(nn.Module):
    """(B, obs_dim) -> mean and log standard deviation, (B, action_dim) each, of a normal that tanh then squashes."""

    LOG_STD = (-20.0, 2.0)

    def __init__(
        self, obs_dim: int, action_dim: int, hidden: Sequence[int], activation: str = "relu", layer_norm: bool = False
    ):
        super().__init__()
        head = nn.Linear(hidden[-1], 2 * action_dim)
        self.body = nn.Sequential(*hidden_layers(obs_dim, hidden, activation, layer_norm), head)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = exact(self.body(obs)).chunk(2, 1)
        return mean, log_std.clamp(*self.LOG_STD)


class Scalar(nn.Module):
    """One trained number: () -> 0-d."""

    def __init__(self, value: float):
        super().__init__()
        self.number = nn.Parameter(torch.tensor(float(value)))

    def forward(self) -> Tensor:
        return self.number


class EnsembleMLP(nn.Module):
    """E MLPs of one shape, each with its own weights: (B, in_dim) -> (E, B, out_dim).

    One batched matrix product per layer instead of E small ones. Layer normalisation has no learned scale or
    shift: the next layer's weights hold the scale, and the step costs a third less on a CPU.
    """

    def __init__(
        self,
        in_dim: int,
        hidden: Sequence[int],
        out_dim: int,
        ensemble: int = 2,
        activation: str = "relu",
        layer_norm: bool = True,
    ):
        super().__init__()
        self.ensemble = ensemble
        self.layer_norm = layer_norm
        self.activation = ACTIVATIONS[activation]()
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        width = in_dim
        for size in [*hidden, out_dim]:
            bound = width**-0.5  # the distribution of torch.nn.Linear
            self.weights.append(nn.Parameter(torch.empty(ensemble, width, size).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(ensemble, 1, size).uniform_(-bound, bound)))
            width = size

    def forward(self, x: Tensor) -> Tensor:
        h = x.unsqueeze(0).expand(self.ensemble, *x.shape)
        last = len(self.weights) - 1
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            h = affine(h, weight, bias)
            if i < last:
                if self.layer_norm:
                    h = F.layer_norm(h, h.shape[-1:])
                h = self.activation(h)
        return exact(h)
