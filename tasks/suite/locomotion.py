"""What running robots share: the torso's observations, the way made, the noise of a start."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import tasks.rotations as rotations
from tasks.errors import TaskError
from tasks.task import Sampler, Start, State, Task

TARGET = 1000.0  # metres ahead on the x axis: far enough to be a direction


class Locomotion(Task):
    """A robot on a free joint that is to run towards (1000, 0). Formulas: IsaacGymEnvs' ant.py and humanoid.py.

    `randomize`: each robot's mass is scaled by a factor in [1 - randomize, 1 + randomize], its friction by another.
    `memory`: "action", the last one (zero when an episode starts), and "position", the torso's x, y one step ago.
    """

    max_episode_steps = 1000
    tracked_body = "torso"

    start_height: float
    fall_height: float  # below it the episode ends
    fall_reward: float
    alive_reward: float
    action_cost: float
    position_noise, velocity_noise = 0.2, 0.1

    def __init__(self, randomize: float = 0.0):
        if not 0 <= randomize < 1:
            raise TaskError(f"randomize={randomize}: must be in [0, 1), the largest change of a factor around 1")
        self.spread = randomize

    def setup(self, model: Any, device: torch.device) -> None:
        limits = torch.as_tensor(model.jnt_range[1:], dtype=torch.float32, device=device)  # joint 0 is free
        lower, upper = limits.unbind(1)
        self._lower, self._upper = lower.clone(), upper.clone()
        self._middle, self._unscale = (upper + lower) / 2, 2 / (upper - lower)
        self._rest = torch.zeros_like(lower).clamp(lower, upper)
        self._root = torch.tensor([0.0, 0.0, self.start_height, 1.0, 0.0, 0.0, 0.0], device=device)

        self._fields = {
            name: torch.as_tensor(getattr(model, name), dtype=torch.float32, device=device)
            for name in ("body_mass", "body_inertia", "geom_friction")
        }

    def randomize(self, sampler: Sampler) -> dict[str, Tensor]:
        if self.spread == 0:
            return {}
        mass, friction = sampler.uniform(1 - self.spread, 1 + self.spread, 2).split(1, dim=1)
        factors = {"body_mass": mass, "body_inertia": mass[:, :, None], "geom_friction": friction[:, :, None]}
        return {name: factors[name] * field for name, field in self._fields.items()}

    def reset(self, sampler: Sampler) -> Start:
        joints = len(self._rest)
        angles = self._rest + sampler.uniform(-self.position_noise, self.position_noise, joints)
        angles = angles.clamp(self._lower, self._upper)
        speeds = sampler.uniform(-self.velocity_noise, self.velocity_noise, joints)
        qpos = torch.cat((self._root.expand(len(angles), 7), angles), dim=1)
        qvel = torch.cat((speeds.new_zeros(len(speeds), 6), speeds), dim=1)
        return Start(qpos, qvel, {"action": torch.zeros_like(angles), "position": qpos[:, :2]})

    def control(self, action: Tensor, memory: dict[str, Tensor]) -> Tensor:
        memory["action"] = action
        return action

    def _torso(self, state: State, angular_scale: float) -> Tensor:
        """Height, velocities in the torso's axes, yaw, roll, angle to the target, up, heading: (N, 12)."""
        rot = rotations.matrix(state.qpos[:, 3:7])
        yaw, roll = rotations.yaw_roll(rot)
        to_x, to_y = TARGET - state.qpos[:, 0], -state.qpos[:, 1]
        angle_to_target = rotations.wrap(torch.atan2(to_y, to_x) - yaw)
        heading = (rot.xx * to_x + rot.yx * to_y) * torch.rsqrt(to_x * to_x + to_y * to_y)
        linear = rotations.to_body(rot, state.qvel[:, :3])
        angular = state.qvel[:, 3:6] * angular_scale  # a free joint's is in body axes already
        angles = torch.stack((yaw, roll, angle_to_target, rot.zz, heading), dim=1)
        return torch.cat((state.qpos[:, 2:3], linear, angular, angles), dim=1)

    def _unscaled(self, state: State) -> Tensor:
        """Joint angles with -1 and 1 at the limits, (N, joints)."""
        return (state.qpos[:, 7:] - self._middle) * self._unscale

    def _progress(self, state: State, memory: dict[str, Tensor], dt: float) -> Tensor:
        """Speed of approach to the target (m/s), (N,).

        The difference of two distances of about 1000 m would leave steps of 4 mm/s in float32; that of their
        squares, written as products, does not.
        """
        before, now = memory["position"], state.qpos[:, :2]
        memory["position"] = now
        moved, middle = now - before, (now + before) / 2
        to_x = TARGET - middle[:, 0]
        half_difference = moved[:, 0] * to_x - moved[:, 1] * middle[:, 1]  # of the squared distances
        distance = torch.hypot(to_x, middle[:, 1])  # the mean of the two, to 1e-9 over one step
        return half_difference / (distance * dt)

    def _judge(
        self, obs: Tensor, progress: Tensor, action: Tensor, costs: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The shared part of the reward, and the fall; the parts that vary, as they are where there is none."""
        height, up, heading = obs[:, 0], obs[:, 10], obs[:, 11]
        ahead = (heading * (0.5 / 0.8)).clamp(max=0.5)
        upright, effort = 0.1 * (up > 0.93), self.action_cost * (action * action).sum(1)
        reward = progress + self.alive_reward + upright + ahead
        reward = reward - effort - costs
        told = {"progress": progress, "upright": upright, "heading": ahead, "action_cost": effort, "joint_cost": costs}
        memory.update({f"reward/{name}": value for name, value in told.items()})
        fallen = height < self.fall_height
        return torch.where(fallen, self.fall_reward, reward), fallen

    def metrics(self, state: State) -> dict[str, Tensor]:
        return {"forward_velocity": state.qvel[:, 0]}
