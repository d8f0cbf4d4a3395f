"""ShadowHand: turn a cube in the hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tasks.suite.in_hand import InHand
from tasks.suite.models import shadow_hand
from tasks.task import State


class ShadowHand(InHand):
    """A hand of 24 joints and 20 drives turns a cube of 5 cm, 60 times a second. After IsaacGymEnvs' (v1.5.1).

    Formulas: `InHand`. `observations`: "full_state" (211), "full" (157), "full_no_vel" (77) or "openai" (42): positions
    of the fingertips and of the cube, the turn from goal to cube, last action (OpenAI et al. 2018, table 2);
    `asymmetric=true` then gives the critic the full state. Of fingertips is told where the frame of each last link is
    (first, middle, ring, little finger, thumb): position, and in "full" and "full_state" quaternion (x, y, z, w),
    velocity and angular velocity; in "full_state" 10 x the force and torque that it passes on, too.

    Departures from the source, beside those of `InHand`:
    - the palm is made of capsules, not boxes; the forearm and the wrist touch nothing;
    - a finger's last joint is held to the one before by a tendon's hard limits, where PhysX has a spring; no torque
      is shown for it;
    - joints have no dry friction (.001 N m in the source); forces at fingertips are MuJoCo's, and one substep older
      than the rest.
    """

    action_dim = 20
    stage = "velocity"
    kinds = {"full_state": 211, "full": 157, "full_no_vel": 77, "openai": 42}  # noqa: RUF012
    cube = shadow_hand.CUBE

    def mjcf(self) -> str:
        return shadow_hand.mjcf()

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        names = list(shadow_hand.JOINTS)
        drives = {name: number for number, name in enumerate(shadow_hand.DRIVEN)}
        # The drive of each joint; the last of `torques` is no drive, and 0.
        self._drives = torch.tensor([drives.get(name, len(drives)) for name in names], device=device)
        tips = torch.arange(65).unflatten(0, (5, 13))
        order = [0, 1, 2, 4, 5, 6, 3, *range(7, 13)]  # MuJoCo's quaternions begin with w
        self._all = (tips[:, order] + len(drives)).flatten().to(device)
        self._places = (tips[:, :3] + len(drives)).flatten().to(device)

    def torques(self, state: State) -> Tensor:
        drives = state.sensors[:, : self.action_dim]
        return torch.cat((drives, torch.zeros_like(drives[:, :1])), dim=1).index_select(1, self._drives)

    def tips(self, state: State, velocities: bool) -> Tensor:
        return state.sensors.index_select(1, self._all if velocities else self._places)

    def pressed(self, state: State) -> Tensor:
        return state.sensors[:, -30:]
