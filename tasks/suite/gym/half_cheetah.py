"""HalfCheetah-v5: two legs in a plane, run."""

from __future__ import annotations

from tasks.suite.gym.v5 import Runner


class HalfCheetah(Runner):
    """Observation (17): positions without x, velocities. Reward: speed - .1 |a|^2. It never terminates."""

    normal_velocities = True

    def __init__(
        self,
        xml_file: str = "half_cheetah.xml",
        frame_skip: int = 5,
        forward_reward_weight: float = 1.0,
        ctrl_cost_weight: float = 0.1,
        reset_noise_scale: float = 0.1,
        exclude_current_positions_from_observation: bool = True,
    ):
        super().__init__(
            xml_file, frame_skip, reset_noise_scale, forward_reward_weight, ctrl_cost_weight,
            exclude_current_positions_from_observation,
        )  # fmt: skip
