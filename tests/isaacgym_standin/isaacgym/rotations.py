"""Quaternions x, y, z, w of numbers: for files that are read and poses that are given. Batches: `torch_utils`."""

import math


def multiply(a, b):
    """Hamilton product."""
    ax, ay, az, aw = a
    bx, by, bz, bw = b
    return (
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
        aw * bw - ax * bx - ay * by - az * bz,
    )


def conjugate(q):
    return (-q[0], -q[1], -q[2], q[3])


def rotate(q, v):
    return multiply(multiply(q, (*v, 0.0)), conjugate(q))[:3]


def from_axis_angle(axis, angle):
    length = math.sqrt(sum(x * x for x in axis)) or 1.0
    half = math.sin(angle / 2) / length
    return (axis[0] * half, axis[1] * half, axis[2] * half, math.cos(angle / 2))


def from_rpy(roll, pitch, yaw):
    """First `roll` about x, then `pitch` about y, then `yaw` about z, the axes standing still (URDF's)."""
    turns = [from_axis_angle(axis, angle) for axis, angle in zip(((0, 0, 1), (0, 1, 0), (1, 0, 0)), (yaw, pitch, roll))]
    return multiply(multiply(turns[0], turns[1]), turns[2])


def from_euler(angles):
    """About x, then y, then z, the axes turning with the body (MJCF's default)."""
    x, y, z = (from_axis_angle(axis, angle) for axis, angle in zip(((1, 0, 0), (0, 1, 0), (0, 0, 1)), angles))
    return multiply(multiply(x, y), z)


def normalized(q):
    length = math.sqrt(sum(x * x for x in q)) or 1.0
    return tuple(x / length for x in q)


def compose(pose, local):
    """A pose (position, quaternion) given in the frame of another."""
    moved = rotate(pose[1], local[0])
    return tuple(a + b for a, b in zip(pose[0], moved)), multiply(pose[1], local[1])
