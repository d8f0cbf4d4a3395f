"""Walker2d-v5: two legs in a plane, walk ahead."""

from __future__ import annotations

from typing import Sequence

from torch import Tensor

from tasks.suite.gym.v5 import Runner, between
from tasks.task import State


class Walker2d(Runner):
    """Observation (17): positions without x, velocities up to +-10. Reward: speed + 1 while healthy - .001 |a|^2.

    Healthy: torso between .8 and 2 m, within 1 rad of upright; it ends where it is not.
    """

    max_speed = 10.0

    def __init__(
        self,
        xml_file: str = "walker2d_v5.xml",
        frame_skip: int = 4,
        forward_reward_weight: float = 1.0,
        ctrl_cost_weight: float = 1e-3,
        healthy_reward: float = 1.0,
        terminate_when_unhealthy: bool = True,
        healthy_z_range: Sequence[float] = (0.8, 2.0),
        healthy_angle_range: Sequence[float] = (-1.0, 1.0),
        reset_noise_scale: float = 5e-3,
        exclude_current_positions_from_observation: bool = True,
    ):
        super().__init__(
            xml_file, frame_skip, reset_noise_scale, forward_reward_weight, ctrl_cost_weight,
            exclude_current_positions_from_observation,
        )  # fmt: skip
        self.healthy_reward, self.terminate_when_unhealthy = healthy_reward, terminate_when_unhealthy
        self.healthy_z_range, self.healthy_angle_range = healthy_z_range, healthy_angle_range

    def _healthy(self, state: State) -> Tensor:
        upright = between(state.qpos[:, 2], self.healthy_angle_range)
        return between(state.qpos[:, 1], self.healthy_z_range) & upright
