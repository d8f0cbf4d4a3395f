"""dmc/finger: turn a hinged body with a two-joint finger."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from tasks.suite.dmc.base import Suite, joints_at_random, sensed
from tasks.task import State


class Spin(Suite):
    """Observation (9): joint angles, tip relative to the hinge, velocities, log(1 + touch). Reward: 1 at -15 rad/s.

    Starts have random joints, drawn again until nothing touches.
    """

    file, substeps, obs_dim = "finger", 2, 9

    def adapt(self, model: Any) -> None:
        model.dof_damping[model.joint("hinge").dofadr] = 0.03

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        self._angles, self._touch = self.sensors("proximal", "distal"), self.sensors("touchtop", "touchbottom")
        self._speeds = self.sensors("proximal_velocity", "distal_velocity", "hinge_velocity")
        self._tip, self._target, self._hinge = (self.sensors(name)[::2] for name in ("tip", "target", "spinner"))

    def draw(self, scene: Any, random: Any) -> None:
        for _ in range(1000):
            joints_at_random(scene, random)
            if not scene.touches():
                return
        raise RuntimeError("no pose of the finger in 1000 was free of contacts")

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        seen = sensed(state, self._angles), self._at_tip(state), sensed(state, self._speeds)
        return torch.cat((*seen, sensed(state, self._touch).log1p()), dim=1)

    def _at_tip(self, state: State) -> Tensor:
        return sensed(state, self._tip) - sensed(state, self._hinge)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        return self.never((sensed(state, self._speeds[2:])[:, 0] <= -15).to(state.qpos.dtype))


class TurnEasy(Spin):
    """Observation (12): as Spin's, and the target relative to the hinge, the tip's distance to its surface.

    Reward: 1 in the target. Targets are anywhere around the hinge, at the reach of the body's end.
    """

    obs_dim, radius = 12, 0.07
    episode_fields = ("site_pos",)

    def adapt(self, model: Any) -> None:
        model.site("target").size[0] = self.radius

    def draw(self, scene: Any, random: Any) -> None:
        scene.look()
        angle = random.uniform(-np.pi, np.pi)
        x, _, z = scene.data.joint("hinge").xanchor
        reach = scene.model.geom("cap1").size.sum()
        scene.model.site("target").pos[::2] = x + reach * np.sin(angle), z + reach * np.cos(angle)
        super().draw(scene, random)

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        target = sensed(state, self._target) - sensed(state, self._hinge)
        return torch.cat((super().observe(state, memory), target, self._distance(state)[:, None]), dim=1)

    def _distance(self, state: State) -> Tensor:
        target = sensed(state, self._target) - sensed(state, self._hinge)
        return (target - self._at_tip(state)).norm(dim=1) - self.radius

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        return self.never((self._distance(state) <= 0).to(state.qpos.dtype))


class TurnHard(TurnEasy):
    """As TurnEasy, with a target of .03 m."""

    radius = 0.03


TASKS = {"finger-spin": Spin, "finger-turn_easy": TurnEasy, "finger-turn_hard": TurnHard}
