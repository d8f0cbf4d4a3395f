"""Signals that ask a run to end: Ctrl-C, a closed terminal, a batch system's warnings.

Only the standard library is imported here: a run that is still importing is asked, too.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, Callable

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)


def answer(handler: Callable[[int, Any], Any]) -> dict[int, Any]:
    """Have `handler` answer SIGNALS; returns what did before. A SIGHUP that is ignored, as by nohup, stays so."""
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return {n: signal.signal(n, handler) for n in SIGNALS if not (nohup and n == signal.SIGHUP)}


def end_at_once() -> None:
    """From now on a signal ends this process with one line: while it starts, there is nothing to save."""
    answer(_end)


def exit_code(name: str) -> int:
    """What shells and batch systems expect of a process that a signal ended: 130 for SIGINT, 143 for SIGTERM."""
    return 128 + signal.Signals[name].value


def _end(number: int, _frame: Any) -> None:
    name = signal.Signals(number).name
    print(f"error: stopped by {name} before the run began: nothing was changed", file=sys.stderr, flush=True)
    os._exit(exit_code(name))
