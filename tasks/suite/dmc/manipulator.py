"""dmc/manipulator: bring a ball or a peg to a target with an arm and a hand in a plane; and what the stacker shares."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from tasks.suite.dmc.base import Suite, remove, sensed
from tasks.suite.dmc.rewards import tolerance
from tasks.task import State

ARM = ("arm_root", "arm_shoulder", "arm_elbow", "arm_wrist", "finger", "fingertip", "thumb", "thumbtip")
_PROPS = ("ball", "target_ball", "cup", "peg", "target_peg", "slot")
_IN_HAND, _IN_TARGET = 0.1, 0.1  # shares of the starts
CLOSE = 0.01


class Arm(Suite):
    """An arm of four joints with a hand of four.

    Args:
        fully_observable: show the objects and the target too, not the arm and its touch alone.
    """

    substeps, stage = 10, "position"
    reads = ("xpos", "xquat", "site_xpos")
    touch = ("palm_touch", "finger_touch", "thumb_touch", "fingertip_touch", "thumbtip_touch")
    objects: tuple[str, ...]
    axes: str  # of an object's joints, in the order in which they are shown

    def __init__(self, fully_observable: bool = True, action_repeat: int = 1):
        super().__init__(action_repeat)
        self.fully_observable = fully_observable

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        joints = [model.joint(name) for name in ARM]
        self._arm_qpos = self.columns(joint.qposadr[0] for joint in joints)
        self._arm_qvel = self.columns(joint.dofadr[0] for joint in joints)
        self._touch, (self._hand,) = self.sensors(*self.touch), self.bodies("hand")
        moved = [f"{name}_{axis}" for name in self.objects for axis in self.axes]
        self._object_qvel = self.columns(model.joint(name).dofadr[0] for name in moved)
        self._objects = self.bodies(*self.objects)
        self.obs_dim = 29 + self.fully_observable * (4 + 4 * len(self.objects) + len(moved) + self.target_dim)

    def arm_at_random(self, scene: Any, random: Any) -> None:
        model = scene.model
        joints = [model.joint(name).id for name in ARM]
        limited, ranges = model.jnt_limited[joints].astype(bool), model.jnt_range[joints]
        lower, upper = np.where(limited, ranges[:, 0], -np.pi), np.where(limited, ranges[:, 1], np.pi)
        scene.data.qpos[model.jnt_qposadr[joints]] = random.uniform(lower, upper)
        scene.qpos("finger")[:] = scene.qpos("thumb")

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        angles = state.qpos.index_select(1, self._arm_qpos)
        arm = torch.stack((angles.sin(), angles.cos()), dim=2).flatten(1)
        seen = arm, state.qvel.index_select(1, self._arm_qvel), sensed(state, self._touch).log1p()
        if not self.fully_observable:
            return torch.cat(seen, dim=1)
        poses = (self.pose(state, body) for body in (self._hand, *self._objects))
        return torch.cat((*seen, *poses, state.qvel.index_select(1, self._object_qvel), self.target(state)), dim=1)

    @staticmethod
    def pose(state: State, body: int) -> Tensor:
        """Place and quaternion in the plane, (N, 4)."""
        return torch.cat((state.fields["xpos"][:, body, ::2], state.fields["xquat"][:, body, ::2]), dim=1)

    def distance(self, state: State, one: int, other: int) -> Tensor:
        """Between two sites, (N,)."""
        places = state.fields["site_xpos"]
        return (places[:, one] - places[:, other]).norm(dim=1)

    def target(self, state: State) -> Tensor:
        """Where the target is."""
        raise NotImplementedError


class BringBall(Arm):
    """Observation (44): sines and cosines of the arm, its velocities, log(1 + touch), pose of the hand and the object,
    its velocity, pose of the target. Reward: object at the target.

    Some starts have the object in the hand or in the target; starts are drawn again until nothing touches, where an
    object keeps the velocity that a rejected draw gave it, as in dm_control.
    """

    file, axes, target_dim = "manipulator", "xzy", 4
    objects, receptacle = ("ball",), None
    episode_fields = ("body_pos", "body_quat")

    def edit(self, root: ElementTree.Element) -> None:
        (prop,) = self.objects
        needed = prop, f"target_{prop}", self.receptacle
        remove(root, "body", *(name for name in _PROPS if name not in needed))

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        (self._target,) = self.bodies(f"target_{self.objects[0]}")
        self._pairs = [self.sites(*pair) for pair in self._near()]

    def _near(self) -> list[tuple[str, str]]:
        """Pairs of sites whose distances the reward is about."""
        return [("ball", "target_ball")]

    def draw(self, scene: Any, random: Any) -> None:
        while self._try(scene, random):
            pass

    def _try(self, scene: Any, random: Any) -> bool:
        """Draw a start. Whether anything touches."""
        (prop,) = self.objects
        self.arm_at_random(scene, random)
        x, z = random.uniform(-0.4, 0.4), random.uniform(0.1, 0.4)
        tilt = np.pi / 3 if self.receptacle else np.pi
        angle = random.uniform(-tilt, tilt)
        for name in (self.receptacle, f"target_{prop}"):
            if name:
                body = scene.model.body(name)
                body.pos[::2], body.quat[::2] = (x, z), (np.cos(angle / 2), np.sin(angle / 2))
        place = random.choice(["hand", "target", "anywhere"], p=[_IN_HAND, _IN_TARGET, 1 - _IN_HAND - _IN_TARGET])
        if place == "hand":
            scene.touches()  # for the hand's place
            grasp = scene.data.site("grasp")
            x, _, z = grasp.xpos
            angle = np.pi - np.arctan2(grasp.xmat[6], grasp.xmat[0])
        elif place == "anywhere":
            x, z, angle = random.uniform(-0.5, 0.5), random.uniform(0, 0.7), random.uniform(0, 2 * np.pi)
            scene.qvel(f"{prop}_x")[:] = random.uniform(-5, 5)
        for axis, value in zip(self.axes, (x, z, angle)):
            scene.qpos(f"{prop}_{axis}")[:] = value
        return scene.touches()

    def target(self, state: State) -> Tensor:
        return self.pose(state, self._target)

    def _close(self, state: State) -> list[Tensor]:
        return [tolerance(self.distance(state, *pair), 0, CLOSE, 2 * CLOSE) for pair in self._pairs]

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        return self.never(self._close(state)[0])


class BringPeg(BringBall):
    """As BringBall, with a peg; a third of the reward for a good grip."""

    objects = ("peg",)

    def _near(self) -> list[tuple[str, str]]:
        return [("peg_grasp", "grasp"), ("peg_pinch", "pinch"), ("peg", "target_peg"), ("target_peg_tip", "peg_tip")]

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        grasp, pinch, bring, tip = self._close(state)
        return self.never(torch.maximum((bring + tip) / 2, (grasp + pinch) / 2 / 3))


class InsertBall(BringBall):
    """As BringBall, into a cup."""

    receptacle = "cup"


class InsertPeg(BringPeg):
    """As BringPeg, into a slot."""

    receptacle = "slot"


TASKS = {
    "manipulator-bring_ball": BringBall,
    "manipulator-bring_peg": BringPeg,
    "manipulator-insert_ball": InsertBall,
    "manipulator-insert_peg": InsertPeg,
}
