"""dmc/dog: stand, walk, trot, run and fetch a ball, with 38 muscles."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from tasks.suite.dmc.base import Suite, remove, sensed, within
from tasks.suite.dmc.rewards import INF, tolerance
from tasks.task import State

_UPRIGHT = math.cos(math.radians(30))


class Stand(Suite):
    """Observation (223): hinges' angles and velocities, height of torso and pelvis, the vertical in the axes of skull,
    torso and pelvis, velocity of the torso's centre of mass in its axes, accelerometer, velocimeter, gyro, forces on
    the feet, touch, activations. Reward: the product of height, uprightness of these three, and weight on the feet.

    Starts have any heading, a velocity and a turn in the plane, and activations at random.
    """

    file, substeps, obs_dim = "dog", 3, 223
    reads = ("act", "xpos", "xmat")
    floor, speed = "15", 0.0

    def edit(self, root: ElementTree.Element) -> None:
        root.find(".//geom[@name='floor']").set("size", f"{self.floor} {self.floor} .1")
        remove(root, "body", "ball")
        remove(root, "camera", "ball", "head")
        remove(root, "geom", "target", *(f"wall_{side}" for side in ("px", "nx", "py", "ny")))

    def assets(self) -> dict[str, bytes]:
        own = {path.name: path.read_bytes() for path in self._folder("dog_assets").iterdir() if path.is_file()}
        return {**super().assets(), **own}

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        hinges = model.jnt_type == 3  # mujoco.mjtJoint.mjJNT_HINGE
        self._angles, self._speeds = self.columns(model.jnt_qposadr[hinges]), self.columns(model.jnt_dofadr[hinges])
        self._torso, self._pelvis = self.bodies("torso", "pelvis")
        self._parts = self.columns(self.bodies("skull", "torso", "pelvis"))
        self._velocity = self.sensors("torso_linvel")
        self._inertial = self.sensors("accelerometer", "velocimeter", "gyro")
        self._feet = self.sensors("foot_L", "foot_R", "hand_L", "hand_R")
        self._touch = self.sensors("palm_L", "palm_R", "sole_L", "sole_R")
        pose = self.default_pose()
        self._heights = [0.9 * float(pose.xpos[body, 2]) for body in (self._torso, self._pelvis)]
        self._weight = float(-model.opt.gravity[2] * model.body("torso").subtreemass[0])

    def draw(self, scene: Any, random: Any) -> None:
        azimuth = random.uniform(0, 2 * np.pi)
        scene.qpos("root")[3:] = np.cos(azimuth / 2), 0, 0, np.sin(azimuth / 2)
        for dof in (0, 1, 5):
            scene.data.qvel[dof] = 2 * random.randn()
        for actuator, bounds in enumerate(scene.model.actuator_ctrlrange):
            scene.data.act[actuator] = random.uniform(*bounds)

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        xpos, frames = state.fields["xpos"], state.fields["xmat"]
        return torch.cat(
            (
                state.qpos.index_select(1, self._angles),
                state.qvel.index_select(1, self._speeds),
                xpos[:, self._torso, 2:],
                xpos[:, self._pelvis, 2:],
                frames.index_select(1, self._parts)[:, :, 6:9].flatten(1),
                self._ahead(state),
                sensed(state, self._inertial),
                sensed(state, self._feet),
                sensed(state, self._touch),
                state.fields["act"],
                *self._more(state),
            ),
            dim=1,
        )

    def _ahead(self, state: State) -> Tensor:
        """Velocity of the torso's centre of mass in its axes, (N, 3)."""
        return within(sensed(state, self._velocity), state.fields["xmat"][:, self._torso])

    def _more(self, state: State) -> tuple[Tensor, ...]:
        return ()

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        xpos = state.fields["xpos"]
        torso, pelvis = (
            tolerance(xpos[:, body, 2], height, INF, height)
            for body, height in zip((self._torso, self._pelvis), self._heights)
        )
        vertical = state.fields["xmat"].index_select(1, self._parts)[:, :, 8]
        upright = tolerance(vertical, _UPRIGHT, INF, _UPRIGHT + 1, "linear", 0)
        touch = sensed(state, self._touch).sum(1)
        carried = tolerance(touch, self._weight, INF, self._weight, "linear", 0.9)
        return self.never(torso * pelvis * upright.prod(1) * carried * self._also(state))

    def _also(self, state: State) -> Tensor | float:
        return 1.0


