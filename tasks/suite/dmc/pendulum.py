"""dmc/pendulum: swing up a pole with a weak motor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.suite.dmc.base import Suite
from tasks.suite.dmc.rewards import tolerance
from tasks.task import State


class Swingup(Suite):
    """Observation (3): cosine and sine of the pole, velocity. Reward: 1 within 8 degrees of upright."""

    file, substeps, obs_dim = "pendulum", 1, 3
    reads, stage = ("xmat",), "position"

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        (self._pole,) = self.bodies("pole")

    def draw(self, scene: Any, random: Any) -> None:
        scene.data.qpos[:] = random.uniform(-np.pi, np.pi)

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        frame = state.fields["xmat"][:, self._pole]
        return torch.cat((frame[:, 8:], frame[:, 2:3], state.qvel), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        return self.never(tolerance(state.fields["xmat"][:, self._pole, 8], math.cos(math.radians(8)), 1))


TASKS = {"pendulum-swingup": Swingup}
