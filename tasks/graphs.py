"""A fixed sequence of torch operations as one CUDA graph."""

from __future__ import annotations

import gc
import sys
import warnings
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Sequence

import torch
from torch import Tensor

WARM_UP = 3  # calls that run as they are: libraries allocate and choose kernels when they are first used


class TorchGraph:
    """Calls `function` WARM_UP times, then records it and replays the recording, on torch's current stream.

    The function must not look at a tensor's value. Its tensors must live where they lived when it was recorded: what it
    reads besides its inputs is overwritten in place by whoever owns it, and inputs at other addresses are recorded
    anew. What it returns is the same memory at every call, in new tuples and dicts, and those that it is given are its
    own: it may change them. Random numbers are those of an unrecorded call. Where it can't be recorded (as it makes the
    host wait, say) one line tells why, and the function goes on being called, as it is on a CPU.

    Args:
        generators: what it draws from.
        enabled: False: plain calls.
        what: is slower without a graph, for the line that says so.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        device: torch.device,
        generators: Sequence[torch.Generator],
        enabled: bool = True,
        what: str = "environment steps",
    ):
        self.function, self.device, self.generators, self.what = function, device, generators, what
        self.enabled = enabled and device.type == "cuda"
        self.graph: torch.cuda.CUDAGraph | None = None
        self.calls = self.recordings = 0
        self._addresses: list[int] = []

    def __call__(self, *inputs: Any) -> Any:
        if self.enabled and self.calls < WARM_UP:
            self.calls += 1
            with waits_noted() as waits:
                outputs = self._beside(inputs)
            if waits and self.calls == WARM_UP:  # a recording would fail, and that may leave torch in pieces
                self._give_up(waits[0])
            return outputs
        if self.enabled:
            addresses = [tensor.data_ptr() for tensor in _tensors(inputs)]
            if self.graph is None or addresses != self._addresses:
                self._addresses, self.graph = addresses, self._record(inputs)
        if self.graph is None:
            return self.function(*inputs)
        self.graph.replay()
        return _anew(self._outputs)

    def _beside(self, inputs: tuple[Any, ...]) -> Any:
        """A call on a stream of its own, as one before a recording should be, in order with the current one."""
        current, stream = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            outputs = self.function(*inputs)
        current.wait_stream(stream)
        return outputs

    def _record(self, inputs: tuple[Any, ...]) -> torch.cuda.CUDAGraph | None:
        self.recordings += 1
        self._inputs = inputs  # kept: the recording has their addresses
        graph = torch.cuda.CUDAGraph()
        used = [torch.cuda.default_generators[self.device.index or 0], *self.generators]
        states = [generator.get_state() for generator in used]
        try:
            for generator in self.generators:
                graph.register_generator_state(generator)
            with no_collection(), torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._outputs = self.function(*_anew(inputs))
        except RuntimeError as error:
            # torch leaves them behind as if they were still being recorded, and every later draw would fail
            for generator, state in zip(used, states):
                generator.graphsafe_set_state(torch.Generator(self.device).set_state(state))
            self._give_up(error)
            return None
        return graph

    def _give_up(self, why: object) -> None:
        self.enabled = False
        note_no_graph(why, self.what)


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


def note_no_graph(why: object, what: str = "environment steps") -> None:
    """Say that it goes on without a graph, and why."""
    reason = next((line for line in str(why).splitlines() if line.strip()), type(why).__name__)
    print(f"note: no CUDA graph ({reason}), so {what} are slower", file=sys.stderr, flush=True)


@contextmanager
def waits_noted() -> Iterator[list[str]]:
    """Where within the host waited for the device: 'file:line: which operation'."""
    found: list[str] = []
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            yield found
    finally:
        torch.cuda.set_sync_debug_mode(before)
    for one in told:
        if "synchronizing" in str(one.message):
            found.append(f"{one.filename}:{one.lineno}: {one.message}")
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


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
