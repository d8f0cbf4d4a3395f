"""Plugins: files and modules in which tasks, simulators and algorithms of one's own register."""

from __future__ import annotations

import tasks
from pql.errors import UserError


def import_plugins(plugins: list[str]) -> None:
    """Import each file or module, so that the tasks and algorithms in it are registered."""
    try:
        tasks.import_plugins(plugins)
    except tasks.TaskError as error:
        raise UserError(str(error)) from error
