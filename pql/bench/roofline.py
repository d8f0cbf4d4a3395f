"""The roofline of an update (Williams et al. 2009): no machine does it in less time than its larger share asks for.

An update asks for the floating-point operations of its matrix products, at the rate of a large product, and for the
bytes that cross memory where every product is one kernel with all that follows it (bias, normalisation, activation, or
their derivative), at the rate of a large copy. Both are counted from the sizes alone; both rates are measured beside
the update. What stays in a cache crosses no memory: small updates may beat the bytes' bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Sequence

import torch

from pql.algorithms.pql import PQLOptions

MATMUL = {"cpu": 1024, "cuda": 8192}  # rows and columns of the large product
COPY = {"cpu": 1 << 26, "cuda": 1 << 30}  # bytes of the large copy, several times any cache
WORD = 4  # bytes of a float32: parameters, optimizer, replay


@dataclass(frozen=True)
class Work:
    flops: int
    bytes: int

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def seconds(self, flops_per_s: float, bytes_per_s: float) -> float:
        """The least time it takes at these rates."""
        return max(self.flops / flops_per_s, self.bytes / bytes_per_s)


@dataclass(frozen=True)
class Stack:
    """`count` MLPs of one shape, fed the same `rows` inputs; activations take `size` bytes a number."""

    widths: Sequence[int]  # input, hidden layers, output
    rows: int
    count: int = 1
    size: int = WORD

    @property
    def layers(self) -> list[tuple[int, int]]:
        return list(zip(self.widths, self.widths[1:]))

    @property
    def parameters(self) -> int:
        return self.count * sum(i * o + o for i, o in self.layers)

    def product(self, i: int, o: int, inputs: float, outputs: float) -> Work:
        """One layer's product in each: FLOPs, its weights read or written, so many arrays of inputs and outputs."""
        arrays = self.rows * (inputs * i + outputs * o) * self.size
        return Work(2 * self.rows * i * o * self.count, int(self.count * (WORD * i * o + arrays)))

    def forward(self) -> Work:
        """Each layer reads its input, the first one the same for all, and writes its output."""
        inputs = [1 / self.count] + [1] * (len(self.layers) - 1)
        return total(self.product(*layer, inputs=n, outputs=1) for layer, n in zip(self.layers, inputs))

    def weight_gradient(self) -> Work:
        return total(self.product(*layer, inputs=1, outputs=1) for layer in self.layers)

    def input_gradient(self, of_first: bool) -> Work:
        """The gradient of each layer's output becomes its input's, which takes the activation's derivative along."""
        return total(self.product(*layer, inputs=2, outputs=1) for layer in self.layers[0 if of_first else 1 :])


def total(parts) -> Work:
    return sum(parts, Work(0, 0))


def _networks(cfg: PQLOptions, obs_dim: int, action_dim: int, size: int) -> tuple[Stack, Stack]:
    outputs = cfg.num_atoms if cfg.name == "pql_d" else 1
    policy = Stack([obs_dim, *cfg.hidden, action_dim], cfg.batch_size, 1, size)
    return policy, Stack([obs_dim + action_dim, *cfg.hidden, outputs], cfg.batch_size, 2, size)


def _rest(cfg: PQLOptions, obs_dim: int, action_dim: int, trained: Stack) -> Work:
    """The batch's rows; parameters, gradient and both moments in the clip, AdamW and the moving average of weights."""
    return Work(0, WORD * (cfg.batch_size * (2 * obs_dim + action_dim + 3) + 10 * trained.parameters))


def critic_update(cfg: PQLOptions, obs_dim: int, action_dim: int, size: int = WORD) -> Work:
    """Next actions, target critics; critics forward and backward."""
    policy, critic = _networks(cfg, obs_dim, action_dim, size)
    backward = critic.weight_gradient() + critic.input_gradient(of_first=False)
    target = critic.forward()
    return policy.forward() + target + critic.forward() + backward + _rest(cfg, obs_dim, action_dim, critic)


def policy_update(cfg: PQLOptions, obs_dim: int, action_dim: int, size: int = WORD) -> Work:
    """Policy and critics forward, back through the critics to the actions and through the policy."""
    policy, critic = _networks(cfg, obs_dim, action_dim, size)
    backward = critic.input_gradient(of_first=True) + policy.weight_gradient() + policy.input_gradient(of_first=False)
    return policy.forward() + critic.forward() + backward + _rest(cfg, obs_dim, action_dim, policy)


def large_product(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], None], int]:
    """A call to be timed and its FLOPs."""
    n = MATMUL[device.type]
    matrix = torch.randn(n, n, device=device, dtype=dtype)
    out = torch.empty_like(matrix)
    return lambda: torch.mm(matrix, matrix, out=out), 2 * n**3


def large_copy(device: torch.device) -> tuple[Callable[[], None], int]:
    """A call to be timed and the bytes it reads and writes."""
    source = torch.ones(COPY[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source), 2 * source.numel()
