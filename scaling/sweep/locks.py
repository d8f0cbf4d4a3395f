"""Locks on files: one holder per cell, released when its process dies, recovered when its node does.

A lock is a `flock` on a file that names its holder, whose time stamp the holder renews every `BEAT_S`. On one machine
the kernel's word is final: it frees the lock when the last process holding it is gone. Across machines the kernel may
be silent (a mount whose flock stays local) or hold on for ever (a dead NFSv3 client), so a foreign holder counts for as
long as its time stamp moves, and no longer than `STALE_S` after it stops. A holder that was overruled learns it from
`beat` and must stop.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any, Iterator

from scaling.errors import InputError

BEAT_S = 10.0  # a holder's sign of life; cheap on a shared file system at hundreds of cells
STALE_S = 120.0  # twelve missed beats: longer than an NFS server's usual hiccup or attribute cache
HOST = socket.gethostname()


class CellLock:
    """The right to run one cell.

    `fd` may be inherited by the cell's own process (`pass_fds`): the lock then lasts until that one is gone too, even
    if the process that took it was killed.
    """

    def __init__(self, path: Path):
        self.path = path
        self.fd = -1

    def acquire(self, patience_s: float = 2.0) -> bool:
        """Take the lock, or give up after `patience_s` and return False.

        The default outlasts the instant in which `holder` looks at the lock.
        """
        limit = time.monotonic() + patience_s
        while not self._try():
            if time.monotonic() >= limit:
                return False
            time.sleep(0.1)
        return True

    def _try(self) -> bool:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(str(self.path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            foreign = _read(fd).get("host", HOST) != HOST
            stale = foreign and _age(self.path, fd) > STALE_S
            if foreign and not stale:
                return False
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if stale:  # its node is gone and the file server does not know: a new file is a new lock
                    with contextlib.suppress(FileNotFoundError):
                        self.path.unlink()
                return False
            if not _same_file(fd, self.path):  # replaced between open and flock
                return False
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps({"host": HOST, "pid": os.getpid(), "since": time.time()}).encode(), 0)
            self.fd, fd = fd, -1
            return True
        finally:
            if fd >= 0:
                os.close(fd)

    def beat(self) -> bool:
        """Renew the time stamp; False if another holder has taken over and this one must stop."""
        try:
            os.utime(self.fd)
            owner = _read(self.fd)
            return _same_file(self.fd, self.path) and (owner.get("host"), owner.get("pid")) == (HOST, os.getpid())
        except OSError:
            return False

    def release(self) -> None:
        """Give the lock back; harmless when it is not held."""
        if self.fd >= 0:
            os.ftruncate(self.fd, 0)
            os.close(self.fd)
            self.fd = -1


def holder(path: Path) -> dict[str, Any]:
    """Who holds the lock at `path`: `host`, `pid`, `since` and `age_s` since its last sign of life; {} if nobody."""
    try:
        fd = os.open(str(path), os.O_RDONLY)
    except FileNotFoundError:
        return {}
    try:
        owner = _read(fd)
        if not owner:
            return {}
        owner["age_s"] = _age(path, fd)
        if owner.get("host") != HOST:
            return owner if owner["age_s"] <= STALE_S else {}
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return owner
        return {}
    finally:
        os.close(fd)


@contextlib.contextmanager
def exclusive(path: Path, limit_s: float = 60.0) -> Iterator[None]:
    """Hold a short lock on `path` for the body; for steps of moments, such as writing the plan."""
    path.parent.mkdir(parents=True, exist_ok=True)
    limit = time.monotonic() + limit_s
    fd = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > limit:
                    raise InputError(f"{path} has been locked for {limit_s:.0f} s by another sweep: end it or wait") \
                        from None
                time.sleep(0.05)
        yield
    finally:
        os.close(fd)


def _read(fd: int) -> dict[str, Any]:
    try:
        return dict(json.loads(os.pread(fd, 4096, 0) or b"{}"))
    except ValueError:
        return {}


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(str(path)))
    except FileNotFoundError:
        return False


def _age(path: Path, fd: int) -> float:
    """Seconds since the last beat by the file server's own clock: nodes' clocks differ."""
    probe = path.with_name(f".clock-{HOST}-{os.getpid()}")
    try:
        probe.touch()
        now = probe.stat().st_mtime
    except OSError:  # a read-only look from outside
        now = time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return now - os.fstat(fd).st_mtime
