"""FrankaCubeStack: put a small cube on a larger one."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import tasks.rotations as rotations
from tasks.suite.franka import Franka, inertia, solve
from tasks.suite.models import franka, franka_cube_stack
from tasks.task import Sampler, Start, State, told

_TRIES = 16  # a place for cube A: all too close to B once in ten million starts


class FrankaCubeStack(Franka):
    """A Panda is to stack cube A (5 cm) on cube B (7 cm). After IsaacGymEnvs' FrankaCubeStack (v1.5.1).

    Observation (19), clipped to +-5: cube A's quaternion (x, y, z, w) and position; B from A; fingertips' position and
    quaternion; both fingers' openings. Action (7): a step of up to 10 cm and half a radian that operational-space
    control (Khatib 1987) pulls the hand along, with 150 /s^2 and critical damping, joints held near a pose in its null
    space (10 /s^2); and the gripper, which opens at 0 and above, and shuts below.
    Reward: 16 where stacked, else .1 max(near, aligned) + 1.5 lifted + 2 aligned, where near = 1 - tanh(10 x mean
    distance of A from the fingertips, the left and the right one); lifted: A is 4 cm over where it lay; aligned: lifted
    x (1 - tanh(10 x distance of A from a centimetre over B)). Stacked, which terminates: A's middle is within 2 cm
    above B's and at its height, and 4 cm from the fingertips. So hovering over B earns more than a stack, as there.
    `memory`: "bias" (7), torques whatever the action, and "pull" (7, 6), torques for each of its first six numbers.

    Departures from the source: masses, inertias and rotors are a real Panda's (models/franka.py); the table has no
    edge; cube B starts on the table, where the source has it 1 cm within; the Jacobian is that of the fingertips,
    whose velocity is damped, where the source's is that of the hand; fingers press with 25 N, where the source has 125;
    the first observation of an
    episode is its start's, and an episode lasts 300 transitions.
    """

    reads = (*Franka.reads, "cdof", "crb", "xquat")
    obs_dim, action_dim, max_episode_steps = 19, 7, 300
    clip_obs = 5.0
    camera = {"distance": 1.5, "azimuth": 140.0, "elevation": -20.0, "height": 1.25}  # noqa: RUF012
    stiffness, posture = 150.0, 10.0  # 1/s^2
    spread, turned = 0.25, 0.785  # m and rad: of the cubes' starts

    def mjcf(self) -> str:
        return franka_cube_stack.mjcf()

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        tips = [model.site(name).id for name in ("tip", "left_tip", "right_tip")]
        links = [model.body(f"link_{i}").id for i in range(1, 8)]
        # a list as an index would be copied to the device at each use
        self._tips, self._links = (torch.tensor(ids, device=device) for ids in (tips, links))
        self._hand = model.body("hand").id
        self._home = torch.tensor(franka.HOME, device=device)
        limits = torch.tensor(franka.LIMITS, device=device)
        self._lower, self._upper = limits[:, 0].clone(), limits[:, 1].clone()
        self._rotors = torch.as_tensor(model.dof_armature[:7], dtype=torch.float32, device=device).diag()
        self._above = torch.tensor([0.0, 0.0, (franka_cube_stack.SIDE_A + franka_cube_stack.SIDE_B) / 2], device=device)
        self._most = self.stiffness * torch.tensor([0.1, 0.1, 0.1, 0.5, 0.5, 0.5], device=device)

    def reset(self, sampler: Sampler) -> Start:
        arm = self._home + sampler.uniform(-0.25, 0.25, 7)
        arm = torch.maximum(torch.minimum(arm, self._upper), self._lower)
        place_b = sampler.uniform(-self.spread, self.spread, 2)
        tries = sampler.uniform(-self.spread, self.spread, 2 * _TRIES).unflatten(1, (_TRIES, 2))
        apart = (tries - place_b[:, None]).norm(dim=2)
        least = (franka_cube_stack.SIDE_A + franka_cube_stack.SIDE_B) * math.sqrt(2)
        order = torch.arange(_TRIES + 1, 1, -1, device=arm.device)
        best = torch.where(apart >= least, order, apart).argmax(1)  # the first that is far enough, or the farthest
        place_a = tries.gather(1, best[:, None, None].expand(-1, 1, 2)).squeeze(1)
        cubes = []
        for place, side in ((place_a, franka_cube_stack.SIDE_A), (place_b, franka_cube_stack.SIDE_B)):
            half = sampler.uniform(-self.turned / 2, self.turned / 2, 1)
            height = torch.full_like(half, franka_cube_stack.TABLE + side / 2 - franka.SUNK)
            none = torch.zeros_like(half)
            cubes += [place, height, half.cos(), none, none, half.sin()]
        fingers = torch.full_like(arm[:, :2], 0.035)
        qpos = torch.cat((arm, fingers, *cubes), dim=1)
        return Start(qpos, qpos.new_zeros(len(qpos), 21))

    def begin(self, state: State) -> dict[str, Tensor]:
        hand, fields = self.hand(state), state.fields
        mass = inertia(fields["cdof"][:, :7], fields["crb"][:, self._links]) + self._rotors
        back = hand.jacobian.transpose(1, 2)
        mobility = hand.jacobian @ solve(mass, back)
        force = solve(mobility, hand.jacobian).transpose(1, 2)  # (N, 7, 6): torques for an acceleration of the hand
        angles, speeds = state.qpos[:, :7], state.qvel[:, :7]
        rest = self.posture * rotations.wrap(self._home - angles) - 2 * math.sqrt(self.posture) * speeds
        ask = -2 * math.sqrt(self.stiffness) * hand.velocity - torch.einsum("nij,nj->ni", hand.jacobian, rest)
        bias = torch.einsum("nij,nj->ni", force, ask) + torch.einsum("nij,nj->ni", mass, rest)
        return {"bias": bias, "pull": force * self._most}

    def control(self, action: Tensor, memory: dict[str, Tensor]) -> Tensor:
        torque = self.clamped(memory["bias"] + torch.einsum("nij,nj->ni", memory["pull"], action[:, :6]))
        opening = franka.OPEN * (action[:, 6:] >= 0)
        return torch.cat((torque, opening, opening), dim=1)

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        tip, turn = state.fields["site_xpos"][:, self._tip], state.fields["xquat"][:, self._hand]
        cube, quat = state.qpos[:, 9:12], state.qpos[:, 12:16]
        where = quat[:, 1:], quat[:, :1], cube, state.qpos[:, 16:19] - cube, tip, turn[:, 1:], turn[:, :1]
        return torch.cat((*where, state.qpos[:, 7:9]), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        memory.update(self.begin(state))
        side_a, side_b = franka_cube_stack.SIDE_A, franka_cube_stack.SIDE_B
        cube, other = state.qpos[:, 9:12], state.qpos[:, 16:19] - state.qpos[:, 9:12]
        away = (state.fields["site_xpos"][:, self._tips] - cube[:, None]).norm(dim=2)
        height = cube[:, 2] - franka_cube_stack.TABLE
        lifted = height - side_a > 0.04
        over = other + self._above
        aligned = lifted * (1 - torch.tanh(10 * over.norm(dim=1)))
        near = torch.maximum(1 - torch.tanh(10 * away.mean(1)), aligned)
        stacked = other[:, :2].norm(dim=1) < 0.02
        stacked = stacked & ((height - side_b - side_a / 2).abs() < 0.02) & (away[:, 0] > 0.04)
        parts = {"near": 0.1 * near, "lifted": 1.5 * lifted, "aligned": 2 * aligned}
        parts = {name: torch.where(stacked, 0.0, part) for name, part in parts.items()}
        return told({**parts, "stacked": 16.0 * stacked}, memory), stacked
