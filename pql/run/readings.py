"""What a log line says of the time since the line before: means of the roles' sums, shares of their waits."""

from __future__ import annotations

import math
import time
from typing import Any

from torch import Tensor

from pql.errors import RoleFailed
from pql.memory.shared import Shared


class Readings:
    """Of the sums that roles add to, each a difference of two readings."""

    def __init__(self, shared: Shared):
        self.shared = shared
        self.sums = {f"sums.{role}": board for role, board in shared.boards.items()}
        self.sums.update({f"gauges.{role}": gauges for role, gauges in shared.gauges.items()})
        self.since = {name: board.sums.clone() for name, board in self.sums.items()}
        self.start_clock()

    def start_clock(self) -> None:
        """Waits count from now on."""
        self.at = time.monotonic()
        self.waited = {role: float(waited) for role, waited in self.shared.waited.items()}

    def take(self, updates: int, now: float, waited: dict[str, Any], keep: bool) -> dict[str, float]:
        """Means and shares since the last line. Raises RoleFailed where learning has diverged.

        Args:
            updates: of the critic, to tell of.
            now, waited: the clock, and the seconds that each role has waited in all.
            keep: the interval goes on as if there had been no line.
        """
        told: dict[str, float] = {}
        for name, board in self.sums.items():
            means = board.means(self.since[name])
            spoiled = [key for key, value in means.items() if not math.isfinite(value)]
            if spoiled:  # before a checkpoint of it can take a good one's place
                raise RoleFailed(
                    f"the {name.partition('.')[2]} diverged: {spoiled[0]} is no finite number after {updates} critic "
                    "updates; lower algo.critic_lr, algo.actor_lr or algo.reward_scale"
                )
            told.update(means)
            if not keep:
                self.since[name] = board.sums.clone()
        if told.get("td_error_replay"):
            told["td_error_ratio"] = told.get("td_error_fresh", math.nan) / told["td_error_replay"]
        told["replay_conflicts"] = sum(int(count) for count in self.shared.conflicts.values())
        for role, seconds in waited.items():
            share = (float(seconds) - self.waited[role]) / max(1e-9, now - self.at)
            told[f"wait_{role}"] = round(min(1.0, share), 4)  # a role tells of its wait every 50 ms
            if not keep:
                self.waited[role] = float(seconds)
        if not keep:
            self.at = now
        return told

    def state_dict(self) -> dict[str, Tensor]:
        """Sums, and what the next line's means are taken from."""
        state = {name: board.sums for name, board in self.sums.items()}
        return {**state, **{f"since.{name}": since for name, since in self.since.items()}}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """What was measured under other names, by a version before this one, is left."""
        for name, board in self.sums.items():
            old = state.get(name)
            if old is not None and old.shape == board.sums.shape:
                since = state.get(f"since.{name}", state.get(f"since.{name.partition('.')[2]}"))
                board.sums.copy_(old)
                self.since[name] = since.to(board.sums.device)
