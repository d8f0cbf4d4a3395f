"""Robots from MJCF files: includes, default classes, several joints of one body, motors, positions and tendons."""

import math
import os
import xml.etree.ElementTree as ElementTree

from isaacgym import rotations
from isaacgym.assets import Asset, Joint, volume

DRIVE_POSITION = 1  # gymapi.DOF_MODE_POS


def read(path, options, root):
    return _Reader(path, options, root).asset.finish()


class _Reader:
    def __init__(self, path, options, root):
        self.asset, self.options = Asset(path, options), options
        _include(root, os.path.dirname(path))
        compiler = root.find("compiler")
        degrees = compiler is None or compiler.get("angle", "degree") == "degree"
        self.unit = math.pi / 180 if degrees else 1.0
        self.defaults = {"main": {}}
        for element in root.findall("default"):
            self._classes(element, {}, "main")
        for world in root.findall("worldbody"):
            for body in world.findall("body"):
                self._body(body, -1, "main")
        for element in root.findall("actuator"):
            for actuator in element:
                self._actuator(actuator)
        for element in root.findall("tendon"):
            self.asset.tendons.extend(tendon.get("name") for tendon in element.findall("fixed"))

    def _classes(self, element, inherited, name):
        own = {tag: dict(values) for tag, values in inherited.items()}
        for child in element:
            if child.tag != "default":
                own.setdefault(child.tag, {}).update(child.attrib)
        self.defaults[name] = own
        for child in element.findall("default"):
            self._classes(child, own, child.get("class"))

    def _values(self, element, childclass):
        """An element's attributes over those of its class."""
        known = self.defaults.get(element.get("class", childclass), self.defaults["main"])
        return {**known.get(element.tag, {}), **element.attrib}

    def _body(self, element, parent, childclass):
        childclass = element.get("childclass", childclass)
        body = self.asset.add_body(element.get("name"), parent, self._pose(element))
        for joint in element.findall("joint") if parent >= 0 else ():  # the root's hold it to the world: no dofs
            self._joint(body, self._values(joint, childclass))
        for geom in element.findall("geom"):
            self._geom(self.asset.bodies[body], self._values(geom, childclass))
        inertial = element.find("inertial")
        if inertial is not None:
            self.asset.bodies[body].mass = float(inertial.get("mass"))
        for child in element.findall("body"):
            self._body(child, body, childclass)

    def _pose(self, element):
        place = _numbers(element.get("pos", "0 0 0"))
        if element.get("quat"):
            w, x, y, z = _numbers(element.get("quat"))
            return place, rotations.normalized((x, y, z, w))
        return place, rotations.from_euler([v * self.unit for v in _numbers(element.get("euler", "0 0 0"))])

    def _joint(self, body, values):
        kind = values.get("type", "hinge")
        self.asset.bodies[body].link = self.asset.bodies[body].link or values.get("name")
        sliding = kind == "slide"
        low, high = (v * (1.0 if sliding else self.unit) for v in _numbers(values.get("range", "-inf inf")))
        axis = _numbers(values.get("axis", "0 0 1"))
        self.asset.add_joint(
            body,
            Joint(values.get("name"), axis, _numbers(values.get("pos", "0 0 0")), sliding),
            low,
            high,
            stiffness=float(values.get("stiffness", 0.0)),
            damping=float(values.get("damping", 0.0)),
            armature=float(values.get("armature", 0.0)),
        )

    def _geom(self, body, values):
        body.shapes += 1
        kind = values.get("type", "mesh" if "mesh" in values else "sphere")
        if values.get("contype") == "0" and values.get("conaffinity") == "0":
            return  # seen, not felt
        size = _numbers(values.get("size", ""))
        if "fromto" in values:
            ends = _numbers(values["fromto"])
            size = (size[0], math.dist(ends[:3], ends[3:]) / 2)
        body.mass += float(values.get("density", self.options.density)) * volume(kind, size)
        if self.asset.half is None and body is self.asset.bodies[0] and kind in ("box", "sphere"):
            self.asset.half = size if kind == "box" else size * 3

    def _actuator(self, element):
        values = self._values(element, "main")
        name = values.get("joint")
        self.asset.motors.append((name, float(values.get("gear", "1").split()[0])))
        if element.tag == "position" and name in self.asset.dof_names:
            dof = self.asset.dof_names.index(name)
            self.asset.props["driveMode"][dof] = DRIVE_POSITION
            self.asset.props["stiffness"][dof] = float(values.get("kp", 1.0))
            if "forcerange" in values:
                self.asset.props["effort"][dof] = _numbers(values["forcerange"])[1]


def _numbers(text):
    return tuple(float(v) for v in text.split())


def _include(element, folder):
    """Put included files' contents in their places."""
    for index, child in reversed(list(enumerate(element))):
        if child.tag == "include":
            found = ElementTree.parse(os.path.join(folder, child.get("file"))).getroot()
            _include(found, folder)
            element.remove(child)
            for offset, part in enumerate(found):
                element.insert(index + offset, part)
        else:
            _include(child, folder)
