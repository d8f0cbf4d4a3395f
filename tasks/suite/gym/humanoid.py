"""Humanoid-v5: two legs, walk ahead; and what HumanoidStandup-v5 shares with it."""

from __future__ import annotations

from typing import Any, Sequence

import torch
from torch import Tensor

from tasks.errors import TaskError
from tasks.suite.gym.v5 import Runner, between
from tasks.task import State

# What is observed beyond positions and velocities, in this order, and from which row on: no world, no free joint.
_SEEN = {"cinert": 1, "cvel": 1, "qfrc_actuator": 6, "cfrc_ext": 1}


class Humanoids(Runner):
    """Observation (348): positions without x and y, velocities, and MuJoCo's inertias, velocities, motor torques and
    external forces of the bodies. Actions are scaled to controls of +-.4.

    The forces take plain MuJoCo's last substep; leave them out of the observation and the cost to save it. MuJoCo Warp
    lacks the model's PGS solver: `solver=Newton` runs there, which is another task, if not by much.
    """

    hidden = 2

    def __init__(
        self,
        runner: tuple[Any, ...],
        seen: dict[str, bool],
        impact_weight: float,
        impact_range: Sequence[float],
        solver: str,
    ):
        super().__init__(*runner)
        if solver not in ("PGS", "CG", "Newton"):
            raise TaskError(f"solver={solver}: must be PGS, which is Gymnasium's, CG or Newton")
        self.solver, self.impact_weight, self.impact_range = solver, impact_weight, impact_range
        self.seen = tuple(name for name in _SEEN if seen[name])
        self.reads = (*self.seen, *(("cfrc_ext",) if impact_weight and not seen["cfrc_ext"] else ()))

    def mjcf(self) -> str:
        text = super().mjcf()
        return text if self.solver == "PGS" else text.replace('solver="PGS"', f'solver="{self.solver}"')

    def _obs_dim(self, model: Any) -> int:
        sizes = {"cinert": 10 * (model.nbody - 1), "cvel": 6 * (model.nbody - 1), "qfrc_actuator": model.nv - 6}
        sizes["cfrc_ext"] = sizes["cvel"]
        return super()._obs_dim(model) + sum(sizes[name] for name in self.seen)

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        more = (state.fields[name][:, _SEEN[name] :].flatten(1) for name in self.seen)
        return torch.cat((super().observe(state, memory), *more), dim=1)

    def _cost(self, state: State, action: Tensor) -> Tensor:
        effort = super()._cost(state, action)
        if not self.impact_weight:
            return effort
        low, high = self.impact_range
        return effort + (self.impact_weight * state.fields["cfrc_ext"].square().sum((1, 2))).clamp(low, high)


class Humanoid(Humanoids):
    """Reward: 1.25 x the centre of mass' speed + 5 while healthy - .1 |ctrl|^2 - 5e-7 x squared external forces, that
    up to 10. Healthy: torso between 1 and 2 m; it ends where it is not. Bodies are where the integrator's last stage
    had them, as Gymnasium has it.
    """

    def __init__(
        self,
        xml_file: str = "humanoid.xml",
        frame_skip: int = 5,
        forward_reward_weight: float = 1.25,
        ctrl_cost_weight: float = 0.1,
        contact_cost_weight: float = 5e-7,
        contact_cost_range: Sequence[float] = (-float("inf"), 10.0),
        healthy_reward: float = 5.0,
        terminate_when_unhealthy: bool = True,
        healthy_z_range: Sequence[float] = (1.0, 2.0),
        reset_noise_scale: float = 1e-2,
        exclude_current_positions_from_observation: bool = True,
        include_cinert_in_observation: bool = True,
        include_cvel_in_observation: bool = True,
        include_qfrc_actuator_in_observation: bool = True,
        include_cfrc_ext_in_observation: bool = True,
        solver: str = "PGS",
    ):
        runner = (
            xml_file, frame_skip, reset_noise_scale, forward_reward_weight, ctrl_cost_weight,
            exclude_current_positions_from_observation,
        )  # fmt: skip
        seen = {
            "cinert": include_cinert_in_observation,
            "cvel": include_cvel_in_observation,
            "qfrc_actuator": include_qfrc_actuator_in_observation,
            "cfrc_ext": include_cfrc_ext_in_observation,
        }
        super().__init__(runner, seen, contact_cost_weight, contact_cost_range, solver)
        self.reads = (*self.reads, "xipos")
        self.healthy_reward, self.terminate_when_unhealthy = healthy_reward, terminate_when_unhealthy
        self.healthy_z_range = healthy_z_range

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        self._mass = torch.as_tensor(model.body_mass, dtype=self.dtype, device=device)
        self._whole = model.body_mass.sum()

    def _x(self, state: State) -> Tensor:
        return state.fields["xipos"][:, :, 0].double() @ self._mass / self._whole

    def _healthy(self, state: State) -> Tensor:
        return between(state.qpos[:, 2], self.healthy_z_range)
