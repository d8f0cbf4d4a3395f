"""Names that tasks import from here; the tests' tasks have their own versions of what they compute with."""

import numpy as np
import torch


def to_torch(x, dtype=torch.float, device="cuda:0", requires_grad=False):
    return torch.tensor(x, dtype=dtype, device=device, requires_grad=requires_grad)


def torch_rand_float(lower, upper, shape, device):
    return (upper - lower) * torch.rand(*shape, device=device) + lower


def tensor_clamp(t, low, high):
    return torch.max(torch.min(t, high), low)


def quat_conjugate(q):
    return torch.cat((-q[..., :3], q[..., 3:]), dim=-1)


def quat_mul(a, b):
    """Hamilton product of (..., 4) quaternions x, y, z, w."""
    u, s, v, t = a[..., :3], a[..., 3:], b[..., :3], b[..., 3:]
    vector = s * v + t * u + torch.cross(u, v, dim=-1)
    return torch.cat((vector, s * t - (u * v).sum(-1, keepdim=True)), dim=-1)


def get_axis_params(value, axis_idx, x_value=0.0, dtype=float, n_dims=3):
    found = np.zeros((n_dims,))
    found[axis_idx], found[0] = value, x_value if axis_idx else value
    return list(found.astype(dtype))
