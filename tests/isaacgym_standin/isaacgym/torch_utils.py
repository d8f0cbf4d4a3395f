"""Batches of quaternions (..., 4) x, y, z, w and other names that tasks import from here."""

import numpy as np
import torch


def to_torch(x, dtype=torch.float, device="cuda:0", requires_grad=False):
    return torch.tensor(x, dtype=dtype, device=device, requires_grad=requires_grad)


def torch_rand_float(lower, upper, shape, device):
    return (upper - lower) * torch.rand(*shape, device=device) + lower


def tensor_clamp(t, low, high):
    return torch.max(torch.min(t, high), low)


def normalize(x, eps=1e-9):
    return x / x.norm(dim=-1, keepdim=True).clamp(min=eps)


def quat_conjugate(q):
    return torch.cat((-q[..., :3], q[..., 3:]), dim=-1)


def quat_mul(a, b):
    """Hamilton product."""
    u, s, v, t = a[..., :3], a[..., 3:], b[..., :3], b[..., 3:]
    vector = s * v + t * u + torch.cross(u, v, dim=-1)
    return torch.cat((vector, s * t - (u * v).sum(-1, keepdim=True)), dim=-1)


def quat_apply(q, v):
    """Vectors (..., 3) turned by quaternions."""
    half = torch.cross(q[..., :3], v, dim=-1) + q[..., 3:] * v
    return v + 2.0 * torch.cross(q[..., :3], half, dim=-1)


def quat_rotate(q, v):
    return quat_apply(q, v)


def quat_rotate_inverse(q, v):
    return quat_apply(quat_conjugate(q), v)


def quat_from_angle_axis(angle, axis):
    half = (angle / 2).unsqueeze(-1)
    return normalize(torch.cat((normalize(axis) * half.sin(), half.cos()), dim=-1))


def quat_from_euler_xyz(roll, pitch, yaw):
    """First `roll` about x, then `pitch` about y, then `yaw` about z, the axes standing still."""
    x, y, z = torch.eye(3, device=roll.device)
    turns = [quat_from_angle_axis(a, e.expand(*a.shape, 3)) for a, e in ((roll, x), (pitch, y), (yaw, z))]
    return quat_mul(turns[2], quat_mul(turns[1], turns[0]))


def tf_inverse(q, t):
    back = quat_conjugate(q)
    return back, -quat_apply(back, t)


def tf_combine(q1, t1, q2, t2):
    return quat_mul(q1, q2), quat_apply(q1, t2) + t1


def get_axis_params(value, axis_idx, x_value=0.0, dtype=float, n_dims=3):
    found = np.zeros((n_dims,))
    found[axis_idx], found[0] = value, x_value if axis_idx else value
    return list(found.astype(dtype))
