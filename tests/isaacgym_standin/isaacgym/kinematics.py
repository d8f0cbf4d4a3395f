"""Where a robot's bodies are and how fast, given its root and joints; and what each joint moves (Jacobian).

A batch over environments, a loop over bodies: parents come before their children.
"""

import torch

from isaacgym.torch_utils import quat_apply, quat_from_angle_axis, quat_mul

SPREAD = 0.05  # m: every body's radius of gyration


class Chain:
    """The tree of one asset.

    After `place`: `axes` and `anchors` (E, dofs, 3) in the world, `bodies` (E, bodies, 13).
    """

    def __init__(self, asset, device):
        self.asset, self.device = asset, device
        count, dofs = len(asset.bodies), len(asset.joints)
        self.sliding = torch.tensor([joint.sliding for joint in asset.joints], dtype=torch.bool, device=device)
        self.poses = [tuple(torch.tensor(part, device=device) for part in body.pose) for body in asset.bodies]
        self.axis = [torch.tensor(joint.axis, device=device, dtype=torch.float) for joint in asset.joints]
        self.anchor = [torch.tensor(joint.anchor, device=device, dtype=torch.float) for joint in asset.joints]
        self.moves = torch.zeros(count, dofs, dtype=torch.bool, device=device)  # body x dof
        for index, body in enumerate(asset.bodies):
            if body.parent >= 0:
                self.moves[index] = self.moves[body.parent]
            self.moves[index, body.joints] = True

    def place(self, root, q, qd):
        """Bodies (E, bodies, 13) from root (E, 13), q and qd (E, dofs): world positions, velocities at the origins."""
        e = len(root)
        self.axes = torch.zeros(e, len(self.axis), 3, device=self.device)
        self.anchors = torch.zeros_like(self.axes)
        found = []
        for index, body in enumerate(self.asset.bodies):
            if body.parent < 0:
                p, r, v, w = root[:, :3], root[:, 3:7], root[:, 7:10], root[:, 10:13]
            else:
                p, r, v, w = self._hang(index, found[body.parent])
            for dof in body.joints:
                p, r, v, w = self._move(dof, p, r, v, w, q[:, dof], qd[:, dof])
            found.append((p, r, v, w))
        self.bodies = torch.stack([torch.cat(state, dim=1) for state in found], dim=1)
        return self.bodies

    def _hang(self, index, parent):
        p, r, v, w = parent
        offset, turn = self.poses[index]
        arm = quat_apply(r, offset.expand(len(p), 3))
        return p + arm, quat_mul(r, turn.expand(len(p), 4)), v + torch.cross(w, arm, dim=1), w

    def _move(self, dof, p, r, v, w, q, qd):
        axis = quat_apply(r, self.axis[dof].expand(len(p), 3))
        anchor = p + quat_apply(r, self.anchor[dof].expand(len(p), 3))
        self.axes[:, dof], self.anchors[:, dof] = axis, anchor
        if self.sliding[dof]:
            arm = axis * q[:, None]
            return p + arm, r, v + torch.cross(w, arm, dim=1) + axis * qd[:, None], w
        at = v + torch.cross(w, anchor - p, dim=1)
        turned = quat_mul(r, quat_from_angle_axis(q, self.axis[dof].expand(len(p), 3)))
        moved = anchor - quat_apply(turned, self.anchor[dof].expand(len(p), 3))
        spun = w + axis * qd[:, None]
        return moved, turned, at + torch.cross(spun, moved - anchor, dim=1), spun

    def jacobian(self):
        """(E, bodies, 6, dofs): linear and angular velocity of each body per joint speed."""
        arms = self.bodies[:, :, None, :3] - self.anchors[:, None]
        axes = self.axes[:, None].expand_as(arms)
        sliding = self.sliding[None, None, :, None]
        linear = torch.where(sliding, axes, torch.cross(axes, arms, dim=3))
        angular = torch.where(sliding, torch.zeros_like(axes), axes)
        moved = self.moves[None, :, :, None]
        return (torch.cat((linear, angular), dim=3) * moved).transpose(2, 3).contiguous()

    def mass_matrix(self, armature):
        """(E, dofs, dofs) of bodies that are balls of radius of gyration SPREAD about their origins.

        `armature` (kg m^2) is added for each joint, so that no matrix is singular.
        """
        found = self.jacobian()
        mass = torch.tensor([body.mass for body in self.asset.bodies], device=self.device)
        weight = torch.cat((mass[:, None].expand(-1, 3), SPREAD**2 * mass[:, None].expand(-1, 3)), dim=1)
        return torch.einsum("ebid,bi,ebif->edf", found, weight, found) + armature * torch.eye(found.shape[3])
