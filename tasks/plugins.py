"""Plugins: files or modules of a user's that register tasks, algorithms or environments when they are imported."""

from __future__ import annotations

from typing import Iterable

from tasks.errors import TaskError
from tasks.simulators.worker import plugins as worker
from tasks.simulators.worker.errors import Mistake


def import_plugins(plugins: Iterable[str]) -> None:
    """Import each Python file (`*.py`) or module, once in a process. Raises TaskError where one isn't there."""
    try:
        worker.import_plugins(plugins)
    except Mistake as error:
        raise TaskError(str(error)) from error


is_imported = worker.is_imported
