"""What tasks with a Panda share: where its hand is and how its joints move it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tasks.suite.models import franka
from tasks.task import State, Task


class Hand(NamedTuple):
    """The point between the fingertips, of N robots."""

    position: Tensor  # (N, 3), world
    axes: Tensor  # (N, 3, 3): the hand's x, y, z axes are its columns
    jacobian: Tensor  # (N, 6, 7): velocity, then angular velocity (world axes) for each joint's velocity
    velocity: Tensor  # (N, 6)


class Franka(Task):
    """A robot whose first seven joints are the arm's and whose site "tip" is the hand's point."""

    reads = ("xanchor", "xaxis", "site_xpos", "site_xmat")
    stage = "position"

    def setup(self, model: Any, device: torch.device) -> None:
        self._tip = model.site("tip").id
        self._torques = torch.tensor(franka.TORQUES, device=device)

    def hand(self, state: State) -> Hand:
        fields = state.fields
        position = fields["site_xpos"][:, self._tip]
        axes = fields["site_xmat"].reshape(len(position), -1, 3, 3)[:, self._tip]
        axis, anchor = fields["xaxis"][:, :7], fields["xanchor"][:, :7]
        linear = torch.linalg.cross(axis, position[:, None] - anchor)
        jacobian = torch.cat((linear, axis), dim=2).transpose(1, 2)
        return Hand(position, axes, jacobian, torch.einsum("nij,nj->ni", jacobian, state.qvel[:, :7]))

    def clamped(self, torque: Tensor) -> Tensor:
        """Torques (N, 7) within the motors' limits."""
        return torch.maximum(torch.minimum(torque, self._torques), -self._torques)


def inertia(cdof: Tensor, crb: Tensor) -> Tensor:
    """The joint-space inertia (N, n, n) of a chain of n hinges without branches (Featherstone's composite bodies).

    Args:
        cdof: MuJoCo's motion axes (N, n, 6), rotation then translation, about the tree's centre of mass.
        crb: the inertia of all that each hinge moves, about the same point (N, n, 10): xx yy zz xy xz yz, mass x
            position, mass.
    """
    turn, shift = cdof.split(3, dim=2)
    moment, mass = crb[:, :, 6:9], crb[:, :, 9:]
    xx, yy, zz, xy, xz, yz = crb[:, :, :6].unbind(2)
    rows = torch.stack((xx, xy, xz, xy, yy, yz, xz, yz, zz), dim=2).unflatten(2, (3, 3))
    angular = (rows * turn[:, :, None]).sum(3) + torch.linalg.cross(moment, shift)
    momentum = torch.cat((angular, mass * shift - torch.linalg.cross(moment, turn)), dim=2)
    upper = torch.triu(cdof @ momentum.transpose(1, 2))  # entry i, j: what hinge j moves, seen by i before it
    return upper + torch.triu(upper, 1).transpose(1, 2)


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """`matrix` (N, n, n), symmetric and positive definite, \\ `right` (N, n, m), by elimination without pivots.

    Elementary operations alone: torch.linalg's would wait for a GPU, or could not be part of a graph.
    """
    unit = torch.eye(matrix.shape[1], device=matrix.device)
    both = torch.cat((matrix, right), dim=2)  # its first column is the next to be eliminated
    for j in range(len(unit)):
        row = both[:, j : j + 1] / both[:, j : j + 1, :1]
        both = (both - (both[:, :, :1] - unit[:, j : j + 1]) * row)[:, :, 1:]
    return both
