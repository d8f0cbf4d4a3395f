"""HumanoidStandup-v5: get up from the floor."""

from __future__ import annotations

from typing import Any, Sequence

import torch
from torch import Tensor

from tasks.suite.gym.humanoid import Humanoids
from tasks.task import State


class HumanoidStandup(Humanoids):
    """Reward: torso height / timestep + 1 - .1 |ctrl|^2 - 5e-7 x squared external forces, that up to 10. No end."""

    def __init__(
        self,
        xml_file: str = "humanoidstandup.xml",
        frame_skip: int = 5,
        uph_cost_weight: float = 1.0,
        ctrl_cost_weight: float = 0.1,
        impact_cost_weight: float = 5e-7,
        impact_cost_range: Sequence[float] = (-float("inf"), 10.0),
        reset_noise_scale: float = 1e-2,
        exclude_current_positions_from_observation: bool = True,
        include_cinert_in_observation: bool = True,
        include_cvel_in_observation: bool = True,
        include_qfrc_actuator_in_observation: bool = True,
        include_cfrc_ext_in_observation: bool = True,
        solver: str = "PGS",
    ):
        runner = (
            xml_file, frame_skip, reset_noise_scale, 0.0, ctrl_cost_weight, exclude_current_positions_from_observation
        )  # fmt: skip
        seen = {
            "cinert": include_cinert_in_observation,
            "cvel": include_cvel_in_observation,
            "qfrc_actuator": include_qfrc_actuator_in_observation,
            "cfrc_ext": include_cfrc_ext_in_observation,
        }
        super().__init__(runner, seen, impact_cost_weight, impact_cost_range, solver)
        self.uph_cost_weight = uph_cost_weight  # has no effect, as in Gymnasium

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        self._timestep = model.opt.timestep

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        reward = state.qpos[:, 2] / self._timestep - self._cost(state, action) + 1
        return reward, torch.zeros_like(reward, dtype=torch.bool)
