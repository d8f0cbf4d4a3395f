"""BallBalance: catch a falling ball on a tray and keep it there."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tasks.suite.models import ball_balance
from tasks.task import Sampler, Start, State, Task


class BallBalance(Task):
    """Three driven knees under a tray; a ball falls on it at 5 m/s. After IsaacGymEnvs' BallBalance (v1.5.1).

    Observation (24), clipped to +-5: 3 driven angles; their velocities; ball position; ball velocity; 1/20 x the
    force along each of 3 legs where it meets the tray; 1/20 x the torque there about x, about y, about z of each
    leg. Action (3): the driven angles' targets move by up to 0.2 rad per step.
    Reward: 1 / (1 + |ball - (0, 0, .7)|) / (1 + |ball velocity|). Terminates where the ball is below .15.
    `memory`: "target", the driven angles' targets (rad).

    Departures from the source: feet are pinned by constraints, where the source pulls them with stiff attractors;
    the drives have a quarter of the source's gains and the same time constant, for the integrator's sake;
    the sensors measure what each leg passes to the tray, where PhysX repeats one net force three times, and of
    the force the component along the leg, where the source has x of the tray (its comment calls that an
    accident); two physics steps of 5 ms, where the source has one of 10; the first observation of an episode is
    that before its first step, and an episode lasts exactly 500 transitions.
    """

    obs_dim, action_dim, max_episode_steps = 24, 3, 500
    clip_obs = 5.0
    ceiling = 500.0  # not reached: the ball has to fall first
    camera = {"distance": 3.0, "azimuth": 120.0, "elevation": -18.0, "height": 0.45}  # noqa: RUF012
    speed = 20.0  # rad/s of a target at full action

    def mjcf(self) -> str:
        return ball_balance.mjcf()

    def setup(self, model: Any, device: torch.device) -> None:
        self._step = self.speed * model.opt.timestep * self.substeps
        limits = torch.as_tensor(model.actuator_ctrlrange, dtype=torch.float32, device=device)
        self._lower, self._upper = limits.unbind(1)
        self._start = torch.as_tensor(model.qpos0, dtype=torch.float32, device=device)
        self._goal = torch.tensor([0.0, 0.0, 0.7], device=device)

    def reset(self, sampler: Sampler) -> Start:
        distance, angle, height, speed = (
            sampler.uniform(low, high, 1) for low, high in ((0.001, 0.5), (-math.pi, math.pi), (1.0, 2.0), (0.0, 5.0))
        )
        outward = torch.cat((angle.cos(), angle.sin()), dim=1)
        robot, upright = self._start[:13].expand(len(angle), 13), self._start[16:].expand(len(angle), 4)
        qpos = torch.cat((robot, outward * distance, height, upright), dim=1)
        inward = outward * (-speed * (distance - 0.001) / 0.499)
        still = torch.zeros_like(robot[:, :12])
        qvel = torch.cat((still, inward, torch.full_like(speed, -5.0), still[:, :3]), dim=1)
        return Start(qpos, qvel, {"target": still[:, :3]})

    def control(self, action: Tensor, memory: dict[str, Tensor]) -> Tensor:
        target = memory["target"] + action * self._step
        memory["target"] = torch.maximum(torch.minimum(target, self._upper), self._lower)
        return memory["target"]

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        forces, torques = state.sensors.split([9, 9], dim=1)
        # By component, then by leg.
        load = torch.cat((forces[:, 0::3], torques[:, 0::3], torques[:, 1::3], torques[:, 2::3]), dim=1) / 20
        ball = state.qpos[:, 13:16], state.qvel[:, 12:15]
        return torch.cat((state.qpos[:, 8:13:2], state.qvel[:, 7:12:2], *ball, load), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        ball, velocity = state.qpos[:, 13:16], state.qvel[:, 12:15]
        away, speed = (ball - self._goal).norm(dim=1), velocity.norm(dim=1)
        return 1 / ((1 + away) * (1 + speed)), ball[:, 2] < 1.5 * ball_balance.BALL_RADIUS
