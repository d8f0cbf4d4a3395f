"""Quadcopter: fly to a point and hover there."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import tasks.rotations as rotations
from tasks.suite.models import quadcopter
from tasks.task import Sampler, Start, State, Task


class Quadcopter(Task):
    """Four thrusters, each tilted by two hinges, that are to hold a disc at (0, 0, 1). After IsaacGymEnvs' (v1.5.1).

    Observation (21), clipped to +-5: 1/3 x way to the target; the chassis' quaternion (x, y, z, w); 1/2 x its
    velocity; 1/pi x its angular velocity (both in world axes); 8 hinge angles.
    Action (12): the hinges' targets move by up to .25 rad per step, within +-30 degrees; each thrust by up to 2 N,
    within 0 and 2 N.
    Reward: p + p (u + s), where p = 1 / (1 + distance^2), u = 1 / (1 + (1 - up)^2) with up the z component of the
    chassis' axis, s = 1 / (1 + w_z^2). Terminates where the target is beyond 3 m or the chassis below .3 m.
    `memory`: "target" (8), the hinges' targets (rad), and "thrust" (4), in N. Neither is observed, as in the source.

    Departures from the source: hinges follow their targets with a time constant of 10 ms, where PhysX's stiff
    springs reach them at once; no limit on angular velocity (4 pi rad/s in the source); the action chosen on a
    start is applied, where the source drops it; the first observation of an episode is that before its first step,
    and an episode lasts exactly 500 transitions.
    """

    obs_dim, action_dim, max_episode_steps = 21, 12, 500
    clip_obs = 5.0
    ceiling = 1500.0  # not reached: the way to the target takes a second
    camera = {"distance": 4.0, "azimuth": 130.0, "elevation": -15.0, "height": 1.0}  # noqa: RUF012
    hinge_speed, thrust_speed = 8 * math.pi, 200.0  # rad/s and N/s at full action

    def mjcf(self) -> str:
        return quadcopter.mjcf()

    def setup(self, model: Any, device: torch.device) -> None:
        dt = model.opt.timestep * self.substeps
        limits = torch.as_tensor(model.actuator_ctrlrange, dtype=torch.float32, device=device)
        self._lower, self._upper = limits[:, 0].clone(), limits[:, 1].clone()
        self._most = torch.tensor([self.hinge_speed * dt] * 8 + [self.thrust_speed * dt] * 4, device=device)
        self._goal = torch.tensor([0.0, 0.0, 1.0], device=device)
        self._upright = torch.tensor([1.0, 0.0, 0.0, 0.0], device=device)

    def reset(self, sampler: Sampler) -> Start:
        away, above = sampler.uniform(-1.5, 1.5, 2), sampler.uniform(0.8, 2.5, 1)
        hinges = sampler.uniform(-0.2, 0.2, 8)
        upright = self._upright.expand(len(above), 4)
        memory = {"target": hinges, "thrust": torch.zeros_like(hinges[:, :4])}
        return Start(torch.cat((away, above, upright, hinges), dim=1), above.new_zeros(len(above), 14), memory)

    def control(self, action: Tensor, memory: dict[str, Tensor]) -> Tensor:
        before = torch.cat((memory["target"], memory["thrust"]), dim=1)
        now = torch.maximum(torch.minimum(before + action * self._most, self._upper), self._lower)
        memory["target"], memory["thrust"] = now[:, :8], now[:, 8:]
        return now

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        quat, spin = state.qpos[:, 3:7], rotations.to_world(rotations.matrix(state.qpos[:, 3:7]), state.qvel[:, 3:6])
        way = (self._goal - state.qpos[:, :3]) / 3
        turn = quat[:, 1:], quat[:, :1]
        return torch.cat((way, *turn, state.qvel[:, :3] / 2, spin / math.pi, state.qpos[:, 7:]), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        rot = rotations.matrix(state.qpos[:, 3:7])
        distance = (state.qpos[:, :3] - self._goal).norm(dim=1)
        spin = rotations.to_world(rot, state.qvel[:, 3:6])[:, 2]
        near = 1 / (1 + distance.square())
        reward = near * (1 + 1 / (1 + (1 - rot.zz).square()) + 1 / (1 + spin.square()))
        return reward, (distance > 3.0) | (state.qpos[:, 2] < 0.3)

    def metrics(self, state: State) -> dict[str, Tensor]:
        return {"distance": (state.qpos[:, :3] - self._goal).norm(dim=1)}
