"""A fixed sequence of Warp launches as one graph, on a GPU and on a CPU alike."""

from __future__ import annotations

import operator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, Callable, Iterator

import torch
import warp as wp

from tasks.graphs import no_collection, note_no_graph


@contextmanager
def on_torchs_stream(device: torch.device) -> Iterator[None]:
    """What Warp does within is in order with what torch does before and after, without a wait."""
    stream = wp.stream_from_torch(torch.cuda.current_stream(device)) if device.type == "cuda" else None
    with wp.ScopedDevice(wp.device_from_torch(device)), wp.ScopedStream(stream, sync_enter=False):
        yield


class WarpGraph:
    """Launches what `function` launches, recorded once, on torch's current stream.

    A graph holds addresses and constants, not the objects they came from: one recorded before an array was
    replaced would go on using the old one, silently. So each launch compares, by identity, all that the
    dataclasses `owner.<name>` hold with what they held when it was recorded, and records anew if anything was
    replaced. The old arrays live as long as the graph that has their addresses. Where it can't be recorded one line
    says so, and the function goes on being called.
    """

    def __init__(self, function: Callable[[], None], device: torch.device, owner: Any, *names: str):
        self.function, self.device, self.owner = function, device, owner
        self.recordings = 0
        self._values = operator.attrgetter(*(leaf for name in names for leaf in _leaves(getattr(owner, name), name)))
        self._held: tuple[Any, ...] = ()
        self._device = wp.device_from_torch(device)
        self._graph: Any = None
        self._streams: dict[int, wp.Stream] = {}

    def __call__(self) -> None:
        held = self._values(self.owner)
        if not self._held or not all(map(operator.is_, held, self._held)):
            self._graph, self._held = self._record(), held
        if self._graph is not None:
            wp.capture_launch(self._graph, stream=self._current_stream())
        else:
            with on_torchs_stream(self.device):
                self.function()

    def _record(self) -> Any:
        self.recordings += 1
        side = None  # on a CPU; on a GPU a stream of its own, for the current one may be one that can't be recorded on
        if self.device.type == "cuda":
            side = wp.stream_from_torch(torch.cuda.Stream(self.device))
        device = self._device
        try:
            with no_collection(), wp.ScopedDevice(device), wp.ScopedStream(side), wp.ScopedCapture(device, side) as new:
                self.function()
        except RuntimeError as error:
            return note_no_graph(error)
        return new.graph

    def _current_stream(self) -> wp.Stream | None:
        if self.device.type != "cuda":
            return None
        stream = torch.cuda.current_stream(self.device)
        if stream.cuda_stream not in self._streams:
            self._streams[stream.cuda_stream] = wp.stream_from_torch(stream)
        return self._streams[stream.cuda_stream]


def _leaves(value: Any, name: str) -> list[str]:
    """Dotted names of everything that a dataclass called `name`, and the dataclasses in it, hold."""
    if not is_dataclass(value):
        return [name]
    return [leaf for field in fields(value) for leaf in _leaves(getattr(value, field.name), f"{name}.{field.name}")]
