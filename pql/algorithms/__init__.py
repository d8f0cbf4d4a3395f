"""Algorithms by name. One is a class with `make_policy`, `make_critic`, `critic_loss` and `policy_loss`."""

from __future__ import annotations

from pql.algorithms.pql import PQL
from pql.algorithms.pql_d import PQLD

_ALGORITHMS = {"pql": PQL, "pql_d": PQLD}


def register(name: str, algorithm: type) -> None:
    """Make `algo.name=<name>` mean `algorithm`."""
    _ALGORITHMS[name] = algorithm


def names() -> list[str]:
    """The registered algorithms, sorted."""
    return sorted(_ALGORITHMS)


def make(cfg, obs_dim: int, action_dim: int, critic_obs_dim: int = 0):
    """The algorithm that `cfg` (an AlgoConfig) names; critic_obs_dim=0: the critic sees obs. Raises UserError."""
    from pql.errors import UserError, nearest

    if cfg.name not in _ALGORITHMS:
        known = ", ".join(_ALGORITHMS)
        raise UserError(f"unknown algo '{cfg.name}'{nearest(cfg.name, _ALGORITHMS)}; there are: {known}")
    return _ALGORITHMS[cfg.name](cfg, obs_dim, action_dim, critic_obs_dim)
