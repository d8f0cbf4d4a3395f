"""The one exception a user's mistake raises: one line that states the rule, the value and the remedy."""

from __future__ import annotations

import difflib
import errno
from typing import Iterable


class InputError(ValueError):
    """Wrong input. Scripts print the message without a traceback and exit with status 2."""


def words_of(error: OSError) -> str:
    """What the system refused, in one line."""
    name = str(error.filename or "")
    shown = name if len(name) <= 80 else f"{name[:60]}... ({len(name)} characters)"
    what = str(error.strerror or error)
    full = ": make room, then give the same command again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return (f"{shown}: {what}" if shown else what) + full


def nearest(word: str, choices: Iterable[str]) -> str:
    """`, did you mean 'x'?` for the closest of `choices`, or what there is to choose from."""
    known = [str(c) for c in choices]
    match = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}?" if match else f"known: {', '.join(known) or 'none'}"
