"""Reacher-v5: bring the tip of a two-link arm to a target in its plane."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tasks.suite.gym.v5 import V5
from tasks.task import Sampler, Start, State


class Reacher(V5):
    """Observation (10): cosines and sines of the joints, target, joint velocities, tip - target in the plane.

    Reward: -(distance of tip and target) - |a|^2. Targets are uniform in a disc of .2 m.
    """

    max_episode_steps = 50
    reads = ("xpos",)
    camera = {"distance": 0.9, "azimuth": 90.0, "elevation": -90.0, "height": 0.0}  # noqa: RUF012

    def __init__(
        self,
        xml_file: str = "reacher.xml",
        frame_skip: int = 2,
        reward_dist_weight: float = 1.0,
        reward_control_weight: float = 1.0,
    ):
        super().__init__(xml_file, frame_skip, reset_noise_scale=0.1)
        self.reward_dist_weight, self.reward_control_weight = reward_dist_weight, reward_control_weight

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        self._tip, self._target = model.body("fingertip").id, model.body("target").id

    def _obs_dim(self, model: Any) -> int:
        return 10

    def reset(self, sampler: Sampler) -> Start:
        start, unit = super().reset(sampler), sampler.uniform(0, 1, 2)
        radius, angle = 0.2 * unit[:, :1].sqrt(), 2 * math.pi * unit[:, 1:]
        target = torch.cat((radius * angle.cos(), radius * angle.sin()), dim=1)
        qvel = sampler.uniform(-0.005, 0.005, self._nv)
        qvel = torch.cat((qvel[:, :-2], torch.zeros_like(target)), dim=1)
        return Start(torch.cat((start.qpos[:, :-2], target), dim=1), qvel)

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        joints, target = state.qpos[:, :2], state.qpos[:, 2:]
        return torch.cat((joints.cos(), joints.sin(), target, state.qvel[:, :2], self._away(state)[:, :2]), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        distance = self._away(state).norm(dim=1)
        effort = self.control(action, {}).square().sum(1)
        reward = -distance * self.reward_dist_weight - effort * self.reward_control_weight
        return reward, torch.zeros_like(reward, dtype=torch.bool)

    def _away(self, state: State) -> Tensor:
        xpos = state.fields["xpos"]
        return xpos[:, self._tip] - xpos[:, self._target]
