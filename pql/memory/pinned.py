"""Host memory that a GPU's kernels read and write where it lies.

Pinned and mapped, it is a tensor of the device in all but its place. All who use it do so by kernels of that one GPU,
whose reads don't overtake its writes on their way to the host, so that what holds of the order of kernels in the GPU's
own memory holds here: nothing that rests on it (`Replay`, CUDA graphs) knows the difference, but for the speed.
"""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from pql.errors import UserError

PORTABLE, MAPPED = 1, 2  # cudaHostRegister's flags


class Pinned:
    """A CPU tensor's memory, as something that torch finds on the current GPU; unpinned once nobody has it."""

    def __init__(self, tensor: Tensor):
        self.tensor = tensor  # keeps its memory
        cuda, address, size = torch.cuda.cudart(), tensor.data_ptr(), tensor.numel() * tensor.element_size()
        code = int(cuda.cudaHostRegister(address, size, PORTABLE | MAPPED))
        if code:
            raise UserError(
                f"{size / 2**30:.1f} GiB of the host's memory can't be pinned for the replay ring (CUDA error {code}): "
                "lower algo.replay_size, or leave algo.replay_device out"
            )
        weakref.finalize(self, cuda.cudaHostUnregister, address).atexit = False  # a process that ends takes it along
        self.__cuda_array_interface__ = {
            "shape": tuple(tensor.shape), "typestr": tensor.numpy().dtype.str, "data": (address, False), "version": 2,
        }  # fmt: skip


def mapped(tensor: Tensor, device: torch.device) -> Tensor:
    """The memory of a contiguous CPU tensor as a tensor of a GPU; once for a tensor in a process. Raises UserError."""
    with torch.cuda.device(device):
        view = torch.as_tensor(Pinned(tensor), device="cuda")  # told no index, it asks CUDA whose the address is
    assert view.device == device and view.data_ptr() == tensor.data_ptr(), f"a copy on {view.device}"
    return view
