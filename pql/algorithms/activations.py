"""Activations whose compiled derivative is made of the output.

torch.compile keeps of a rectifier what takes the fewest bytes: a mask of bools. Where that is all that a layer keeps
(its weights are fixed, as the critics' are in a policy's loss), its code for CPUs writes and reads the mask value by
value: rectifiers then cost more than the products that they follow. With the output itself nothing of that is left.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Iterator

import torch
from torch import Tensor, nn


class _Kept(torch.autograd.Function):
    """What keeps its output for its derivative, of one run or of several (vmap)."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)


class _ReLU(_Kept):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grad * y.sign()


class _ELU(_Kept):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return nn.functional.elu(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return grad * (y.clamp(max=0) + 1)


_wanted = False


@contextmanager
def for_a_compiler() -> Iterator[None]:
    """What is traced within is compiled: networks take the form that a compiler does best."""
    global _wanted
    before, _wanted = _wanted, True
    try:
        yield
    finally:
        _wanted = before


def is_for_a_compiler() -> bool:
    """Whether what is called now is being traced to be compiled."""
    return _wanted


class ReLU(nn.ReLU):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return _ReLU.apply(x) if is_for_a_compiler() else super().forward(x)


class ELU(nn.ELU):
    """x where it is positive, exp(x) - 1 elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        return _ELU.apply(x) if is_for_a_compiler() else super().forward(x)


ACTIVATIONS = {"relu": ReLU, "elu": ELU, "silu": nn.SiLU}
