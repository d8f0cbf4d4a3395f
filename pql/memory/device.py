"""A role's work on a GPU: where it is done, and never much of it in flight.

CUDA runs behind the host. A counter that the host raises therefore says what was asked for, not what is done; what
crosses a process border there is guarded by the order of kernels (`Mailbox`, `Replay`), and `InFlight` bounds how far
behind the device may be. Waiting for one's own work of two steps ago is the only wait of a role for its device.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pql.memory.pacing import IN_FLIGHT


def device_of(cfg: Any, role: str) -> torch.device:
    """Where a role computes: the run's device, or one that a learner has to itself."""
    own = {"v_learner": cfg.algo.v_device, "p_learner": cfg.algo.p_device}.get(role)
    return torch.empty(0, device=own or cfg.device).device  # with its index, "cuda" has none


def mps_is_running() -> bool:
    """Whether NVIDIA's Multi-Process Service is there, by which kernels of several processes overlap on one GPU."""
    return (Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")) / "control").exists()


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
