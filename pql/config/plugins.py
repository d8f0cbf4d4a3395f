"""Plugins: files and modules in which tasks, simulators and algorithms of one's own register."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Sequence

from omegaconf import DictConfig, OmegaConf

import tasks
from pql.errors import UserError


def import_plugins(plugins: list[str], python: str | None = None) -> None:
    """Import each file or module, so that the tasks and algorithms in it are registered.

    Raises:
        UserError: where one isn't there; with the remedy, if `python`, which steps the environments, may have it.
    """
    try:
        tasks.import_plugins(plugins)
    except tasks.TaskError as error:
        remedy = f"; what {python} is to import instead, name by task=<module>:<id>" if python else ""
        raise UserError(f"{error}{remedy}") from error


def confirm(cfg: DictConfig, path: Path, plugins: Sequence[str], trust: bool) -> None:
    """Raises UserError where the configuration in `path` would run what nobody but itself has named.

    Args:
        plugins: what was named in place of the file's own.
        trust: run what the file names, and say so.
    """
    module, colon, _ = str(OmegaConf.select(cfg, "task.name")).partition(":")
    named = [*(() if plugins else (cfg.plugins or ())), *([module] if colon and module not in plugins else ())]
    new = [name for name in map(str, named) if not tasks.is_imported(name)]
    python = OmegaConf.select(cfg, "sim.python")
    if new and not trust:
        raise UserError(
            f"{path} names {', '.join(new)}, whose import runs code: give trust=true if you trust where the folder is "
            "from, or plugins=[...] with what is to be imported instead"
        )
    if python is not None and not trust:
        raise UserError(
            f"{path} names the interpreter {python}: give trust=true if you trust where the folder is from"
        )
    if new:
        print(f"trust=true: importing {', '.join(new)}, as {path} says", file=sys.stderr)
    if python is not None:
        print(f"trust=true: running {python}, as {path} says", file=sys.stderr)
