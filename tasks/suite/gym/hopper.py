"""Hopper-v5: one leg in a plane, hop ahead."""

from __future__ import annotations

from typing import Sequence

from torch import Tensor

from tasks.suite.gym.v5 import Runner, between
from tasks.task import State


class Hopper(Runner):
    """Observation (11): positions without x, velocities up to +-10. Reward: speed + 1 while healthy - .001 |a|^2.

    Healthy: torso above .7 m, within .2 rad of upright, everything else within +-100; it ends where it is not.
    """

    max_speed = 10.0

    def __init__(
        self,
        xml_file: str = "hopper.xml",
        frame_skip: int = 4,
        forward_reward_weight: float = 1.0,
        ctrl_cost_weight: float = 1e-3,
        healthy_reward: float = 1.0,
        terminate_when_unhealthy: bool = True,
        healthy_state_range: Sequence[float] = (-100.0, 100.0),
        healthy_z_range: Sequence[float] = (0.7, float("inf")),
        healthy_angle_range: Sequence[float] = (-0.2, 0.2),
        reset_noise_scale: float = 5e-3,
        exclude_current_positions_from_observation: bool = True,
    ):
        super().__init__(
            xml_file, frame_skip, reset_noise_scale, forward_reward_weight, ctrl_cost_weight,
            exclude_current_positions_from_observation,
        )  # fmt: skip
        self.healthy_reward, self.terminate_when_unhealthy = healthy_reward, terminate_when_unhealthy
        self.healthy_state_range = healthy_state_range
        self.healthy_z_range, self.healthy_angle_range = healthy_z_range, healthy_angle_range

    def _healthy(self, state: State) -> Tensor:
        rest = self.healthy_state_range
        contained = between(state.qpos[:, 2:], rest).all(1) & between(state.qvel, rest).all(1)
        upright = between(state.qpos[:, 2], self.healthy_angle_range)
        return between(state.qpos[:, 1], self.healthy_z_range) & upright & contained
