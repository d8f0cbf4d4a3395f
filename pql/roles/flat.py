"""Networks as one vector: an optimizer step, a soft update and the publication of weights are single operations."""

from __future__ import annotations

from typing import Iterator, Mapping

import torch
from torch import Tensor, nn


class Flat:
    """The parameters and floating-point buffers of networks as one vector, and the parameters' gradients as another.

    Parameters and buffers become views of `data`, `.grad` views of `grad`. Each network has a stretch of its own, its
    parameters before its buffers (running statistics). Buffers of integers, which only count, stay where they are.
    """

    def __init__(self, modules: Mapping[str, nn.Module], device: torch.device | str = "cpu"):
        self.modules = {name: module.to(device) for name, module in modules.items()}
        self.parameters: dict[str, slice] = {}  # of each network
        self.all: dict[str, slice] = {}  # its buffers too
        dtype, begin = None, 0
        for name, module in self.modules.items():
            parameters = sum(p.numel() for p in module.parameters())
            buffers = [b for _, _, b in _buffers(module)]
            dtype = dtype or next((t.dtype for t in (*module.parameters(), *buffers)), None)
            end = begin + parameters + sum(b.numel() for b in buffers)
            self.parameters[name], self.all[name] = slice(begin, begin + parameters), slice(begin, end)
            begin = end
        data = torch.empty(begin, dtype=dtype or torch.float32, device=device)
        self.lie_in(data, torch.zeros_like(data))

    def lie_in(self, data: Tensor, grad: Tensor) -> None:
        """Take over other storage (P,), with the values that parameters and buffers have."""
        self.data, self.grad = data, grad
        for name, module in self.modules.items():
            end = self.all[name].start
            for p in module.parameters():
                view, end = slice(end, end + p.numel()), end + p.numel()
                data[view] = p.data.reshape(-1)
                p.data = data[view].view_as(p)
                p.grad = grad[view].view_as(p)
            for owner, key, b in _buffers(module):
                view, end = slice(end, end + b.numel()), end + b.numel()
                data[view] = b.reshape(-1)
                owner._buffers[key] = data[view].view_as(b)

    def __len__(self) -> int:
        return self.data.numel()

    def fixed(self) -> Flat:
        """The same, for those who only use the networks: no gradients, statistics stand still."""
        for module in self.modules.values():
            module.requires_grad_(False).eval()
        return self


def _buffers(module: nn.Module) -> Iterator[tuple[nn.Module, str, Tensor]]:
    """Floating-point buffers, with who has them by which name."""
    for owner in module.modules():
        for key, b in owner._buffers.items():
            if b is not None and b.is_floating_point():
                yield owner, key, b
