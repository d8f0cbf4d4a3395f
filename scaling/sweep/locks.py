"""Locks on files: one holder per cell, released when its process dies, recovered when its node does.

A lock is a `flock` on a file that names its holder, whose time stamp the holder renews every `BEAT_S`. On one machine
the kernel's word is final: it frees the lock when the last process holding it is gone. Across machines the kernel may
be silent (a mount whose flock stays local) or hold on for ever (a dead NFSv3 client), so a foreign holder counts for as
long as its time stamp moves, and no longer than `STALE_S` after it stops. A holder that was overruled learns it from
`beat` and must stop.

Some file systems have no flock (Lustre without `-o flock`, NFS whose lock daemon is gone: ENOSYS, ENOLCK). That is not
"held by another": there the lock file itself is the lock. It is made by `link`, which fails where it exists, and a
holder counts while its process lives (on this machine) and its time stamp moves.
"""

from __future__ import annotations

import contextlib
import errno
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
HELD_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


def _flock(fd: int, how: int) -> bool | None:
    """Whether the kernel gives the lock; None where this file system has none to give."""
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in HELD_BY_ANOTHER else None
    return True


def has_flock(folder: Path) -> bool:
    """Whether locks in `folder` are the kernel's."""
    probe = folder / f".flock-{HOST}-{os.getpid()}"
    try:
        fd = os.open(str(probe), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:  # a read-only look from outside
        return True
    try:
        return _flock(fd, fcntl.LOCK_EX) is not None
    finally:
        os.close(fd)
        with contextlib.suppress(OSError):
            probe.unlink()


class CellLock:
    """The right to run one cell.

    `fd` may be inherited by the cell's own process (`pass_fds`): the lock then lasts until that one is gone too, even
    if the process that took it was killed.
    """

    def __init__(self, path: Path):
        self.path = path
        self.fd = -1
        self._linked = False  # taken without flock: to give it back is to remove the file

    @property
    def fds(self) -> tuple[int, ...]:
        return (self.fd,)

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
            free = _flock(fd, fcntl.LOCK_EX)
            if free is None:
                return self._link(fd)
            if not free:
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

    def _link(self, fd: int) -> bool:
        """Take the lock where there is no flock: clear away the file of nobody or of a dead holder, link our own."""
        owner = _read(fd)
        if owner and _lives(owner, _age(self.path, fd)):
            return False
        mine = self.path.with_name(f".{self.path.name}-{HOST}-{os.getpid()}")
        cleared = mine.with_name(f"{mine.name}-old")
        mine.write_text(json.dumps({"host": HOST, "pid": os.getpid(), "since": time.time()}))
        try:
            os.rename(str(self.path), str(cleared))  # of two that clear it away, one succeeds
            if _parse(cleared.read_bytes()) != owner:  # another's, taken in between: give it back
                os.link(str(cleared), str(self.path))
                return False
            os.link(str(mine), str(self.path))
            self.fd, self._linked = os.open(str(self.path), os.O_RDWR | os.O_CLOEXEC), True
            return True
        except (FileNotFoundError, FileExistsError):
            return False
        finally:
            for leftover in (mine, cleared):
                with contextlib.suppress(OSError):
                    leftover.unlink()

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
            if self._linked and _same_file(self.fd, self.path):
                self.path.unlink()
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
        free = _flock(fd, fcntl.LOCK_SH)
        return {} if free or (free is None and not _lives(owner, owner["age_s"])) else owner
    finally:
        os.close(fd)


@contextlib.contextmanager
def exclusive(path: Path, limit_s: float = 60.0) -> Iterator[None]:
    """Hold a short lock on `path` for the body; for steps of moments, such as writing the plan."""
    path.parent.mkdir(parents=True, exist_ok=True)
    limit = time.monotonic() + limit_s
    busy = InputError(f"{path} has been locked for {limit_s:.0f} s by another sweep: end it or wait")
    fd = os.open(str(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    linked = CellLock(path)
    try:
        free = _flock(fd, fcntl.LOCK_EX)
        while free is False:
            if time.monotonic() > limit:
                raise busy
            time.sleep(0.05)
            free = _flock(fd, fcntl.LOCK_EX)
        if free is None and not linked.acquire(limit_s):
            raise busy
        yield
    finally:
        linked.release()
        os.close(fd)


def _read(fd: int) -> dict[str, Any]:
    return _parse(os.pread(fd, 4096, 0))


def _parse(content: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(content or b"{}"))
    except (ValueError, TypeError):
        return {}


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(str(path)))
    except FileNotFoundError:
        return False


def _lives(owner: dict[str, Any], age_s: float) -> bool:
    """Whether a holder that flock knows nothing of is still there."""
    if age_s > STALE_S:
        return False
    if owner.get("host") != HOST:
        return True
    pid = owner.get("pid")
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _age(path: Path, fd: int) -> float:
    """Seconds since the last beat by the file server's own clock: nodes' clocks differ."""
    return time.time() + _ahead(path.parent) - os.fstat(fd).st_mtime


_CLOCKS: dict[Path, tuple[float, float]] = {}  # folder -> when it was asked, how far ahead its server's clock is


def _ahead(folder: Path) -> float:
    """Seconds that the file server is ahead of this machine; asked once in `BEAT_S`, as it takes a file to ask."""
    asked, ahead = _CLOCKS.get(folder, (-BEAT_S, 0.0))
    if time.monotonic() - asked >= BEAT_S:
        probe = folder / f".clock-{HOST}-{os.getpid()}"
        try:
            probe.touch()
            ahead = probe.stat().st_mtime - time.time()
        except OSError:  # a read-only look from outside
            ahead = 0.0
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()
        _CLOCKS[folder] = (time.monotonic(), ahead)
    return ahead
