#!/usr/bin/env python
"""Run a grid of trainings: plan it, say what it costs, run what is missing, show where it stands."""

from __future__ import annotations

import sys
from typing import Any

from scaling.errors import InputError
from scaling.sweep.cli import main


def resolve(overrides: list[str]) -> dict[str, Any]:
    """The training configuration that `overrides` give, flat; a key or value it refuses is bad input here too."""
    from pql.config import load
    from pql.config.together import flat
    from pql.errors import UserError
    from tasks.errors import TaskError

    try:
        return flat(load(overrides))
    except (UserError, TaskError) as error:
        raise InputError(str(error)) from error


def numbers(overrides: list[str]) -> set[str]:
    """The keys in which runs may differ that are trained side by side; where that can't be, bad input."""
    from pql.config import load
    from pql.config.together import OF_ONE_RUN, numbers_of, why_not_together

    cfg = load(overrides)
    why = why_not_together([cfg])
    if why:
        raise InputError(f"pack: {why}: leave pack out")
    return numbers_of(cfg) | set(OF_ONE_RUN)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], resolve, numbers))
