"""FrankaPush: push a cube to a goal on the floor."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tasks.suite.franka import Franka
from tasks.suite.models import franka, franka_push
from tasks.task import Sampler, Start, State, actions_of, told


class FrankaPush(Franka):
    """A Panda with closed fingers that point down is to push a cube of 6 cm to a goal. A definition of our own.

    Papers on value-based RL have a task of this name on Isaac Gym; IsaacGymEnvs has none and no text of theirs says
    how it is paid, so that returns are not to be compared. What is here of the source's is FrankaCubeStack's robot,
    rate (60 Hz) and manner of control; but an action lasts three control steps, for in a sixtieth of a second a hand
    does too little for a critic to see what it was good for.

    Observation (32): 7 joint angles; their velocities; fingertips; cube from there; the cube's quaternion, velocity
    and angular velocity (MuJoCo's conventions); goal (x, y) from the cube.
    Action (3): a force of up to 25 N at the fingertips, against a damping of 40 N s/m, so .6 m/s at most; a spring of
    20 N m/rad and a damper of 3 N m s/rad keep the fingers upright. Torques are the transposed Jacobian's.
    Reward of each control step: .5 (1 - tanh(2 |fingertips - cube|)) + (1 - tanh(2.5 d)) + [d < .03], with d the
    cube's distance from the goal on the floor (m). Nothing terminates; an episode is 360 control steps (6 s). Cube and
    goal begin in x .4 to .6, y -.2 to .2, independently; joints within .05 rad of a pose over the middle.
    `memory`: "goal" (2); "steps" of control taken; "bias" (7), torques whatever the action, and "pull" (7, 3), torques
    for each action.
    Metric: pushed, whether the cube is at the goal as an episode ends; within one it is NaN.

    Args:
        action_repeat: control steps that an action lasts, a divisor of 360.
    """

    obs_dim, action_dim = 32, 3
    control_steps = 360  # of an episode
    ceiling = 900.0  # not reached: cube and goal are some 25 cm apart at first
    camera = {"distance": 1.7, "azimuth": 140.0, "elevation": -25.0, "height": 0.25}  # noqa: RUF012
    force, damping, spring, twist_damping = 25.0, 40.0, 20.0, 3.0
    near = 0.03  # m from the goal that count as there

    def __init__(self, action_repeat: int = 3):
        self.action_repeat = action_repeat
        self.max_episode_steps = actions_of(self.control_steps, action_repeat)

    def mjcf(self) -> str:
        return franka_push.mjcf()

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        upright = 2.8143  # the sixth joint's angle that makes HOME's fingers point straight down
        self._home = torch.tensor([*franka.HOME[:5], upright, franka.HOME[6]], device=device)
        self._down = torch.tensor([1.0, -1.0, -1.0], device=device).diag()

    def reset(self, sampler: Sampler) -> Start:
        arm = self._home + sampler.uniform(-0.05, 0.05, 7)
        ahead, aside = sampler.uniform(0.4, 0.6, 2), sampler.uniform(-0.2, 0.2, 2)
        half = sampler.uniform(-math.pi / 2, math.pi / 2, 1)
        height, none = torch.full_like(half, franka_push.SIDE / 2 - franka.SUNK), torch.zeros_like(half)
        cube = ahead[:, :1], aside[:, :1], height, half.cos(), none, none, half.sin()
        qpos = torch.cat((arm, *cube), dim=1)
        goal = torch.stack((ahead[:, 1], aside[:, 1]), dim=1)
        return Start(qpos, qpos.new_zeros(len(qpos), 13), {"goal": goal, "steps": torch.zeros_like(half[:, 0])})

    def begin(self, state: State) -> dict[str, Tensor]:
        hand = self.hand(state)
        # Half the sum of cross products of each axis with where it should be is the small rotation between them.
        turn = torch.linalg.cross(hand.axes, self._down.expand_as(hand.axes), dim=1).sum(2) / 2
        linear, angular = hand.velocity.split(3, dim=1)
        wrench = torch.cat((-self.damping * linear, self.spring * turn - self.twist_damping * angular), dim=1)
        back = hand.jacobian.transpose(1, 2)
        return {"bias": torch.einsum("nij,nj->ni", back, wrench), "pull": back[:, :, :3] * self.force}

    def control(self, action: Tensor, memory: dict[str, Tensor]) -> Tensor:
        return self.clamped(memory["bias"] + torch.einsum("nij,nj->ni", memory["pull"], action))

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        tip, cube = state.fields["site_xpos"][:, self._tip], state.qpos[:, 7:10]
        where = tip, cube - tip, state.qpos[:, 10:], state.qvel[:, 7:], memory["goal"] - cube[:, :2]
        return torch.cat((state.qpos[:, :7], state.qvel[:, :7], *where), dim=1)

    def shown(self, memory: dict[str, Tensor]) -> dict[str, Tensor]:
        goal = memory["goal"]
        return {"mocap_pos": torch.cat((goal, torch.zeros_like(goal[:, :1])), dim=1)[:, None]}

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        memory.update(self.begin(state))
        away = obs[:, 17:20].norm(dim=1)
        distance = obs[:, 30:].norm(dim=1)
        there = distance < self.near
        reach, push = 0.5 * (1 - torch.tanh(2 * away)), 1 - torch.tanh(2.5 * distance)
        memory["steps"] = memory["steps"] + 1
        memory["metric/pushed"] = torch.where(memory["steps"] >= self.control_steps, there.float(), math.nan)
        return told({"reach": reach, "push": push, "there": there.float()}, memory), torch.zeros_like(there)
