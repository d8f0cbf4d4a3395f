"""Pusher-v5: push a cylinder to a goal with a seven-joint arm."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tasks.suite.gym.v5 import V5
from tasks.task import Sampler, Start, State

_TRIES = 24  # 38 % of the rectangle are too near to the goal: all of them fail once in 10^10 starts


class Pusher(V5):
    """Observation (23): joint positions, joint velocities, positions of the arm's tip, the cylinder and the goal.

    Reward: -.5 (distance of tip and cylinder) - (distance of cylinder and goal) - .1 |ctrl|^2, ctrl = 2 a.
    The cylinder starts uniformly in a rectangle of .3 x .4 m beside the goal, more than .17 m away from it.
    """

    max_episode_steps = 100
    reads = ("xpos",)
    camera = {"distance": 4.0, "azimuth": 90.0, "elevation": -45.0, "height": 0.0}  # noqa: RUF012

    def __init__(
        self,
        xml_file: str = "pusher_v5.xml",
        frame_skip: int = 5,
        reward_near_weight: float = 0.5,
        reward_dist_weight: float = 1.0,
        reward_control_weight: float = 0.1,
    ):
        super().__init__(xml_file, frame_skip)
        self.reward_near_weight, self.reward_dist_weight = reward_near_weight, reward_dist_weight
        self.reward_control_weight = reward_control_weight

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        self._tip, self._cylinder, self._goal = (model.body(name).id for name in ("tips_arm", "object", "goal"))

    def _obs_dim(self, model: Any) -> int:
        return 23

    def reset(self, sampler: Sampler) -> Start:
        x, y = sampler.uniform(-0.3, 0.0, _TRIES), sampler.uniform(-0.2, 0.2, _TRIES)
        far = (x.square() + y.square()).sqrt() > 0.17
        first = far.int().argmax(1, keepdim=True)
        cylinder = x.gather(1, first), y.gather(1, first)
        goal = torch.zeros_like(cylinder[0]).expand(-1, 2)
        qpos = torch.cat((self._pose[:-4].expand(len(x), -1), *cylinder, goal), dim=1)
        qvel = sampler.uniform(-0.005, 0.005, self._nv)
        return Start(qpos, torch.cat((qvel[:, :-4], torch.zeros_like(qvel[:, -4:])), dim=1))

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        xpos = state.fields["xpos"]
        places = (xpos[:, body] for body in (self._tip, self._cylinder, self._goal))
        return torch.cat((state.qpos[:, :7], state.qvel[:, :7], *places), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        xpos = state.fields["xpos"]
        near = (xpos[:, self._cylinder] - xpos[:, self._tip]).norm(dim=1) * self.reward_near_weight
        away = (xpos[:, self._cylinder] - xpos[:, self._goal]).norm(dim=1) * self.reward_dist_weight
        effort = self.control(action, {}).square().sum(1) * self.reward_control_weight
        reward = -away - effort - near
        return reward, torch.zeros_like(reward, dtype=torch.bool)
