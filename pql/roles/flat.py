"""Networks as one vector: an optimizer step, a soft update and the publication of weights are single operations."""

from __future__ import annotations

from typing import Mapping

import torch
from torch import nn


class Flat:
    """The parameters and floating-point buffers of networks as one vector, and the parameters' gradients as another.

    Parameters and buffers become views of `data`, `.grad` views of `grad`. Each network has a stretch of its own, its
    parameters before its buffers (running statistics). Buffers of integers, which only count, stay where they are.
    """

    def __init__(self, modules: Mapping[str, nn.Module], device: torch.device | str = "cpu"):
        self.modules = {name: module.to(device) for name, module in modules.items()}
        tensors = {name: _tensors(module) for name, module in self.modules.items()}
        found = [t for parts in tensors.values() for kind in parts for _, t in kind]
        dtype = found[0].dtype if found else torch.float32
        self.data = torch.empty(sum(t.numel() for t in found), dtype=dtype, device=device)
        self.grad = torch.zeros_like(self.data)
        self.parameters: dict[str, slice] = {}  # of each network
        self.all: dict[str, slice] = {}  # its buffers too
        begin = 0
        for name, (parameters, buffers) in tensors.items():
            end = begin
            for _, p in parameters:
                view, end = slice(end, end + p.numel()), end + p.numel()
                self.data[view] = p.data.reshape(-1)
                p.data = self.data[view].view_as(p)
                p.grad = self.grad[view].view_as(p)
            self.parameters[name] = slice(begin, end)
            for (owner, key), b in buffers:
                view, end = slice(end, end + b.numel()), end + b.numel()
                self.data[view] = b.reshape(-1)
                owner._buffers[key] = self.data[view].view_as(b)
            self.all[name] = slice(begin, end)
            begin = end

    def __len__(self) -> int:
        return self.data.numel()

    def fixed(self) -> Flat:
        """The same, for those who only use the networks: no gradients, statistics stand still."""
        for module in self.modules.values():
            module.requires_grad_(False).eval()
        return self


def _tensors(module: nn.Module) -> tuple[list, list]:
    parameters = list(module.named_parameters())
    buffers = [
        ((owner, key), b)
        for owner in module.modules()
        for key, b in owner._buffers.items()
        if b is not None and b.is_floating_point()
    ]
    return parameters, buffers
