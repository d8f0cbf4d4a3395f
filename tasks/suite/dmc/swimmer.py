"""dmc/swimmer: bring the nose of a chain of links in a viscous plane to a target."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import torch
from torch import Tensor

from tasks.suite.dmc.base import Suite, joints_at_random, sensed, within
from tasks.suite.dmc.rewards import tolerance
from tasks.task import State


class Swimmer6(Suite):
    """Observation (25): joint angles, target in the head's axes, each link's velocity and turn.

    Reward: nose at the target. One target in five is near. The light that follows the target in dm_control's pictures
    stays where it is.
    """

    file, substeps, obs_dim = "swimmer", 15, 25
    reads = ("geom_xpos", "xmat")
    episode_fields = ("geom_pos",)
    links = 6

    def edit(self, root: ElementTree.Element) -> None:
        parent = root.find("./worldbody/body")
        actuator, sensor = ElementTree.SubElement(root, "actuator"), ElementTree.SubElement(root, "sensor")
        limit = 360.0 / self.links
        for number in range(self.links - 1):
            body = ElementTree.SubElement(parent, "body", name=f"segment_{number}", pos="0 .1 0")
            for kind in ("visual", "inertial"):
                ElementTree.SubElement(body, "geom", {"class": kind, "name": f"{kind}_{number}"})
            ElementTree.SubElement(body, "site", name=f"site_{number}")
            ElementTree.SubElement(body, "joint", name=f"joint_{number}", range=f"{-limit} {limit}")
            ElementTree.SubElement(actuator, "motor", name=f"motor_{number}", joint=f"joint_{number}")
            for kind in ("velocimeter", "gyro"):
                ElementTree.SubElement(sensor, kind, name=f"{kind}_{number}", site=f"site_{number}")
            parent = body
        for camera in root.findall("./worldbody/body/camera"):
            if camera.get("mode") == "trackcom":
                place = (float(part) * (self.links / 6.0) for part in camera.get("pos").split())
                camera.set("pos", " ".join(map(str, place)))

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        (self._nose, self._target), (self._head,) = self.geoms("nose", "target"), self.bodies("head")
        # Of six numbers a link: velocity in the plane, turn about its normal. The first 12 are others.
        starts = range(12, model.nsensordata, 6)
        self._velocities = self.columns(start + part for start in starts for part in (0, 1, 5))
        self._radius = float(model.geom("target").size[0])

    def draw(self, scene: Any, random: Any) -> None:
        joints_at_random(scene, random)
        reach = 0.3 if random.rand() < 0.2 else 2
        scene.model.geom("target").pos[:2] = random.uniform(-reach, reach, size=2)

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        return torch.cat((state.qpos[:, 3:], self._to_target(state), sensed(state, self._velocities)), dim=1)

    def _to_target(self, state: State) -> Tensor:
        places = state.fields["geom_xpos"]
        way = places[:, self._target] - places[:, self._nose]
        return within(way, state.fields["xmat"][:, self._head])[:, :2]

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        away = self._to_target(state).norm(dim=1)
        return self.never(tolerance(away, 0, self._radius, 5 * self._radius, "long_tail"))


class Swimmer15(Swimmer6):
    """Observation (61): as Swimmer6, with 15 links."""

    obs_dim, links = 61, 15


TASKS = {"swimmer-swimmer6": Swimmer6, "swimmer-swimmer15": Swimmer15}
