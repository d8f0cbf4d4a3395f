"""A run's folder: whose it is while it trains, and the settings that held when."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

from pql.config import save
from pql.errors import UserError
from pql.files import append_line


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


def begin(run_dir: Path, cfg: Any, manifest: dict[str, Any] | None) -> None:
    """Make a folder this run's: its configuration, and a line of settings.jsonl with the env step from which it holds.

    Whoever reads the run's curve need not credit all of it to the settings of its last session. In this order a run
    that is killed in between, or finds the disk full, has at worst a line of settings that held for no step.

    Args:
        manifest: of the checkpoint from which it goes on; None where it begins.
    """
    if manifest is None:  # what a start that reached no checkpoint has left
        for name in ("metrics.jsonl", "settings.jsonl"):
            (run_dir / name).unlink(missing_ok=True)
        for name in ("tensorboard", "best"):
            shutil.rmtree(run_dir / name, ignore_errors=True)
    at = {"env_steps": manifest["env_steps"] if manifest else 0}
    if cfg.data is not None:
        at["critic_updates"] = manifest["critic_updates"] if manifest else 0
    append_line(run_dir / "settings.jsonl", json.dumps({**at, **dataclasses.asdict(cfg)}))
    save(cfg, run_dir / "config.yaml")


def read_summary(run_dir: Path) -> dict[str, Any]:
    """summary.json; {} where there is none or it cannot be read, which is said: the run counts as unfinished then."""
    path = run_dir / "summary.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or not {"status", "env_steps", "wall_time_s"} <= found.keys():
        print(f"note: {path} cannot be read, so the run counts as unfinished")
        return {}
    return found
