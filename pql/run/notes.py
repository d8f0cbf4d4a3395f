"""What a run says once, when it first goes wrong."""

from __future__ import annotations

from typing import Any, Callable

from pql.errors import RoleFailed
from pql.run import advice

MAX_DIVERGED = 0.1  # the share of transitions past which a run is refused, once there are as many as environments


class Notes:
    """Looks at what is logged.

    Args:
        say: takes a line for people.
    """

    def __init__(self, cfg: Any, say: Callable[[str], None]):
        self.cfg, self.say = cfg, say
        self.told_diverged = self.told_support = False

    def look_at_diverged(self, diverged: int, env_steps: int) -> None:
        """Say at the first time that transitions leave the finite numbers. Raises RoleFailed past MAX_DIVERGED."""
        told = (
            f"{diverged} of {env_steps} transitions diverged (a reward, an observation or the simulation was NaN or "
            "infinite)"
        )
        if diverged > max(self.cfg.num_envs, MAX_DIVERGED * env_steps):
            raise RoleFailed(
                f"{told}, more than {MAX_DIVERGED:.0%}: mend the task; "
                f"python -m tasks.check {self.cfg.task.name} tries it without learning"
            )
        if diverged and not self.told_diverged:
            self.told_diverged = True
            self.say(f"note: {told}: they end their episodes and nothing is learned from them; "
                     "diverged_episodes in metrics.jsonl counts on")  # fmt: skip

    def look_at_support(self, mass: float) -> None:
        """Say at the first time that the critic's support is too small."""
        if mass > advice.MASS_AT_ENDS and not self.told_support:
            self.told_support = True
            self.say(f"note: {mass:.0%} of the targets' probability lies at the ends of the critic's "
                     "support (mass_at_ends in metrics.jsonl, docs/metrics.md)")  # fmt: skip
