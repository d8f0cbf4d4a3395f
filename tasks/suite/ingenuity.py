"""Ingenuity: a helicopter on Mars flies from point to point."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import tasks.rotations as rotations
from tasks.suite.models import ingenuity
from tasks.task import Sampler, Start, State, Task


class Ingenuity(Task):
    """Two rotors that hold a box at a point, which is another one after every 500 steps. After IsaacGymEnvs' (v1.5.1).

    Observation (13), clipped to +-5: 1/3 x way to the target; the chassis' quaternion (x, y, z, w); 1/2 x its
    velocity; 1/pi x its angular velocity (both in world axes).
    Action (6), of each rotor: the share of its thrust that it pushes along x and along y, within +-.2; the thrust
    along its axis, from -20 to 20 N.
    Reward: p + p (u + s), where p = 1 / (1 + distance^2), u = 5 / (1 + (1 - up)^2) with up the z component of the
    chassis' axis, s = 1 / (1 + w_z^2). Terminates where the target is beyond 8 m or the chassis below .5 m. Targets
    are uniform in +-5, +-5 and 1 to 2 m, so that 15 % are too far from the one before: as in the source such
    a target ends the episode.
    `memory`: "targets", the four of an episode (4, 3), "steps" taken, and "target", the one that counts.

    Departures from the source: no limit on angular velocity (4 pi rad/s in the source); rotors that turn for show and
    push nothing are left out; the action chosen on a start is applied, where the source drops it; the first
    observation of an episode is that before its first step, and an episode lasts exactly 2000 transitions.
    """

    obs_dim, action_dim, max_episode_steps = 13, 6, 2000
    clip_obs = 5.0
    ceiling = 14000.0  # not reached: each way takes a second or two, and some targets can't be reached
    camera = {"distance": 5.0, "azimuth": 130.0, "elevation": -8.0, "height": 1.4}  # noqa: RUF012
    tracked_body = "chassis"
    targets, every = 4, 500  # of an episode; steps to each

    def mjcf(self) -> str:
        return ingenuity.mjcf()

    def setup(self, model: Any, device: torch.device) -> None:
        self._upright = torch.tensor([1.0, 0.0, 0.0, 0.0], device=device)

    def reset(self, sampler: Sampler) -> Start:
        away, above = sampler.uniform(-1.5, 1.5, 2), sampler.uniform(0.8, 2.5, 1)
        where, height = sampler.uniform(-5.0, 5.0, 2 * self.targets), sampler.uniform(1.0, 2.0, self.targets)
        targets = torch.cat((where.view(-1, self.targets, 2), height.view(-1, self.targets, 1)), dim=2)
        steps = torch.zeros_like(targets[:, 0, 0], dtype=torch.int64)
        qpos = torch.cat((away, above, self._upright.expand(len(above), 4)), dim=1)
        memory = {"targets": targets, "steps": steps, "target": targets[:, 0]}
        return Start(qpos, above.new_zeros(len(above), 6), memory)

    def control(self, action: Tensor, memory: dict[str, Tensor]) -> Tensor:
        targets = memory["targets"]
        number = (memory["steps"] // self.every).clamp(max=self.targets - 1)
        memory["target"] = targets.gather(1, number.view(-1, 1, 1).expand(-1, 1, 3)).squeeze(1)
        memory["steps"] = memory["steps"] + 1
        rotors = action.view(-1, 2, 3)
        thrust = rotors[..., 2:] * ingenuity.MAX_THRUST
        aside = thrust * rotors[..., :2].clamp(-ingenuity.LATERAL, ingenuity.LATERAL)
        return torch.cat((aside, thrust), dim=2).flatten(1)

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        quat, spin = state.qpos[:, 3:7], rotations.to_world(rotations.matrix(state.qpos[:, 3:7]), state.qvel[:, 3:6])
        way = (memory["target"] - state.qpos[:, :3]) / 3
        return torch.cat((way, quat[:, 1:], quat[:, :1], state.qvel[:, :3] / 2, spin / math.pi), dim=1)

    def shown(self, memory: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"mocap_pos": memory["target"][:, None]}

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        rot = rotations.matrix(state.qpos[:, 3:7])
        distance = (state.qpos[:, :3] - memory["target"]).norm(dim=1)
        spin = rotations.to_world(rot, state.qvel[:, 3:6])[:, 2]
        near = 1 / (1 + distance.square())
        reward = near * (1 + 5 / (1 + (1 - rot.zz).square()) + 1 / (1 + spin.square()))
        return reward, (distance > 8.0) | (state.qpos[:, 2] < 0.5)
