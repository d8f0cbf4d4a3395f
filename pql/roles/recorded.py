"""A fixed sequence of tensor operations, written down at its first call and repeated without what composed it."""

from __future__ import annotations

from typing import Any, Callable

import torch


class Recorded:
    """`function`, whose operations at the first call are those of every later one: same shapes, same tensors.

    What vmap, autograd and modules make of a call is a flat list of operations on plain tensors (`make_fx`); repeated,
    it costs the operations alone. As for a CUDA graph, the function may look at no value, and the tensors that it reads
    or writes besides its arguments are those of the first call. Arguments and results are trees of tensors, results
    without a history.
    """

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self.operations: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        if self.operations is not None:
            with torch.no_grad():
                return self.operations(*args)
        from torch.fx.experimental.proxy_tensor import make_fx  # a second, which only those pay who come here

        found = []

        def noted(*args: Any) -> Any:
            found.append(self.function(*args))
            return found[-1]

        self.operations = make_fx(noted)(*args)
        return found[0]
