"""The simulator's data types and constants, and `acquire_gym`."""

from enum import IntEnum

from isaacgym import rotations

SIM_PHYSX, SIM_FLEX = 0, 1
UP_AXIS_Y, UP_AXIS_Z = 0, 1
DOF_MODE_NONE, DOF_MODE_POS, DOF_MODE_VEL, DOF_MODE_EFFORT = 0, 1, 2, 3
AXIS_TRANSLATION, AXIS_ROTATION, AXIS_ALL = 7, 56, 63
MESH_VISUAL, MESH_COLLISION, MESH_VISUAL_AND_COLLISION = 1, 2, 3
COMPUTE_PER_VERTEX, COMPUTE_PER_FACE = 0, 1
ENV_SPACE, LOCAL_SPACE, GLOBAL_SPACE = 0, 1, 2
KEY_ESCAPE, KEY_V, KEY_R = 256, 86, 82
STATE_NONE, STATE_POS, STATE_VEL, STATE_ALL = 0, 1, 2, 3
DOMAIN_SIM, DOMAIN_ENV, DOMAIN_ACTOR = 0, 1, 2
INVALID_HANDLE = -1


class ContactCollection(IntEnum):
    CC_NEVER = 0
    CC_LAST_SUBSTEP = 1
    CC_ALL_SUBSTEPS = 2


class Vec3:
    def __init__(self, x=0.0, y=0.0, z=0.0):
        self.x, self.y, self.z = float(x), float(y), float(z)

    def __iter__(self):
        return iter((self.x, self.y, self.z))

    def __add__(self, other):
        return Vec3(self.x + other.x, self.y + other.y, self.z + other.z)

    def __sub__(self, other):
        return Vec3(self.x - other.x, self.y - other.y, self.z - other.z)

    def __mul__(self, factor):
        return Vec3(self.x * factor, self.y * factor, self.z * factor)


class Quat:
    """x, y, z, w."""

    def __init__(self, x=0.0, y=0.0, z=0.0, w=1.0):
        self.x, self.y, self.z, self.w = float(x), float(y), float(z), float(w)

    def __iter__(self):
        return iter((self.x, self.y, self.z, self.w))

    def __mul__(self, other):
        return Quat(*rotations.multiply(tuple(self), tuple(other)))

    def inverse(self):
        return Quat(*rotations.conjugate(tuple(self)))

    def rotate(self, vector):
        return Vec3(*rotations.rotate(tuple(self), tuple(vector)))

    @staticmethod
    def from_axis_angle(axis, angle):
        return Quat(*rotations.from_axis_angle(tuple(axis), angle))

    @staticmethod
    def from_euler_zyx(roll, pitch, yaw):
        """First `roll` about x, then `pitch` about y, then `yaw` about z."""
        return Quat(*rotations.from_rpy(roll, pitch, yaw))


class Transform:
    def __init__(self, p=None, r=None):
        self.p, self.r = p or Vec3(), r or Quat()

    def __mul__(self, other):
        return Transform(self.transform_point(other.p), self.r * other.r)

    def transform_point(self, point):
        return self.r.rotate(point) + self.p

    def inverse(self):
        back = self.r.inverse()
        return Transform(back.rotate(self.p) * -1.0, back)


class _Fields:
    """An object whose fields are whatever is written to it."""

    def __init__(self, **fields):
        self.__dict__.update(fields)


class SimParams(_Fields):
    def __init__(self):
        super().__init__(
            dt=1 / 60, substeps=2, up_axis=UP_AXIS_Y, gravity=Vec3(0, -9.8, 0), use_gpu_pipeline=False, physx=_Fields(),
            flex=_Fields(), num_client_threads=0,
        )  # fmt: skip


class AssetOptions(_Fields):
    def __init__(self):
        super().__init__(
            fix_base_link=False, collapse_fixed_joints=False, default_dof_drive_mode=DOF_MODE_NONE, density=1000.0,
            disable_gravity=False, linear_damping=0.0, angular_damping=0.5, thickness=0.02, armature=0.0,
        )  # fmt: skip


class PlaneParams(_Fields):
    pass


class TriangleMeshParams(_Fields):
    def __init__(self):
        super().__init__(transform=Transform())


class VhacdParams(_Fields):
    pass


class CameraProperties(_Fields):
    pass


class AttractorProperties(_Fields):
    def __init__(self):
        super().__init__(
            stiffness=0.0, damping=0.0, axes=AXIS_ALL, rigid_handle=-1, target=Transform(), offset=Transform()
        )


class _Numbers(_Fields):
    """Fields that are numbers, as the original's are: an array of one value that is written to one becomes it."""

    def __setattr__(self, name, value):
        self.__dict__[name] = value.item() if hasattr(value, "item") else value


class RigidBodyProperties(_Numbers):
    def __init__(self, mass):
        super().__init__(mass=mass, invMass=1 / mass, com=Vec3(), flags=0)


class RigidShapeProperties(_Numbers):
    def __init__(self):
        super().__init__(
            friction=1.0, rolling_friction=0.0, torsion_friction=0.0, restitution=0.0, compliance=0.0, thickness=0.0,
            contact_offset=0.02, rest_offset=0.0, filter=0,
        )  # fmt: skip


class TendonProperties(_Fields):
    def __init__(self):
        super().__init__(stiffness=0.0, damping=0.0, limit_stiffness=0.0, lower_limit=-0.001, upper_limit=0.001)


def acquire_gym():
    from isaacgym.gym import Gym

    return Gym()
