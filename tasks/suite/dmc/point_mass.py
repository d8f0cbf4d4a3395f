"""dmc/point_mass: bring a mass in a plane to the middle."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.suite.dmc.base import Suite, joints_at_random, unit
from tasks.suite.dmc.rewards import small_control, tolerance
from tasks.task import State


class Easy(Suite):
    """Observation (4): position, velocity. Reward: near the target, small controls."""

    file, substeps, obs_dim = "point_mass", 1, 4
    reads, stage = ("geom_xpos",), "position"

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        self._mass, self._target = self.geoms("pointmass", "target")
        self._radius = float(model.geom("target").size[0])

    def draw(self, scene: Any, random: Any) -> None:
        joints_at_random(scene, random)

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        return torch.cat((state.qpos, state.qvel), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        places = state.fields["geom_xpos"]
        away = (places[:, self._target] - places[:, self._mass]).norm(dim=1)
        return self.never(tolerance(away, 0, self._radius, self._radius) * small_control(self.control(action, {})))


class Hard(Easy):
    """As Easy; in every episode the controls push along two other directions. MuJoCo Warp has them in common."""

    simulators = ("mujoco",)
    episode_fields = ("wrap_prm",)

    def draw(self, scene: Any, random: Any) -> None:
        super().draw(scene, random)
        first, parallel = unit(random, 2), True
        while parallel:
            second = unit(random, 2)
            parallel = abs(np.dot(first, second)) > 0.9
        scene.model.wrap_prm[:2], scene.model.wrap_prm[2:4] = first, second


TASKS = {"point_mass-easy": Easy, "point_mass-hard": Hard}
