"""dmc/hopper: one leg in a plane; stand, hop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tasks.suite.dmc.base import Suite, joints_at_random, sensed
from tasks.suite.dmc.rewards import INF, small_control, tolerance
from tasks.task import State


class Stand(Suite):
    """Observation (15): positions without x, velocities, log(1 + touch) of toe and heel.

    Reward: height of the torso above the foot, small controls.
    """

    file, substeps, obs_dim = "hopper", 4, 15
    reads, stage = ("xipos",), "position"

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        self._torso, self._foot = self.bodies("torso", "foot")
        self._speed, self._touch = self.sensors("torso_subtreelinvel")[:1], self.sensors("touch_toe", "touch_heel")

    def draw(self, scene: Any, random: Any) -> None:
        joints_at_random(scene, random)

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        return torch.cat((state.qpos[:, 1:], state.qvel, sensed(state, self._touch).log1p()), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        place = state.fields["xipos"][:, :, 2]
        standing = tolerance(place[:, self._torso] - place[:, self._foot], 0.6, 2)
        return self.never(standing * self._more(state, action))

    def _more(self, state: State, action: Tensor) -> Tensor:
        return small_control(self.control(action, {}))


class Hop(Stand):
    """Reward: height, and 2 m/s (half of it at 1 m/s)."""

    stage = "velocity"

    def _more(self, state: State, action: Tensor) -> Tensor:
        return tolerance(sensed(state, self._speed)[:, 0], 2, INF, 1, "linear", 0.5)


TASKS = {"hopper-stand": Stand, "hopper-hop": Hop}
