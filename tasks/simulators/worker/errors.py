"""What a worker tells its parent in one line."""

from __future__ import annotations

import difflib
import traceback
from pathlib import Path
from typing import Iterable


class Mistake(ValueError):
    """Something the user can mend: what is wrong and what to do. A `tasks.TaskError` in the parent."""


class Broke(Mistake):
    """Something of the user's own raised: its traceback goes to the worker's log."""


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """"did you mean <the nearest>? ", whatever the case; empty where nothing is near (cutoff: difflib's)."""
    names = {one.lower(): one for one in sorted(known)}
    near = difflib.get_close_matches(name.lower(), list(names), n=1, cutoff=cutoff)
    return f"did you mean {names[near[0]]}? " if near else ""


def blame(what: str, error: BaseException) -> Broke:
    """What happened, the error, and the line of code that it came from."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    said = str(error) or where.line  # an assertion without words says in its own line what it demands
    told = " ".join(f"{type(error).__name__}: {said}".split())
    told = f"{told[:297]}..." if len(told) > 300 else told
    return Broke(f"{what}: {told} ({Path(where.filename).name}, line {where.lineno})")
