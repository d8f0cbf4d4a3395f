"""Anymal: walk as commanded, forwards, sideways and turning."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import tasks.rotations as rotations
from tasks.suite.models import anymal
from tasks.task import Sampler, Start, State, Task


class Anymal(Task):
    """A quadruped of 52 kg on a flat floor that is told a velocity. After IsaacGymEnvs' Anymal (v1.5.1).

    Observation (48), clipped to +-5: 2 x linear and 1/4 x angular velocity in the base's axes; direction of gravity
    in the base's axes; the command (2 x forward, 2 x sideways, 1/4 x yaw rate); 12 joint angles from their default;
    .05 x joint velocities; last action. Action (12): half a radian from the default angles, which drives of 85 N m/rad
    and 2 N m s/rad turn into at most 80 N m. Joints in the order LF, LH, RF, RH of HAA, HFE, KFE.
    Reward: .02 s x (exp(-|command - velocity|^2 / .25), of x and y, + .5 exp(-(command - yaw rate)^2 / .25)
    - 2.5e-5 x sum torque^2), at least 0. Terminates where the base or a thigh is pressed with more than 1 N.
    `memory`: "action", the last one, and "command" (3), of an episode: forward in +-2 m/s, sideways in +-1 m/s, yaw
    rate in +-1 rad/s.

    Departures from the source:
    - gravity is turned into the base's axes; the source turns it the other way, so that what it shows depends on
      the heading, which nothing else does;
    - torque is what the drives put out and touch the sum of normal forces, where PhysX has its solver's forces;
    - no limit on joint velocities (20 rad/s in the source);
    - the first observation of an episode holds zeros for the last action; episodes restart within the step, end once
      where a contact ends them, and last 2500 transitions.
    """

    obs_dim, action_dim, max_episode_steps = 48, 12, 2500
    clip_obs = 5.0
    ceiling = 75.0
    camera = {"distance": 2.6, "azimuth": 125.0, "elevation": -18.0, "height": 0.3}  # noqa: RUF012
    tracked_body = "base"
    reach = 0.5  # rad from the default angles at full action
    command = (2.0, 1.0, 1.0)  # largest forward and sideways velocity (m/s) and yaw rate (rad/s)

    def mjcf(self) -> str:
        return anymal.mjcf()

    def setup(self, model: Any, device: torch.device) -> None:
        self._dt = model.opt.timestep * self.substeps
        pose = [angle for sx, sy in anymal.LEGS.values() for angle in (0.03 * sy, 0.4 * sx, -0.8 * sx)]
        self._pose = torch.tensor(pose, device=device)
        self._root = torch.tensor([0.0, 0.0, 0.62, 1.0, 0.0, 0.0, 0.0], device=device)
        self._command = torch.tensor(self.command, device=device)
        self._scale = torch.tensor([2.0, 2.0, 0.25], device=device)

    def reset(self, sampler: Sampler) -> Start:
        angles = self._pose * sampler.uniform(0.5, 1.5, 12)
        speeds = sampler.uniform(-0.1, 0.1, 12)
        command = self._command * sampler.uniform(-1.0, 1.0, 3)
        qpos = torch.cat((self._root.expand(len(angles), 7), angles), dim=1)
        qvel = torch.cat((speeds.new_zeros(len(speeds), 6), speeds), dim=1)
        return Start(qpos, qvel, {"action": torch.zeros_like(angles), "command": command})

    def control(self, action: Tensor, memory: dict[str, Tensor]) -> Tensor:
        memory["action"] = action
        return self._pose + self.reach * action

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        rot = rotations.matrix(state.qpos[:, 3:7])
        linear, angular = rotations.to_body(rot, state.qvel[:, :3]), state.qvel[:, 3:6]
        down = -torch.stack((rot.zx, rot.zy, rot.zz), dim=1)
        joints = state.qpos[:, 7:] - self._pose, state.qvel[:, 6:] * 0.05
        told = memory["command"] * self._scale
        return torch.cat((linear * 2, angular * 0.25, down, told, *joints, memory["action"]), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        linear = rotations.to_body(rotations.matrix(state.qpos[:, 3:7]), state.qvel[:, :3])
        touch, torque = state.sensors.split([5, 12], dim=1)
        command = memory["command"]
        off = (command[:, :2] - linear[:, :2]).square().sum(1)
        turn = (command[:, 2] - state.qvel[:, 5]).square()
        reward = torch.exp(-off / 0.25) + 0.5 * torch.exp(-turn / 0.25) - 2.5e-5 * torch.square(torque).sum(1)
        return self._dt * reward.clamp(min=0.0), (touch > 1.0).any(1)
