"""Batches from a ring that is far away: while an update runs the next one's batch is drawn.

A batch is then of the ring as it was an update earlier: with 8 updates per vector step one in 8 misses the newest rows.
How many updates there are, and when, does not change, and as a batch is still drawn within an update, the guard of
`Replay` is as wide as ever. What was drawn is saved nowhere: a run that goes on draws anew. `runtime=sync` does
without, so that its runs are the same to the bit wherever the ring lies.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Callable, Iterator

import torch

from pql.memory.replay import Rows


class Prefetch:
    """Draws on a stream of its own, which a CUDA graph of an update records as a branch.

    Args:
        sample: draws a batch, on the current stream.
    """

    def __init__(self, sample: Callable[[], Rows], device: torch.device):
        self.sample, self.device = sample, device
        self.stream = torch.cuda.Stream(device)
        self.rows: Rows | None = None  # of the next update, always in the same memory

    def begin(self) -> None:
        """Before an update: draw the first batch, if none was."""
        if self.rows is None:
            self.rows = Rows(*(part.clone() for part in self.sample()))

    @contextmanager
    def beside(self) -> Iterator[None]:
        """While the update with `rows` is asked for; what is drawn meanwhile takes their place at the end."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            drawn = self.sample()
        yield
        current.wait_stream(self.stream)
        for mine, its in zip(self.rows, drawn):
            mine.copy_(its)
