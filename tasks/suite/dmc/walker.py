"""dmc/walker: two legs in a plane; stand, walk, run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tasks.suite.dmc.base import Suite, joints_at_random, sensed
from tasks.suite.dmc.rewards import INF, tolerance
from tasks.task import State


class Stand(Suite):
    """Observation (24): x and z of every body's x axis, torso height, velocities. Reward: height and uprightness."""

    file, substeps, obs_dim = "walker", 10, 24
    reads, stage = ("xmat", "xpos"), "position"
    speed = 0.0

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        (self._torso,) = self.bodies("torso")
        self._speed = self.sensors("torso_subtreelinvel")[:1]

    def draw(self, scene: Any, random: Any) -> None:
        joints_at_random(scene, random)

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        axes = state.fields["xmat"][:, 1:, 0:3:2].flatten(1)
        return torch.cat((axes, state.fields["xpos"][:, self._torso, 2:], state.qvel), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        standing = tolerance(state.fields["xpos"][:, self._torso, 2], 1.2, INF, 0.6)
        upright = (1 + state.fields["xmat"][:, self._torso, 8]) / 2
        return self.never(self._move(state, (3 * standing + upright) / 4))

    def _move(self, state: State, standing: Tensor) -> Tensor:
        return standing


class Walk(Stand):
    """As Stand, times (1 + 5 m) / 6 with m = 1 at the speed asked for, .5 at half of it."""

    stage, speed = "velocity", 1.0

    def _move(self, state: State, standing: Tensor) -> Tensor:
        moving = tolerance(sensed(state, self._speed)[:, 0], self.speed, INF, self.speed / 2, "linear", 0.5)
        return standing * (5 * moving + 1) / 6


class Run(Walk):
    """As Walk, at 8 m/s."""

    speed = 8.0


TASKS = {"walker-stand": Stand, "walker-walk": Walk, "walker-run": Run}
