"""dmc/lqr: bring a chain of masses and springs to rest: a linear system, quadratic costs."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from tasks.errors import TaskError
from tasks.suite.dmc.base import Suite
from tasks.task import Sampler, State


class LQR(Suite):
    """Observation: positions, velocities. Reward: 1 - |positions|^2 / 2 - .1 |controls|^2 / 2.

    It ends where positions and velocities together are below 1e-6. dm_control has no time limit, here it is 1000 steps.
    Controls have no range: they are the actions themselves, in [-1, 1]. The springs' stiffness is drawn once for each
    environment, from [15, 25], so that each is another system, as dm_control's environments of different seeds are.
    """

    file, substeps, stage = "lqr", 1, "none"
    bodies_in_chain, actuated = 2, 1

    def __init__(self, action_repeat: int = 1):
        super().__init__(action_repeat)
        if action_repeat != 1:
            raise TaskError(f"action_repeat={action_repeat}: this task ends amid its steps, so it must be 1")
        self.obs_dim = 2 * self.bodies_in_chain

    def edit(self, root: ElementTree.Element) -> None:
        parent = root.find("./worldbody")
        actuator, tendon = ElementTree.SubElement(root, "actuator"), ElementTree.SubElement(root, "tendon")
        for number in range(self.bodies_in_chain):
            place = ".25 0 .1" if number == 0 else ".25 0 0"
            body = ElementTree.SubElement(parent, "body", name=f"body_{number}", pos=place)
            ElementTree.SubElement(body, "joint", name=f"joint_{number}", stiffness="20", damping="0")
            ElementTree.SubElement(body, "geom", name=f"geom_{number}")
            ElementTree.SubElement(body, "site", name=f"site_{number}")
            if number < self.actuated:
                ElementTree.SubElement(actuator, "motor", name=f"motor_{number}", joint=f"joint_{number}")
            if number < self.bodies_in_chain - 1:
                spatial = ElementTree.SubElement(tendon, "spatial", name=f"tendon_{number}")
                for end in (number, number + 1):
                    ElementTree.SubElement(spatial, "site", site=f"site_{end}")
            parent = body

    def randomize(self, sampler: Sampler) -> dict[str, Tensor]:
        return {"jnt_stiffness": sampler.uniform(15, 25, self.bodies_in_chain)}

    def draw(self, scene: Any, random: Any) -> None:
        direction = random.randn(self.bodies_in_chain)
        scene.data.qpos[:] = np.sqrt(2) * direction / np.linalg.norm(direction)

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        return torch.cat((state.qpos, state.qvel), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        costs = 0.5 * state.qpos.square().sum(1) + 0.1 * (0.5 * self.control(action, {}).square().sum(1))
        return 1 - costs, torch.cat((state.qpos, state.qvel), dim=1).norm(dim=1) < 1e-6


class LQR62(LQR):
    """Six masses, of which the first two are pushed."""

    bodies_in_chain, actuated = 6, 2


TASKS = {"lqr-lqr_2_1": LQR, "lqr-lqr_6_2": LQR62}
