"""Networks as one vector: an optimizer step, a soft update and the publication of weights are single operations."""

from __future__ import annotations

from typing import Iterator, Mapping, NamedTuple

import torch
from torch import Tensor, nn


class Owned(NamedTuple):
    """A parameter or a buffer of a network."""

    name: str  # as the network has it, with dots
    owner: nn.Module  # of a buffer: the module itself, and its name there
    key: str
    tensor: Tensor


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
            tensors = [*module.parameters(), *(owned.tensor for owned in _buffers(module))]
            dtype = dtype or next((t.dtype for t in tensors), None)
            end = begin + sum(t.numel() for t in tensors)
            self.parameters[name], self.all[name] = slice(begin, begin + parameters), slice(begin, end)
            begin = end
        data = torch.empty(begin, dtype=dtype or torch.float32, device=device)
        self.lie_in(data, torch.zeros_like(data))

    def lie_in(self, data: Tensor, grad: Tensor) -> None:
        """Take over other storage (P,), with the values that parameters and buffers have."""
        self.data, self.grad = data, grad
        for _, (_, owner, key, t), view in self.places():
            data[view] = t.detach().reshape(-1)
            if isinstance(t, nn.Parameter):
                t.data = data[view].view_as(t)
                t.grad = grad[view].view_as(t)
            else:
                owner._buffers[key] = data[view].view_as(t)

    def places(self) -> Iterator[tuple[str, Owned, slice]]:
        """Of each parameter and buffer: its network's name, whose it is by which name, and where it lies in `data`."""
        for name, module in self.modules.items():
            end = self.all[name].start
            for owned in (*_parameters(module), *_buffers(module)):
                view, end = slice(end, end + owned.tensor.numel()), end + owned.tensor.numel()
                yield name, owned, view

    def tensors(self, data: Tensor, leaves: bool = False) -> dict[str, dict[str, Tensor]]:
        """Network -> parameter or buffer -> its values in other vectors `data` (..., P), as views.

        Args:
            leaves: parameters are detached, to be differentiated by.
        """
        found: dict[str, dict[str, Tensor]] = {name: {} for name in self.modules}
        for name, owned, where in self.places():
            value = data[..., where].view((*data.shape[:-1], *owned.tensor.shape))
            if leaves and isinstance(owned.tensor, nn.Parameter):
                value = value.detach().requires_grad_()
            found[name][owned.name] = value
        return found

    def __len__(self) -> int:
        return self.data.numel()

    def fixed(self) -> Flat:
        """The same, for those who only use the networks: no gradients, statistics stand still."""
        for module in self.modules.values():
            module.requires_grad_(False).eval()
        return self


def _parameters(module: nn.Module) -> Iterator[Owned]:
    for name, p in module.named_parameters():
        yield Owned(name, module, "", p)


def _buffers(module: nn.Module) -> Iterator[Owned]:
    """Those of floating-point numbers."""
    for prefix, owner in module.named_modules():
        for key, b in owner._buffers.items():
            if b is not None and b.is_floating_point():
                yield Owned(f"{prefix}.{key}" if prefix else key, owner, key, b)
