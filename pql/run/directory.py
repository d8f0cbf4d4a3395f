"""A run's folder: whose it is while it trains, and the settings that held when."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

from pql.errors import UserError


@contextmanager
def owned(run_dir: Path) -> Iterator[None]:
    """Hold the run's folder for this process alone. Raises UserError where another trains in it, or none can."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if not os.access(run_dir, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "permission denied")
        handle = os.open(run_dir, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"run_dir={run_dir} cannot be written ({error.strerror}): name another folder") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"run_dir={run_dir} is in use: another process trains in it") from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def note_settings(run_dir: Path, cfg: Any, env_steps: int) -> None:
    """A line of settings.jsonl: the whole configuration, and the env step from which it holds.

    Whoever reads the run's curve need not credit all of it to the settings of its last session.
    """
    with open(run_dir / "settings.jsonl", "a" if env_steps else "w") as file:
        file.write(json.dumps({"env_steps": env_steps, **dataclasses.asdict(cfg)}) + "\n")
