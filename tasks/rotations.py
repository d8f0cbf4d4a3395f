"""Quaternions (w, x, y, z) and free joints: the one place where conventions meet."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Rotation(NamedTuple):
    """Entries of N rotation matrices, body to world; `xz` is the x component of the body's z axis. Each (N,)."""

    xx: Tensor
    xy: Tensor
    xz: Tensor
    yx: Tensor
    yy: Tensor
    yz: Tensor
    zx: Tensor
    zy: Tensor
    zz: Tensor


def matrix(quat: Tensor) -> Rotation:
    """Rotation matrices of unit quaternions (N, 4) in order w, x, y, z."""
    w, x, y, z = quat.t().contiguous().unbind(0)  # dense columns: some thirty operations follow
    # Doubled once, so that each entry costs two products.
    x2, y2, z2 = x + x, y + y, z + z
    xx, yy, zz = x * x2, y * y2, z * z2
    xy, xz, yz = x * y2, x * z2, y * z2
    wx, wy, wz = w * x2, w * y2, w * z2
    return Rotation(
        1 - yy - zz, xy - wz, xz + wy,
        xy + wz, 1 - xx - zz, yz - wx,
        xz - wy, yz + wx, 1 - xx - yy,
    )  # fmt: skip


def to_body(rot: Rotation, vector: Tensor) -> Tensor:
    """World vectors (N, 3) in body axes, (N, 3)."""
    x, y, z = vector.t().contiguous().unbind(0)
    return torch.stack(
        (
            rot.xx * x + rot.yx * y + rot.zx * z,
            rot.xy * x + rot.yy * y + rot.zy * z,
            rot.xz * x + rot.yz * y + rot.zz * z,
        ),
        dim=1,
    )


def to_world(rot: Rotation, vector: Tensor) -> Tensor:
    """Vectors (N, 3) in body axes as they are in the world's, (N, 3)."""
    x, y, z = vector.t().contiguous().unbind(0)
    return torch.stack(
        (
            rot.xx * x + rot.xy * y + rot.xz * z,
            rot.yx * x + rot.yy * y + rot.yz * z,
            rot.zx * x + rot.zy * y + rot.zz * z,
        ),
        dim=1,
    )


def yaw_roll(rot: Rotation) -> tuple[Tensor, Tensor]:
    """Yaw about world z and roll about the body's x axis (z-y-x Euler angles), in [-pi, pi], each (N,)."""
    return torch.atan2(rot.yx, rot.xx), torch.atan2(rot.zy, rot.zz)


def wrap(angle: Tensor) -> Tensor:
    """The same angle in [-pi, pi)."""
    return torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
