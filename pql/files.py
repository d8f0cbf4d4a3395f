"""Files that are whole or not there."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)  # of an OSError: what a full disk, or a used-up quota of one, answers


def write_atomically(path: Path, text: str) -> None:
    """Replace `path` by a file with this text; a reader sees the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


def append_line(path: Path, text: str) -> None:
    """Add a line to a file, whole or not at all, on a line of its own even after one that was cut short."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        end = os.lseek(file, 0, os.SEEK_END)
        torn = end > 0 and os.pread(file, 1, end - 1) != b"\n"
        line = f"{chr(10) * torn}{text}\n".encode()
        try:
            written = os.write(file, line)
            if written < len(line):  # as much as there was room for
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            os.ftruncate(file, end)
            raise
    finally:
        os.close(file)
