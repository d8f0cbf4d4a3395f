#!/usr/bin/env python
"""Run a grid of trainings: plan it, say what it costs, run what is missing, show where it stands."""

from __future__ import annotations

import sys
from typing import Any

from scaling.errors import InputError
from scaling.sweep.cli import main
from scaling.sweep.packing import Fit


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


def packs(overrides: list[str], at_a_time: int) -> Fit:
    """What can be trained side by side of runs like this one, in so many processes; bad input where nothing can."""
    from pql.config import load
    from pql.config.together import OF_ONE_RUN, numbers_of
    from pql.errors import UserError
    from pql.runtime.packing import size_of
    from tasks.errors import TaskError

    try:
        cfg = load(overrides)
        size = size_of(cfg, at_a_time)
    except (UserError, TaskError) as error:
        raise InputError(str(error)) from error
    return Fit(frozenset(numbers_of(cfg) | set(OF_ONE_RUN)), size.best, size.fits)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], resolve, packs))
