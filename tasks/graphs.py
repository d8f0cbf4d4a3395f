"""A fixed sequence of torch operations as one CUDA graph."""

from __future__ import annotations

import gc
import sys
from contextlib import contextmanager
from typing import Any, Callable, Iterator

import torch
from torch import Tensor

WARM_UP = 2  # calls that run as they are: libraries allocate and choose kernels when they are first used


class TorchGraph:
    """Calls `function` twice, then records it and replays the recording, on torch's current stream.

    Its tensors must live where they lived when it was recorded: what the function reads besides its inputs is
    overwritten in place by whoever owns it, and inputs at other addresses are recorded anew. What it returns is the
    same memory at every call, in new tuples and dicts, and those that it is given are its own: it may change them.
    Random numbers come from `generator` and are those of an unrecorded call. Where it can't be recorded one line says
    so, and the function goes on being called.
    """

    def __init__(self, function: Callable[..., Any], generator: torch.Generator):
        self.function, self.generator = function, generator
        self.recordings = 0
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._addresses: list[int] | None = None

    def __call__(self, *inputs: Any) -> Any:
        self._calls += 1
        addresses = [tensor.data_ptr() for tensor in _tensors(inputs)]
        if self._calls > WARM_UP and addresses != self._addresses:
            self._graph = self._record(inputs)
            self._addresses = addresses
        if self._graph is None:
            return self.function(*inputs)
        self._graph.replay()
        return _anew(self._outputs)

    def _record(self, inputs: tuple[Any, ...]) -> torch.cuda.CUDAGraph | None:
        self.recordings += 1
        self._inputs = inputs  # kept: the recording has their addresses
        graph = torch.cuda.CUDAGraph()
        try:
            graph.register_generator_state(self.generator)
            with no_collection(), torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._outputs = self.function(*_anew(inputs))
        except RuntimeError as error:
            return note_no_graph(error)
        return graph


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _tensors(part)


def _anew(value: Any) -> Any:
    """The same tensors in new tuples and dicts."""
    if isinstance(value, dict):
        return {key: _anew(part) for key, part in value.items()}
    if isinstance(value, tuple):
        parts = [_anew(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def note_no_graph(error: RuntimeError, slower: str = "environment steps are") -> None:
    """Say that it goes on without a graph, and why."""
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    print(f"note: no CUDA graph ({reason}), so {slower} slower", file=sys.stderr, flush=True)


@contextmanager
def no_collection() -> Iterator[None]:
    """Python's collector might free another graph's memory in the middle of a recording, which CUDA refuses."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
