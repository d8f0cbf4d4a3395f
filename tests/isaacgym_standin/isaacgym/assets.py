"""What robots and objects are made of: a tree of bodies, their joints, and one record of properties per joint.

No meshes: a body of a mesh has the mass that its file says, or a nominal one. `urdf.py` and `mjcf.py` read files.
"""

import copy
import math

import numpy as np

DOF_TYPE = np.dtype(
    [
        ("hasLimits", "?"), ("lower", "f4"), ("upper", "f4"), ("driveMode", "i4"), ("velocity", "f4"),
        ("effort", "f4"), ("stiffness", "f4"), ("damping", "f4"), ("friction", "f4"), ("armature", "f4"),
    ]
)  # fmt: skip
NOMINAL_MASS = 0.1  # kg, of a body whose file gives neither mass nor a shape with a volume


class Joint:
    """A degree of freedom: it moves `body` and all that hangs on it. `axis` and `anchor` are in the body's frame."""

    def __init__(self, name, axis, anchor=(0.0, 0.0, 0.0), sliding=False):
        self.name, self.axis, self.anchor, self.sliding = name, axis, anchor, sliding


class Body:
    """`pose` (position, quaternion) is in the parent's frame with all joints at 0; `joints` are indices of dofs."""

    def __init__(self, name, parent=-1, pose=((0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)), link=None):
        self.name, self.parent, self.pose = name, parent, pose
        self.link = link  # the name of the joint that holds it, a fixed one too
        self.joints, self.mass, self.shapes = [], 0.0, 0


class Asset:
    """What `load_asset`, `create_box` and `create_sphere` return.

    Attributes:
        bodies, joints: depth first.
        props: one record of DOF_TYPE per joint.
        motors: (joint's name, effort) in the file's order of actuators.
        half: half the extent of its first body's first box or sphere, (x, y, z), or None.
        sensors: bodies with a force sensor.
    """

    def __init__(self, name, options):
        self.name, self.options = name, copy.copy(options)  # tasks go on changing theirs for the next asset
        self.bodies, self.joints, self.motors, self.tendons, self.sensors = [], [], [], [], []
        self.props = np.zeros(0, DOF_TYPE)
        self.half, self.radius = None, None

    @property
    def body_names(self):
        return [body.name for body in self.bodies]

    @property
    def dof_names(self):
        return [joint.name for joint in self.joints]

    @property
    def fixed(self):
        return bool(self.options.fix_base_link)

    @property
    def layout(self):
        """What must agree between the environments' actors of one place, since tensors are rectangular."""
        return len(self.bodies), len(self.joints), len(self.sensors)

    def add_body(self, *args, **kwargs):
        self.bodies.append(Body(*args, **kwargs))
        return len(self.bodies) - 1

    def add_joint(self, body, joint, lower, upper, **more):
        record = np.zeros(1, DOF_TYPE)
        record["hasLimits"], record["lower"], record["upper"] = math.isfinite(upper), lower, upper
        record["velocity"], record["effort"] = more.get("velocity", 1e6), more.get("effort", 1e6)
        record["stiffness"], record["damping"] = more.get("stiffness", 0.0), more.get("damping", 0.0)
        record["armature"] = more.get("armature", 0.0)
        record["driveMode"] = more.get("mode", self.options.default_dof_drive_mode)
        self.bodies[body].joints.append(len(self.joints))
        self.joints.append(joint)
        self.props = np.concatenate((self.props, record))

    def finish(self):
        """Nominal masses where nothing is known. Returns itself."""
        for body in self.bodies:
            body.mass = body.mass or NOMINAL_MASS
        return self


def volume(kind, size):
    """Of a box (half sizes), sphere (radius), cylinder or capsule (radius, half length), in m^3; 0 for others."""
    if kind == "box":
        return 8 * size[0] * size[1] * size[2]
    if kind == "sphere":
        return 4 / 3 * math.pi * size[0] ** 3
    if kind == "cylinder":
        return math.pi * size[0] ** 2 * 2 * size[1]
    if kind == "capsule":
        return math.pi * size[0] ** 2 * (2 * size[1] + 4 / 3 * size[0])
    return 0.0


def primitive(kind, size, options):
    """An object of one body: a box (half sizes) or a sphere (radius)."""
    asset = Asset(kind, options)
    asset.add_body(kind)
    asset.bodies[0].mass, asset.bodies[0].shapes = options.density * volume(kind, size), 1
    asset.half = tuple(size) if kind == "box" else (size[0],) * 3
    asset.radius = size[0] if kind == "sphere" else None
    return asset.finish()
