"""Algorithms by name. One is a class, see `pql.algorithms.base`."""

from __future__ import annotations

from typing import Any

from pql.algorithms.base import Algorithm
from pql.algorithms.bro import BRO, BROFast
from pql.algorithms.flash_sac import FlashSAC
from pql.algorithms.pql import PQL
from pql.algorithms.pql_d import PQLD
from pql.algorithms.sac import SAC
from pql.errors import UserError, nearest
from tasks.base import Spaces

_ALGORITHMS: dict[str, type[Algorithm]] = {
    "bro": BRO,
    "bro_fast": BROFast,
    "flash_sac": FlashSAC,
    "pql": PQL,
    "pql_d": PQLD,
    "sac": SAC,
}


def register(name: str, algorithm: type[Algorithm]) -> None:
    """Make `algo=<name>` mean `algorithm`."""
    _ALGORITHMS[name] = algorithm


def names() -> list[str]:
    """The registered algorithms, sorted."""
    return sorted(_ALGORITHMS)


def get(name: str) -> type[Algorithm]:
    """The class registered as `name`. Raises UserError naming the nearest where there is none."""
    if name not in _ALGORITHMS:
        raise UserError(f"unknown algo '{name}'{nearest(name, _ALGORITHMS)}; there are: {', '.join(names())}")
    return _ALGORITHMS[name]


def make(options: Any, spaces: Spaces) -> Algorithm:
    """The algorithm that its `options` name, for environments of these sizes. Raises UserError."""
    return get(options.name)(options, spaces)
