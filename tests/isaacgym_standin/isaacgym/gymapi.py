"""The simulator's data types, and `acquire_gym`."""

import math
from enum import IntEnum

SIM_PHYSX, SIM_FLEX = 0, 1
UP_AXIS_Y, UP_AXIS_Z = 0, 1
DOF_MODE_NONE, DOF_MODE_POS, DOF_MODE_VEL, DOF_MODE_EFFORT = 0, 1, 2, 3
AXIS_TRANSLATION, AXIS_ROTATION, AXIS_ALL = 7, 56, 63
MESH_VISUAL, MESH_COLLISION, MESH_VISUAL_AND_COLLISION = 1, 2, 3
ENV_SPACE, LOCAL_SPACE, GLOBAL_SPACE = 0, 1, 2
KEY_ESCAPE, KEY_V, KEY_R = 256, 86, 82
STATE_NONE, STATE_POS, STATE_VEL, STATE_ALL = 0, 1, 2, 3
DOMAIN_SIM, DOMAIN_ENV, DOMAIN_ACTOR = 0, 1, 2


class ContactCollection(IntEnum):
    CC_NEVER = 0
    CC_LAST_SUBSTEP = 1
    CC_ALL_SUBSTEPS = 2


class Vec3:
    def __init__(self, x=0.0, y=0.0, z=0.0):
        self.x, self.y, self.z = float(x), float(y), float(z)

    def __add__(self, other):
        return Vec3(self.x + other.x, self.y + other.y, self.z + other.z)

    def __mul__(self, factor):
        return Vec3(self.x * factor, self.y * factor, self.z * factor)


class Quat:
    """x, y, z, w."""

    def __init__(self, x=0.0, y=0.0, z=0.0, w=1.0):
        self.x, self.y, self.z, self.w = float(x), float(y), float(z), float(w)

    @staticmethod
    def from_euler_zyx(roll, pitch, yaw):
        """First `roll` about x, then `pitch` about y, then `yaw` about z."""
        cr, sr = math.cos(roll / 2), math.sin(roll / 2)
        cp, sp = math.cos(pitch / 2), math.sin(pitch / 2)
        cy, sy = math.cos(yaw / 2), math.sin(yaw / 2)
        return Quat(
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
            cr * cp * cy + sr * sp * sy,
        )


class Transform:
    def __init__(self, p=None, r=None):
        self.p, self.r = p or Vec3(), r or Quat()


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
            fix_base_link=False, collapse_fixed_joints=False, default_dof_drive_mode=DOF_MODE_NONE, density=1000.0
        )


class PlaneParams(_Fields):
    pass


class CameraProperties(_Fields):
    pass


class AttractorProperties(_Fields):
    def __init__(self):
        super().__init__(
            stiffness=0.0, damping=0.0, axes=AXIS_ALL, rigid_handle=-1, target=Transform(), offset=Transform()
        )


def acquire_gym():
    from isaacgym.simulator import Gym

    return Gym()
