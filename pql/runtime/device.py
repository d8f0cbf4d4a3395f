"""A role's work on a GPU: recorded once and replayed, and never much of it in flight. On a CPU: plain calls.

CUDA runs behind the host. A counter that the host raises therefore says what was asked for, not what is done; what
crosses a process border there is guarded by the order of kernels (`Mailbox`, `Replay`), and `InFlight` bounds how far
behind the device may be. Waiting for one's own work of two steps ago is the only wait of a role for its device.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable, Sequence

import torch
from torch import Tensor

from pql.runtime.pacing import IN_FLIGHT
from tasks.graphs import no_collection, note_no_graph


def device_of(cfg: Any, role: str) -> torch.device:
    """Where a role computes: the run's device, or one that a learner has to itself."""
    own = {"v_learner": cfg.algo.v_device, "p_learner": cfg.algo.p_device}.get(role)
    return torch.empty(0, device=own or cfg.device).device  # with its index, "cuda" has none


def mps_is_running() -> bool:
    """Whether NVIDIA's Multi-Process Service is there, by which kernels of several processes overlap on one GPU."""
    return (Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")) / "control").exists()


class Graphed:
    """`function()` as a CUDA graph, after a few plain calls in which libraries set themselves up.

    The function takes and returns nothing. It must not look at a tensor's value, and whatever it reads or writes
    must live in tensors that stay where they are. Where a graph cannot be captured one line says so and the function
    goes on being called. (`tasks.graphs.TorchGraph` is for functions of inputs, without a gradient.)

    Args:
        generators: that the function draws from.
        enabled: False: plain calls.
    """

    WARM_UP = 3

    def __init__(
        self,
        function: Callable[[], None],
        device: torch.device,
        generators: Sequence[torch.Generator] = (),
        enabled: bool = True,
    ):
        self.function, self.device, self.generators = function, device, generators
        self.enabled = enabled and device.type == "cuda"
        self.graph: torch.cuda.CUDAGraph | None = None
        self.calls = 0

    def __call__(self) -> None:
        if not self.enabled:
            self.function()
            return
        if self.graph is None:
            if self.calls < self.WARM_UP:
                self._beside(self.function)
                self.calls += 1
                return
            self._beside(self._capture)
            if self.graph is None:
                self.function()
                return
        self.graph.replay()

    def _beside(self, work: Callable[[], None]) -> None:
        """On a stream of its own, as capturing asks for, in order with the current one."""
        current, stream = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            work()
        current.wait_stream(stream)

    def _capture(self) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            for generator in self.generators:
                graph.register_generator_state(generator)
            stream = torch.cuda.current_stream()
            with no_collection(), torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self.function()
            self.graph = graph
        except RuntimeError as error:
            note_no_graph(error, "updates are")
            self.enabled = False


class InFlight:
    """Call after each step: returns once the step of IN_FLIGHT calls ago is done on the device."""

    def __init__(self, device: torch.device):
        self.on_gpu = device.type == "cuda"
        self.lag = IN_FLIGHT if self.on_gpu else 0
        self.calls = 0
        self.events = [torch.cuda.Event(blocking=True) for _ in range(self.lag)]
        self.copies: list[Tensor | None] = [None] * self.lag

    def __call__(self, report: Tensor | None = None) -> Tensor | None:
        """The `report` of `lag` calls ago, on the host; on a CPU this one. None at first."""
        if not self.on_gpu:
            return report
        slot = self.calls % self.lag
        self.calls += 1
        self.events[slot].synchronize()
        earlier = self.copies[slot]
        earlier = None if earlier is None else earlier.clone()
        if report is not None:
            if self.copies[slot] is None:
                self.copies[slot] = torch.empty(report.shape, dtype=report.dtype, pin_memory=True)
            self.copies[slot].copy_(report, non_blocking=True)
        self.events[slot].record()
        return earlier
