"""A child's end of the socket to its parent."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection

# they ask a run to stop; its parent answers them
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)


def open_link(socket_number: int) -> Connection:
    """The link; from now on the process leaves signals to its parent."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    os.set_inheritable(socket_number, False)
    return Connection(socket_number)