class Walk(Stand):
    """As Stand, times (4 m + 1) / 5 with m = 1 from 1 to 2 m/s ahead."""

    speed = 1.0

    def _also(self, state: State) -> Tensor:
        margin = max(1.0, self.speed)
        return (4 * tolerance(self._ahead(state)[:, 0], self.speed, 2 * self.speed, margin, "linear", 0) + 1) / 5


class Trot(Walk):
    """As Walk, at 3 to 6 m/s."""

    floor, speed = "45", 3.0


class Run(Walk):
    """As Walk, at 9 to 18 m/s."""

    floor, speed = "135", 9.0


class Fetch(Stand):
    """Observation (232): as Stand's, place and velocity of the ball and place of the target, in the head's axes.

    Reward: as Stand's, times the mouth at the ball, times the ball in the target. The ball is thrown in.
    """

    obs_dim, floor = 232, "10"
    reads = ("act", "xpos", "xmat", "geom_xpos", "site_xpos", "site_xmat", "cvel", "subtree_com")

    def edit(self, root: ElementTree.Element) -> None:
        root.find(".//geom[@name='floor']").set("size", f"{self.floor} {self.floor} .1")

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        self._ball, self._target = self.geoms("ball", "target")
        self._head, self._upper, self._lower = self.sites("head", "upper_bite", "lower_bite")
        self._carrier, self._flier = int(model.site_bodyid[self._head]), int(model.geom_bodyid[self._ball])
        self._root = model.body_rootid
        self._bite, self._radius = float(model.site("upper_bite").size[0]), float(model.geom("target").size[0])
        self._arena = float(model.geom("floor").size[0])

    def draw(self, scene: Any, random: Any) -> None:
        super().draw(scene, random)
        radius, azimuth = 0.75 * scene.model.geom("floor").size[0], random.uniform(0, 2 * np.pi)
        scene.qpos("ball_root")[:3] = radius * np.sin(azimuth), radius * np.cos(azimuth), 0.05
        upwards = np.sqrt(2 * -scene.model.opt.gravity[2] * random.uniform(0, 3))
        speed = random.uniform(0, 5)
        x, y = -np.sin(azimuth) + 0.05 * random.randn(), -np.cos(azimuth) + 0.05 * random.randn()
        scene.qvel("ball_root")[:3] = speed * x, speed * y, upwards

    def _velocity_of(self, state: State, body: int, place: Tensor) -> Tensor:
        """Velocity of a point `place` (N, 3) of a body: `cvel` is that of its tree's centre of mass."""
        turn, velocity = state.fields["cvel"][:, body].split(3, dim=1)
        return velocity + torch.linalg.cross(turn, place - state.fields["subtree_com"][:, int(self._root[body])])

    def _more(self, state: State) -> tuple[Tensor, ...]:
        geoms, head = state.fields["geom_xpos"], state.fields["site_xpos"][:, self._head]
        ball, target = geoms[:, self._ball], geoms[:, self._target]
        flight = self._velocity_of(state, self._flier, ball) - self._velocity_of(state, self._carrier, head)
        frame = state.fields["site_xmat"][:, self._head]
        return within(ball - head, frame), within(flight, frame), within(target - head, frame)

    def _also(self, state: State) -> Tensor:
        sites, geoms = state.fields["site_xpos"], state.fields["geom_xpos"]
        ball = geoms[:, self._ball]
        upper, lower = ((ball - sites[:, bite]).norm(dim=1) for bite in (self._upper, self._lower))
        to_go = (ball - geoms[:, self._target]).norm(dim=1)
        reach = (6 * tolerance(0.5 * (upper + lower), 0, self._bite, 2, "reciprocal") + 1) / 7
        reach = torch.where(to_go < 2 * self._radius, 1.0, reach)  # it may let go of a ball that it has brought
        return reach * (tolerance(to_go, 0, self._radius, self._arena, "reciprocal") + 1) / 2


TASKS = {"dog-stand": Stand, "dog-walk": Walk, "dog-trot": Trot, "dog-run": Run, "dog-fetch": Fetch}
