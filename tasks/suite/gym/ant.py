"""Ant-v5: four legs, run ahead."""

from __future__ import annotations

from typing import Any, Sequence

import torch
from torch import Tensor

from tasks.suite.gym.v5 import Runner
from tasks.task import State


class Ant(Runner):
    """Observation (105): positions without x and y, velocities, external forces on 13 bodies within +-1.

    Reward: speed + 1 while healthy - .5 |a|^2 - 5e-4 sum of the squared forces. Healthy: torso within [.2, 1] m; it
    ends where it is not. The speed is that of `xpos`, which is of the integrator's last stage, as Gymnasium has it.

    The forces take plain MuJoCo's last substep; `include_cfrc_ext_in_observation=false contact_cost_weight=0` saves it.
    """

    hidden = 2
    normal_velocities = True

    def __init__(
        self,
        xml_file: str = "ant.xml",
        frame_skip: int = 5,
        forward_reward_weight: float = 1.0,
        ctrl_cost_weight: float = 0.5,
        contact_cost_weight: float = 5e-4,
        healthy_reward: float = 1.0,
        main_body: int | str = 1,
        terminate_when_unhealthy: bool = True,
        healthy_z_range: Sequence[float] = (0.2, 1.0),
        contact_force_range: Sequence[float] = (-1.0, 1.0),
        reset_noise_scale: float = 0.1,
        exclude_current_positions_from_observation: bool = True,
        include_cfrc_ext_in_observation: bool = True,
    ):
        super().__init__(
            xml_file, frame_skip, reset_noise_scale, forward_reward_weight, ctrl_cost_weight,
            exclude_current_positions_from_observation,
        )  # fmt: skip
        self.healthy_reward, self.terminate_when_unhealthy = healthy_reward, terminate_when_unhealthy
        self.main_body, self.healthy_z_range = main_body, healthy_z_range
        self.contact_cost_weight, self.contact_force_range = contact_cost_weight, contact_force_range
        self.shows_forces = include_cfrc_ext_in_observation
        forces = ("cfrc_ext",) if self.shows_forces or contact_cost_weight else ()
        self.reads = ("xpos", *forces)

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        self._body = model.body(self.main_body).id

    def _obs_dim(self, model: Any) -> int:
        return super()._obs_dim(model) + 6 * (model.nbody - 1) * self.shows_forces

    def _x(self, state: State) -> Tensor:
        return state.fields["xpos"][:, self._body, 0].double()

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        seen = super().observe(state, memory)
        return torch.cat((seen, self._forces(state)[:, 1:].flatten(1)), dim=1) if self.shows_forces else seen

    def _forces(self, state: State) -> Tensor:
        low, high = self.contact_force_range
        return state.fields["cfrc_ext"].clamp(low, high)

    def _cost(self, state: State, action: Tensor) -> Tensor:
        effort = super()._cost(state, action)
        if not self.contact_cost_weight:
            return effort
        return effort + self.contact_cost_weight * self._forces(state).square().sum((1, 2))

    def _healthy(self, state: State) -> Tensor:
        (low, high), z = self.healthy_z_range, state.qpos[:, 2]
        return (z >= low) & (z <= high)
