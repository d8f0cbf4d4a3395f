"""dmc/quadruped: walk, run, and fetch a ball, on four legs. No `escape`: simulations share a terrain."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from torch import Tensor

from tasks.suite.dmc.base import Suite, remove, sensed, unit, within
from tasks.suite.dmc.rewards import INF, tolerance
from tasks.task import State

_WALLS = ("wall_px", "wall_py", "wall_nx", "wall_ny")


class Walk(Suite):
    """Observation (78): hinges' angles and velocities, activations, torso velocity, uprightness, gyro and
    accelerometer, arsinh of the toes' forces and torques. Reward: uprightness times speed ahead, .5 at rest.

    A start is lifted, from the ground and however turned, by 1 cm until nothing touches.
    """

    file, substeps, obs_dim = "quadruped", 4, 78
    reads = ("act", "xmat")
    speed, floor = 0.5, "10.0"

    def edit(self, root: ElementTree.Element) -> None:
        root.find(".//geom[@name='floor']").set("size", f"{self.floor} {self.floor} .5")
        remove(root, "geom", *_WALLS)
        remove(root, "body", "ball")
        remove(root, "site", "target")
        self._flatten(root)

    @staticmethod
    def _flatten(root: ElementTree.Element) -> None:
        """Take out what only `escape` has."""
        remove(root, "geom", "terrain")
        remove(root, "rangefinder")

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        hinges = model.jnt_type == 3  # mujoco.mjtJoint.mjJNT_HINGE
        self._angles, self._speeds = self.columns(model.jnt_qposadr[hinges]), self.columns(model.jnt_dofadr[hinges])
        (self._torso,), self._velocity = self.bodies("torso"), self.sensors("velocimeter")
        self._imu, self._toes = self.sensors_of("GYRO", "ACCELEROMETER"), self.sensors_of("FORCE", "TORQUE")

    def draw(self, scene: Any, random: Any) -> None:
        self._lift(scene, unit(random, 4))

    def _lift(self, scene: Any, orientation: np.ndarray, x: float = 0.0, y: float = 0.0) -> None:
        root, height, touches = scene.qpos("root"), 0.0, True
        root[3:] = orientation
        while touches:
            root[:3] = x, y, height
            touches = scene.touches()
            height += 0.01

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        angles, speeds = state.qpos.index_select(1, self._angles), state.qvel.index_select(1, self._speeds)
        upright, felt = state.fields["xmat"][:, self._torso, 8:], sensed(state, self._toes).asinh()
        ego = angles, speeds, state.fields["act"], sensed(state, self._velocity)
        return torch.cat((*ego, upright, sensed(state, self._imu), felt, *self._more(state)), dim=1)

    def _more(self, state: State) -> tuple[Tensor, ...]:
        return ()

    def _upright(self, state: State) -> Tensor:
        return tolerance(state.fields["xmat"][:, self._torso, 8], 1, INF, 2, "linear", 0)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        moving = tolerance(sensed(state, self._velocity)[:, 0], self.speed, INF, self.speed, "linear", 0.5)
        return self.never(self._upright(state) * moving)


class Run(Walk):
    """As Walk, at 5 m/s."""

    speed, floor = 5.0, "100"


class Fetch(Walk):
    """Observation (90): as Walk's, the ball's place, velocity and turn and the target's place in torso axes.

    Reward: uprightness, ball at the workspace in front of the torso and then in the target. The ball is thrown in.
    """

    obs_dim = 90
    reads = ("act", "xmat", "xpos", "site_xpos")

    def edit(self, root: ElementTree.Element) -> None:
        self._flatten(root)

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        (self._ball,), (self._workspace, self._target) = self.bodies("ball"), self.sites("workspace", "target")
        self._root, self._flight = model.joint("root").dofadr[0], model.joint("ball_root").dofadr[0]
        self._arena = float(model.geom("floor").size[0] * np.sqrt(2))
        self._near = float(model.site("workspace").size[0] + model.geom("ball").size[0])
        self._radius = float(model.site("target").size[0])

    def draw(self, scene: Any, random: Any) -> None:
        azimuth = random.uniform(0, 2 * np.pi)
        reach = 0.9 * scene.model.geom("floor").size[0]
        x, y = random.uniform(-reach, reach, size=2)
        self._lift(scene, np.array((np.cos(azimuth / 2), 0, 0, np.sin(azimuth / 2))), x, y)
        ball = scene.qpos("ball_root")
        ball[:2], ball[2] = random.uniform(-reach, reach, size=2), 2
        scene.qvel("ball_root")[:2] = 5 * random.randn(2)

    def _more(self, state: State) -> tuple[Tensor, ...]:
        frame, torso = state.fields["xmat"][:, self._torso], state.fields["xpos"][:, self._torso]
        place = state.fields["xpos"][:, self._ball] - torso
        flight, turn = state.qvel[:, self._flight : self._flight + 3], state.qvel[:, self._flight + 3 :]
        velocity = flight - state.qvel[:, self._root : self._root + 3]
        target = state.fields["site_xpos"][:, self._target] - torso
        return tuple(within(vector, frame) for vector in (place, velocity, turn[:, :3], target))

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        ball, sites = state.fields["xpos"][:, self._ball, :2], state.fields["site_xpos"][:, :, :2]
        apart = (sites[:, self._workspace] - ball).norm(dim=1)
        to_go = (sites[:, self._target] - ball).norm(dim=1)
        reach = tolerance(apart, 0, self._near, self._arena, "linear", 0)
        fetch = tolerance(to_go, 0, self._radius, self._arena, "linear", 0)
        return self.never(self._upright(state) * (reach * (0.5 + 0.5 * fetch)))


TASKS = {"quadruped-walk": Walk, "quadruped-run": Run, "quadruped-fetch": Fetch}
