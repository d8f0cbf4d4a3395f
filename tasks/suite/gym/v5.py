"""What Gymnasium's MuJoCo tasks (v5, of gymnasium 1.4) share: model files, controls, starts, the runners' reward.

Everything is computed in the simulator's own precision from what MuJoCo's data hold after `mj_step(nstep=frame_skip)`:
positions and velocities of now, all else one substep (under RK4 one stage) old, as Gymnasium reads it.
Tasks take Gymnasium's own constructor options. Actions are in [-1, 1], scaled to the model's control range.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Sequence

import torch
from torch import Tensor

from tasks.errors import TaskError
from tasks.packages import folder
from tasks.task import Sampler, Start, State, Task


class V5(Task):
    """A task of Gymnasium's on its model file.

    Args:
        xml_file: one of Gymnasium's own, or a path to another.
        frame_skip: physics steps per control step.
        reset_noise_scale: how far starts lie from the model's default pose.
    """

    max_episode_steps = 1000
    dtype = torch.float64
    camera = "track"
    normal_velocities = False  # a start's velocities: normally distributed in place of uniformly

    def __init__(self, xml_file: str, frame_skip: int, reset_noise_scale: float = 0.0):
        if frame_skip < 1:
            raise TaskError(f"frame_skip={frame_skip}: must be at least 1")
        self.xml_file, self.substeps, self.reset_noise_scale = xml_file, frame_skip, reset_noise_scale

    def mjcf(self) -> str:
        path = Path(self.xml_file)
        if path.name == self.xml_file:
            path = folder("gymnasium", "pip install .[gym]", "envs", "mujoco", "assets") / path
        if not path.is_file():
            raise TaskError(f"xml_file={self.xml_file}: there is no {path}")
        return path.read_text()

    def setup(self, model: Any, device: torch.device) -> None:
        self.dt = model.opt.timestep * self.substeps
        self._pose = torch.as_tensor(model.qpos0, dtype=torch.float32, device=device)
        self._nv, self.action_dim = model.nv, model.nu
        lower, upper = torch.as_tensor(model.actuator_ctrlrange, dtype=self.dtype, device=device).unbind(1)
        self._middle, self._reach = (upper + lower) / 2, (upper - lower) / 2
        self._direct = bool((lower == -1).all() and (upper == 1).all())
        self.obs_dim = self._obs_dim(model)

    def _obs_dim(self, model: Any) -> int:
        """How many numbers are observed."""
        return model.nq + model.nv

    def control(self, action: Tensor, memory: dict[str, Tensor]) -> Tensor:
        action = action.double()
        return action if self._direct else self._middle + self._reach * action

    def reset(self, sampler: Sampler) -> Start:
        noise = self.reset_noise_scale
        qpos = self._pose + sampler.uniform(-noise, noise, len(self._pose))
        if self.normal_velocities:
            return Start(qpos, sampler.normal(self._nv) * noise)
        return Start(qpos, sampler.uniform(-noise, noise, self._nv))


class Runner(V5):
    """A robot that is paid for its speed along x and pays for its controls.

    Reward: forward_reward_weight * speed + healthy_reward while healthy - ctrl_cost_weight * sum of squared controls.

    Args:
        exclude_current_positions_from_observation: leave the first `hidden` positions, of which speed does not depend,
            out of the observation.
        terminate_when_unhealthy: end the episode where `_healthy` says no.
    """

    hidden = 1  # positions along which the world looks the same
    healthy_reward = 0.0
    terminate_when_unhealthy = False
    max_speed = float("inf")  # of what is observed

    def __init__(
        self,
        xml_file: str,
        frame_skip: int,
        reset_noise_scale: float,
        forward_reward_weight: float,
        ctrl_cost_weight: float,
        exclude_current_positions_from_observation: bool,
    ):
        super().__init__(xml_file, frame_skip, reset_noise_scale)
        self.forward_reward_weight, self.ctrl_cost_weight = forward_reward_weight, ctrl_cost_weight
        self.first = self.hidden if exclude_current_positions_from_observation else 0

    def _obs_dim(self, model: Any) -> int:
        return model.nq + model.nv - self.first

    def reset(self, sampler: Sampler) -> Start:
        start = super().reset(sampler)
        if self.reads:
            return start
        return start._replace(memory={"x": start.qpos[:, 0].double()})

    def begin(self, state: State) -> dict[str, Tensor]:
        return {"x": self._x(state)}

    def _x(self, state: State) -> Tensor:
        """How far it has got along x, (N,)."""
        return state.qpos[:, 0].double()

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        qvel = state.qvel if self.max_speed == float("inf") else state.qvel.clamp(-self.max_speed, self.max_speed)
        return torch.cat((state.qpos[:, self.first :], qvel), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        x = self._x(state)
        speed = (x - memory["x"]) / self.dt
        memory["x"] = x
        healthy = self._healthy(state)
        reward = self.forward_reward_weight * speed + self.healthy_reward * healthy
        return reward - self._cost(state, action), ~healthy & self.terminate_when_unhealthy

    def _cost(self, state: State, action: Tensor) -> Tensor:
        """What is paid for controls (and contacts), (N,)."""
        return self.ctrl_cost_weight * self.control(action, {}).square().sum(1)

    def _healthy(self, state: State) -> Tensor:
        """Who stands as it should, (N,) bool."""
        return torch.ones_like(state.qpos[:, 0], dtype=torch.bool)

    def metrics(self, state: State) -> dict[str, Tensor]:
        return {"forward_velocity": state.qvel[:, 0].float()}


def between(value: Tensor, bounds: Sequence[float]) -> Tensor:
    """Where `value` lies within `bounds`, which are outside."""
    low, high = bounds
    return (value > low) & (value < high)
