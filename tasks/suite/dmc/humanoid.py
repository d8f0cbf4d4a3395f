"""dmc/humanoid: stand, walk, run, in three dimensions; and humanoid_CMU, the one with the joints of motion capture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tasks.suite.dmc.base import Suite, joints_at_random, sensed, within
from tasks.suite.dmc.rewards import INF, small_control, tolerance
from tasks.task import State


class Stand(Suite):
    """Observation (67): joint angles, head height, hands and feet and the vertical in torso axes, velocity of the
    centre of mass, velocities. Reward: head at 1.4 m, upright, small controls, and no speed of the centre of mass.

    Starts have random joints, and are drawn again until nothing touches.
    """

    file, substeps, obs_dim = "humanoid", 5, 67
    reads = ("xmat", "xpos")
    limbs = ("left_hand", "left_foot", "right_hand", "right_foot")
    torso, up = "torso", 8  # the body, and which element of its orientation says that it is upright
    speed = 0.0

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        self._torso, self._head, *self._limbs = self.bodies(self.torso, "head", *self.limbs)
        self._velocity = self.sensors(f"{self.torso}_subtreelinvel")

    def draw(self, scene: Any, random: Any) -> None:
        joints_at_random(scene, random)
        while scene.touches():
            joints_at_random(scene, random)

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        xpos, frame = state.fields["xpos"], state.fields["xmat"][:, self._torso]
        ends = (within(xpos[:, limb] - xpos[:, self._torso], frame) for limb in self._limbs)
        head, vertical = xpos[:, self._head, 2:], frame[:, 6:9]
        return torch.cat((state.qpos[:, 7:], head, *ends, vertical, sensed(state, self._velocity), state.qvel), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        standing = tolerance(state.fields["xpos"][:, self._head, 2], 1.4, INF, 1.4 / 4)
        upright = tolerance(state.fields["xmat"][:, self._torso, self.up], 0.9, INF, 1.9, "linear", 0)
        effort = small_control(self.control(action, {}))
        return self.never(effort * (standing * upright) * self._move(sensed(state, self._velocity)[:, :2]))

    def _move(self, velocity: Tensor) -> Tensor:
        return tolerance(velocity, 0, 0, 2).mean(1)


class Walk(Stand):
    """As Stand, with a speed of the centre of mass, whereto is all the same, of 1 m/s in place of none."""

    speed = 1.0

    def _move(self, velocity: Tensor) -> Tensor:
        return (5 * tolerance(velocity.norm(dim=1), self.speed, INF, self.speed, "linear", 0) + 1) / 6


class Run(Walk):
    """As Walk, at 10 m/s."""

    speed = 10.0


class RunPureState(Run):
    """As Run; observation (55): positions, velocities."""

    obs_dim = 55

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        return torch.cat((state.qpos, state.qvel), dim=1)


class _CMU:
    file, substeps, obs_dim = "humanoid_CMU", 10, 137
    limbs = ("lhand", "lfoot", "rhand", "rfoot")
    torso, up = "thorax", 7


class StandCMU(_CMU, Stand):
    """Observation (137) and reward as the humanoid's, of another body."""


class WalkCMU(_CMU, Walk):
    """As StandCMU, at 1 m/s."""


class RunCMU(_CMU, Run):
    """As StandCMU, at 10 m/s."""


TASKS = {
    "humanoid-stand": Stand,
    "humanoid-walk": Walk,
    "humanoid-run": Run,
    "humanoid-run_pure_state": RunPureState,
    "humanoid_CMU-stand": StandCMU,
    "humanoid_CMU-walk": WalkCMU,
    "humanoid_CMU-run": RunCMU,
}
