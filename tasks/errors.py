"""The one exception that a user's mistake raises."""

from __future__ import annotations


class TaskError(ValueError):
    """Something the caller can mend: one line that says what is wrong and what to do."""
