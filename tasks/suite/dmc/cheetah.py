"""dmc/cheetah: two legs in a plane, run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tasks.suite.dmc.base import Suite, sensed
from tasks.suite.dmc.rewards import INF, tolerance
from tasks.task import State


class Run(Suite):
    """Observation (17): positions without x, velocities. Reward: speed / 10, up to 1.

    A start has random joints and has then settled for 200 substeps, of which the first is of the default pose's
    quantities, as in dm_control.
    """

    file, substeps, obs_dim = "cheetah", 1, 17

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        self._speed = self.sensors("torso_subtreelinvel")[:1]

    def draw(self, scene: Any, random: Any) -> None:
        scene.look()
        limited = scene.model.jnt_limited == 1
        lower, upper = scene.model.jnt_range[limited].T
        scene.data.qpos[limited] = random.uniform(lower, upper)
        scene.settle(200)

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        return torch.cat((state.qpos[:, 1:], state.qvel), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        return self.never(tolerance(sensed(state, self._speed)[:, 0], 10, INF, 10, "linear", 0))


TASKS = {"cheetah-run": Run}
