"""dmc/acrobot: swing up two links with a motor between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.suite.dmc.base import Suite
from tasks.suite.dmc.rewards import tolerance
from tasks.task import State


class Swingup(Suite):
    """Observation (6): sines and cosines of the links' angles, velocities. Reward: tip near the target above."""

    file, substeps, obs_dim = "acrobot", 1, 6
    reads, stage = ("xmat", "site_xpos"), "position"
    margin = 1.0

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        self._links = self.columns(self.bodies("upper_arm", "lower_arm"))
        self._tip, self._target = self.sites("tip", "target")
        self._radius = float(model.site("target").size[0])

    def draw(self, scene: Any, random: Any) -> None:
        scene.data.qpos[:] = random.uniform(-np.pi, np.pi, 2)

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        frames = state.fields["xmat"].index_select(1, self._links)
        return torch.cat((frames[:, :, 2], frames[:, :, 8], state.qvel), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        places = state.fields["site_xpos"]
        away = (places[:, self._target] - places[:, self._tip]).norm(dim=1)
        return self.never(tolerance(away, 0, self._radius, self.margin))


class SwingupSparse(Swingup):
    """As Swingup; reward only in the target."""

    margin = 0.0


TASKS = {"acrobot-swingup": Swingup, "acrobot-swingup_sparse": SwingupSparse}
