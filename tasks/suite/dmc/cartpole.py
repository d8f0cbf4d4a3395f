"""dmc/cartpole: balance or swing up one, two or three poles on a cart."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from tasks.suite.dmc.base import Suite
from tasks.suite.dmc.rewards import small_control, tolerance
from tasks.task import State


class Balance(Suite):
    """Observation (5): cart position, cosine and sine of the pole, velocities.

    Reward: the product of uprightness, the cart in the middle, small control and small velocity, where these three can
    take away a half, a fifth and a half.
    """

    file, substeps, obs_dim = "cartpole", 1, 5
    reads, stage = ("xmat",), "position"
    poles, swings_up = 1, False

    def edit(self, root: ElementTree.Element) -> None:
        if self.poles == 1:
            return
        parent = root.find("./worldbody/body/body")
        for pole in range(2, self.poles + 1):
            child = ElementTree.SubElement(parent, "body", name=f"pole_{pole}", pos="0 0 1", childclass="pole")
            ElementTree.SubElement(child, "joint", name=f"hinge_{pole}")
            ElementTree.SubElement(child, "geom", name=f"pole_{pole}")
            parent = child
        root.find("./worldbody/geom").set("pos", f"0 0 {1 - self.poles - 0.05}")
        fixed, lookat = root.findall("./worldbody/camera")[:2]
        fixed.set("pos", f"0 {-1 - 2 * self.poles} 1")
        lookat.set("pos", f"0 {-2 * self.poles} 2")

    def draw(self, scene: Any, random: Any) -> None:
        qpos, qvel = scene.data.qpos, scene.data.qvel
        if self.swings_up:
            qpos[0] = 0.01 * random.randn()
            qpos[1] = np.pi + 0.01 * random.randn()
            qpos[2:] = 0.1 * random.randn(len(qpos) - 2)
        else:
            qpos[0] = random.uniform(-0.1, 0.1)
            qpos[1:] = random.uniform(-0.034, 0.034, len(qpos) - 1)
        qvel[:] = 0.01 * random.randn(len(qvel))

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        frames = state.fields["xmat"][:, 2:]
        angles = torch.stack((frames[:, :, 8], frames[:, :, 2]), dim=2).flatten(1)
        return torch.cat((state.qpos[:, :1], angles, state.qvel), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        upright = ((state.fields["xmat"][:, 2:, 8] + 1) / 2).mean(1)
        centered = (1 + tolerance(state.qpos[:, 0], 0, 0, 2)) / 2
        slow = (1 + tolerance(state.qvel[:, 1:], 0, 0, 5).min(1).values) / 2
        return self.never(upright * small_control(self.control(action, {})) * slow * centered)


class BalanceSparse(Balance):
    """Reward: 1 while the cart is within .25 m of the middle and the pole within 5.7 degrees of upright."""

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        upright = tolerance(state.fields["xmat"][:, 2:, 8], 0.995, 1).prod(1)
        return self.never(tolerance(state.qpos[:, 0], -0.25, 0.25) * upright)


class Swingup(Balance):
    """As Balance, from a hanging pole."""

    swings_up = True


class SwingupSparse(BalanceSparse):
    """As BalanceSparse, from a hanging pole."""

    swings_up = True


class TwoPoles(Swingup):
    """Observation (8). As Swingup, with a second pole on the first."""

    obs_dim, poles = 8, 2


class ThreePoles(Swingup):
    """Observation (11). As Swingup, with three poles on each other."""

    obs_dim, poles = 11, 3


TASKS = {
    "cartpole-balance": Balance,
    "cartpole-balance_sparse": BalanceSparse,
    "cartpole-swingup": Swingup,
    "cartpole-swingup_sparse": SwingupSparse,
    "cartpole-two_poles": TwoPoles,
    "cartpole-three_poles": ThreePoles,
}
