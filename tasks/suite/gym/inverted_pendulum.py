"""InvertedPendulum-v5: keep a pole upright on a cart."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.suite.gym.v5 import V5
from tasks.task import State


class InvertedPendulum(V5):
    """Observation (4): positions, velocities. Reward: 1; 0 where the pole leans by more than .2 rad, which ends it."""

    ceiling = 1000.0
    camera = {"distance": 2.04, "azimuth": 90.0, "elevation": -45.0, "height": 0.0}  # noqa: RUF012

    def __init__(self, xml_file: str = "inverted_pendulum.xml", frame_skip: int = 2, reset_noise_scale: float = 0.01):
        super().__init__(xml_file, frame_skip, reset_noise_scale)

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        return torch.cat((state.qpos, state.qvel), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        fallen = state.qpos[:, 1].abs() > 0.2
        return (~fallen).double(), fallen
