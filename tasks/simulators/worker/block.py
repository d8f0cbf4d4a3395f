"""What a vector step takes and gives, in memory that parent and workers share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Block(NamedTuple):
    """One row per environment; see `tasks.base.Step`."""

    action: np.ndarray  # (N, action_dim) float32
    obs: np.ndarray  # (N, obs_dim) float32
    next_obs: np.ndarray  # (N, obs_dim) float32
    reward: np.ndarray  # (N,) float32
    terminated: np.ndarray  # (N,) bool
    truncated: np.ndarray  # (N,) bool
    valid: np.ndarray  # (N,) bool
    beats: np.ndarray  # (N,) int64: how often an environment has answered
    diverged: np.ndarray  # (N,) int64: how many of its episodes left the finite numbers
    metrics: np.ndarray  # (N, M) float32: what is told of the newest episode that ended, NaN where nothing is

    def rows(self, begin: int, end: int) -> Block:
        return Block(*(field[begin:end] for field in self))


def block(num_envs: int, obs_dim: int, action_dim: int, metrics: int = 0, path: Path | None = None) -> Block:
    """A block over the file `path`, which is made where it isn't there; without one, in this process's memory."""
    columns = [action_dim, obs_dim, obs_dim, None, None, None, None, None, None, metrics]
    types = ["f4", "f4", "f4", "f4", "?", "?", "?", "i8", "i8", "f4"]
    shapes = [(num_envs,) if count is None else (num_envs, count) for count in columns]
    sizes = [-(-math.prod(shape) * np.dtype(kind).itemsize // 64) * 64 for shape, kind in zip(shapes, types)]
    flat: Any = np.zeros(sum(sizes), np.uint8)
    if path is not None:
        flat = np.memmap(path, np.uint8, "r+" if path.exists() else "w+", shape=flat.shape)
    fields, at = [], 0
    for shape, kind, size in zip(shapes, types, sizes):
        view = flat[at : at + math.prod(shape) * np.dtype(kind).itemsize].view(kind).reshape(shape)
        fields.append(np.asarray(view))
        at += size
    return Block(*fields)
