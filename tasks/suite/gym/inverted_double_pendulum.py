"""InvertedDoublePendulum-v5: keep two poles upright on a cart, one on the other."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.suite.gym.v5 import V5
from tasks.task import State


class InvertedDoublePendulum(V5):
    """Observation (9): cart, sines and cosines of the two angles, velocities, constraint force on the cart, up to +-10.

    Reward: 10 - .01 x^2 - (y - 2)^2 - .001 v1^2 - .005 v2^2 with the tip at x, y and the poles' velocities v1, v2; the
    10 are missing where the tip is at 1 m or below, which ends the episode.
    """

    camera = {"distance": 4.1225, "azimuth": 90.0, "elevation": -45.0, "height": 0.1225}  # noqa: RUF012
    normal_velocities = True
    reads = ("site_xpos", "qfrc_constraint")

    def __init__(
        self,
        xml_file: str = "inverted_double_pendulum.xml",
        frame_skip: int = 5,
        healthy_reward: float = 10.0,
        reset_noise_scale: float = 0.1,
    ):
        super().__init__(xml_file, frame_skip, reset_noise_scale)
        self.healthy_reward = healthy_reward

    def _obs_dim(self, model) -> int:
        return 2 * model.nq + model.nv

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        angles, force = state.qpos[:, 1:], state.fields["qfrc_constraint"][:, :1]
        seen = angles.sin(), angles.cos(), state.qvel.clamp(-10, 10), force.clamp(-10, 10)
        return torch.cat((state.qpos[:, :1], *seen), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        tip = state.fields["site_xpos"][:, 0]
        x, y = tip[:, 0], tip[:, 2]
        first, second = state.qvel[:, 1], state.qvel[:, 2]
        fallen = y <= 1
        away = 0.01 * x**2 + (y - 2) ** 2
        return self.healthy_reward * ~fallen - away - (0.001 * first**2 + 0.005 * second**2), fallen
