"""Robots from URDF and MJCF files: names of bodies and joints, limits, efforts. No shapes, no masses."""

import math
import xml.etree.ElementTree as ElementTree

import numpy as np

DOF_TYPE = np.dtype(
    [
        ("hasLimits", "?"), ("lower", "f4"), ("upper", "f4"), ("driveMode", "i4"), ("velocity", "f4"),
        ("effort", "f4"), ("stiffness", "f4"), ("damping", "f4"), ("friction", "f4"), ("armature", "f4"),
    ]
)  # fmt: skip


class Asset:
    """What `load_asset` and `create_sphere` return.

    Attributes:
        bodies, dofs: names, depth first.
        props: one record of DOF_TYPE per dof.
        efforts: motor efforts in the file's order of actuators.
        sliding: per dof, whether it is prismatic.
    """

    def __init__(self, name, options):
        self.name, self.options = name, options
        self.bodies, self.dofs, self.sliding, self.efforts, self.sensors = [], [], [], [], []
        self.props = np.zeros(0, DOF_TYPE)
        self.radius = None

    def add_dof(self, name, lower, upper, sliding, **more):
        record = np.zeros(1, DOF_TYPE)
        record["hasLimits"], record["lower"], record["upper"] = math.isfinite(upper), lower, upper
        record["velocity"], record["effort"] = more.get("velocity", 1e6), more.get("effort", 1e6)
        record["stiffness"], record["damping"] = more.get("stiffness", 0.0), more.get("damping", 0.0)
        record["driveMode"] = self.options.default_dof_drive_mode
        self.dofs.append(name)
        self.sliding.append(sliding)
        self.props = np.concatenate((self.props, record))


def load(path, options):
    root = ElementTree.parse(path).getroot()
    asset = Asset(path, options)
    (_mjcf if root.tag == "mujoco" else _urdf)(asset, root)
    return asset


def _mjcf(asset, root):
    compiler = root.find("compiler")
    degrees = compiler is None or compiler.get("angle", "degree") == "degree"
    unit = math.pi / 180 if degrees else 1.0

    def visit(body):
        asset.bodies.append(body.get("name"))
        for joint in body.findall("joint"):
            kind = joint.get("type", "hinge")
            if kind == "free":
                continue
            low, high = (float(v) for v in joint.get("range", "-inf inf").split())
            scale = 1.0 if kind == "slide" else unit
            asset.add_dof(joint.get("name"), low * scale, high * scale, kind == "slide")
        for child in body.findall("body"):
            visit(child)

    for body in root.find("worldbody").findall("body"):
        visit(body)
    for motor in root.findall("actuator/motor"):
        asset.efforts.append(float(motor.get("gear", "1").split()[0]))


def _urdf(asset, root):
    children = {}
    for joint in root.findall("joint"):
        children.setdefault(joint.find("parent").get("link"), []).append(joint)
    linked = {joint.find("child").get("link") for joint in root.findall("joint")}
    base = next(link.get("name") for link in root.findall("link") if link.get("name") not in linked)
    collapse = asset.options.collapse_fixed_joints

    def visit(link, merged):
        if not merged:
            asset.bodies.append(link)
        for joint in sorted(children.get(link, []), key=lambda j: j.get("name")):
            kind, limit = joint.get("type"), joint.find("limit")
            if kind != "fixed":
                has = kind != "continuous"
                asset.add_dof(
                    joint.get("name"),
                    float(limit.get("lower", "-inf")) if has else -math.inf,
                    float(limit.get("upper", "inf")) if has else math.inf,
                    kind == "prismatic",
                    velocity=float(limit.get("velocity", 1e6)),
                    effort=float(limit.get("effort", 1e6)),
                )
            visit(joint.find("child").get("link"), merged=collapse and kind == "fixed")

    visit(base, merged=False)


def sphere(radius, options):
    asset = Asset("sphere", options)
    asset.bodies.append("sphere")
    asset.radius = radius
    return asset
