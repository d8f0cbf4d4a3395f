"""dmc/reacher: bring the tip of a two-link arm into a target in its plane."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.suite.dmc.base import Suite, joints_at_random
from tasks.suite.dmc.rewards import tolerance
from tasks.task import State


class Easy(Suite):
    """Observation (6): joint angles, target relative to the tip, velocities. Reward: 1 in the target."""

    file, substeps, obs_dim = "reacher", 1, 6
    reads, stage = ("geom_xpos",), "position"
    episode_fields = ("geom_pos",)
    radius = 0.05

    def adapt(self, model: Any) -> None:
        model.geom("target").size[0] = self.radius

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        self._finger, self._target = self.geoms("finger", "target")
        self._radii = float(model.geom("target").size[0] + model.geom("finger").size[0])

    def draw(self, scene: Any, random: Any) -> None:
        joints_at_random(scene, random)
        angle, radius = random.uniform(0, 2 * np.pi), random.uniform(0.05, 0.2)
        scene.model.geom("target").pos[:2] = radius * np.sin(angle), radius * np.cos(angle)

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        return torch.cat((state.qpos, self._away(state), state.qvel), dim=1)

    def _away(self, state: State) -> Tensor:
        places = state.fields["geom_xpos"]
        return places[:, self._target, :2] - places[:, self._finger, :2]

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        return self.never(tolerance(self._away(state).norm(dim=1), 0, self._radii))


class Hard(Easy):
    """As Easy, with a target of .015 m."""

    radius = 0.015


TASKS = {"reacher-easy": Easy, "reacher-hard": Hard}
