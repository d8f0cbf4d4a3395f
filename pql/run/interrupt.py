"""Signals that ask a run to end, as Ctrl-C and a batch system send them."""

from __future__ import annotations

import signal
from typing import Any

from pql import signals


class Interrupt:
    """`pql.signals.SIGNALS` ask a run to end with a checkpoint; a second SIGINT ends it at once."""

    def __init__(self) -> None:
        self.name: str | None = None

    def __enter__(self) -> Interrupt:
        self.before = signals.answer(self._handle)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: Any) -> None:
        if self.name and number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a third must not disturb the tidying up
            raise KeyboardInterrupt
        self.name = self.name or signal.Signals(number).name
