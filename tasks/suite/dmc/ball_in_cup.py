"""dmc/ball_in_cup: catch a ball on a string."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tasks.suite.dmc.base import Suite
from tasks.task import State


class Catch(Suite):
    """Observation (8): positions, velocities. Reward: 1 while the ball is in the cup.

    The ball starts beside or above the cup, drawn again until nothing touches.
    """

    file, substeps, obs_dim = "ball_in_cup", 10, 8
    reads, stage = ("site_xpos", "xpos"), "position"

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        (self._ball,), (self._target,) = self.bodies("ball"), self.sites("target")
        room = model.site("target").size[::2] - model.geom("ball").size[0]
        self._room = torch.as_tensor(room, dtype=self.dtype, device=device)

    def draw(self, scene: Any, random: Any) -> None:
        touches = True
        while touches:
            scene.qpos("ball_x")[:] = random.uniform(-0.2, 0.2)
            scene.qpos("ball_z")[:] = random.uniform(0.2, 0.5)
            touches = scene.touches()

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        return torch.cat((state.qpos, state.qvel), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        away = state.fields["site_xpos"][:, self._target] - state.fields["xpos"][:, self._ball]
        return self.never((away[:, ::2].abs() < self._room).all(1).to(self.dtype))


TASKS = {"ball_in_cup-catch": Catch}
