"""Between torch and the simulator: handles of tensors. No copy either way."""

import torch


class Handle:
    """What the simulator's functions give and take instead of a tensor."""

    def __init__(self, tensor):
        self.tensor = tensor


def wrap_tensor(handle):
    """The tensor whose memory the handle stands for."""
    return handle.tensor


def unwrap_tensor(tensor):
    """A handle of a tensor's memory, which must be contiguous."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError("unwrap_tensor takes a tensor")
    if not tensor.is_contiguous():
        raise ValueError("Input tensor must be contiguous")
    return Handle(tensor)
