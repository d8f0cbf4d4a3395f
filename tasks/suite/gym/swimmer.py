"""Swimmer-v5: three links in a viscous plane, swim ahead."""

from __future__ import annotations

from tasks.suite.gym.v5 import Runner


class Swimmer(Runner):
    """Observation (8): positions without x and y, velocities. Reward: speed - 1e-4 |a|^2. It never terminates."""

    hidden = 2

    def __init__(
        self,
        xml_file: str = "swimmer.xml",
        frame_skip: int = 4,
        forward_reward_weight: float = 1.0,
        ctrl_cost_weight: float = 1e-4,
        reset_noise_scale: float = 0.1,
        exclude_current_positions_from_observation: bool = True,
    ):
        super().__init__(
            xml_file, frame_skip, reset_noise_scale, forward_reward_weight, ctrl_cost_weight,
            exclude_current_positions_from_observation,
        )  # fmt: skip
