"""A run on a fixed dataset, seen from outside: critic updates and passes grow, env_steps is the size of the data."""

from __future__ import annotations

import sys
from typing import Any

from pql.config import Config, offline
from pql.memory import dataset
from pql.memory.dataset import Steps
from pql.roles.build import Parts, make_role
from pql.run.metrics import Progress
from pql.run.monitor import Monitor
from tasks import Spaces


def open_data(cfg: Config, spaces: Spaces) -> Steps:
    """The configured dataset; the run's sizes follow from it. Raises UserError."""
    most = None if cfg.max_env_steps == offline.ALL else cfg.max_env_steps
    steps = dataset.read(cfg.data, most, cfg.seed)
    offline.size(cfg, steps, spaces)
    print(f"learning from {len(steps.reward)} transitions of {cfg.data}: {cfg.passes:g} passes", flush=True)
    if getattr(cfg.algo, "bc_weight", None) == 0.0:
        print("note: nothing keeps the policy near the data, so values may be overestimated: algo.bc_weight=.4 does",
              file=sys.stderr, flush=True)  # fmt: skip
    return steps


def learn_from(cfg: Config, parts: Parts, steps: Steps) -> None:
    """Put the data where the learners find it."""
    make_role("actor", cfg, parts.algorithm, parts.shared).learn_from(steps)


class OfflineMonitor(Monitor):
    """Of the one vector step that the dataset is all updates follow, so these are the clock."""

    axis = "critic_updates"

    @property
    def clock(self) -> int:
        return int(self.shared.critic_updates)

    def make_progress(self) -> Progress:
        return Progress(self.pacers[0].due(1), self.cfg.max_time, unit="updates")

    def _last(self) -> bool:
        return not self.critic_update_due()

    def finished(self) -> bool:
        return int(self.shared.step_limit) == 0 or not self.critic_update_due()

    def told(self) -> dict[str, Any]:
        return {"passes": self.clock * self.cfg.algo.batch_size / self.cfg.num_envs}

    def summary(self, status: str, **more: Any) -> dict[str, Any]:
        return super().summary(status, data=self.cfg.data, **more)
