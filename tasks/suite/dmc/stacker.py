"""dmc/stacker: put a box, or a stack of them, at a target's height with the manipulator's arm."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from tasks.suite.dmc.base import remove
from tasks.suite.dmc.manipulator import CLOSE, Arm
from tasks.suite.dmc.rewards import INF, tolerance
from tasks.task import State


class Stack2(Arm):
    """Observation (49): as the manipulator's with two boxes, and the target's place. Reward: a box at the target, the
    hand away from it. Starts are drawn again until nothing touches.
    """

    file, axes, target_dim = "stacker", "xyz", 2
    objects = ("box0", "box1")
    episode_fields = ("body_pos",)

    def edit(self, root: ElementTree.Element) -> None:
        for number in range(len(self.objects), 4):  # none is left over of four
            remove(root, "body", f"box{number}")

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        (self._target,), (self._goal, self._grasp) = self.bodies("target"), self.sites("target", "grasp")
        self._boxes, self._size = self.sites(*self.objects), float(model.geom("target").size[0])

    def draw(self, scene: Any, random: Any) -> None:
        touches = True
        while touches:
            self.arm_at_random(scene, random)
            height, target = 2 * random.randint(len(self.objects)) + 1, scene.model.body("target").pos
            target[2] = scene.model.geom("target").size[0] * height
            target[0] = random.uniform(-0.37, 0.37)
            for name in self.objects:
                for axis, bounds in (("x", (0.1, 0.3)), ("z", (0, 0.7)), ("y", (0, 2 * np.pi))):
                    scene.qpos(f"{name}_{axis}")[:] = random.uniform(*bounds)
            touches = scene.touches()

    def target(self, state: State) -> Tensor:
        return state.fields["xpos"][:, self._target, ::2]

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        away = torch.stack([self.distance(state, box, self._goal) for box in self._boxes]).min(0).values
        placed = tolerance(away, 0, 0, 2 * self._size)
        return self.never(placed * tolerance(self.distance(state, self._grasp, self._goal), 0.1, INF, CLOSE))


class Stack4(Stack2):
    """Observation (63): as Stack2, with four boxes."""

    objects = ("box0", "box1", "box2", "box3")


TASKS = {"stacker-stack_2": Stack2, "stacker-stack_4": Stack4}
