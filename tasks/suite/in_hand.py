"""What tasks share in which a hand turns a cube: starts, goals one after another, observations, the reward.

After IsaacGymEnvs' ShadowHand and AllegroHand (v1.5.1), whose functions are the same.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import tasks.rotations as rotations
from tasks.errors import TaskError
from tasks.task import Sampler, Start, State, Task, told

_WORD = 1 << 32


class InHand(Task):
    """A hand of n joints with m drives, then a free cube that is to be turned like a goal, and then like the next.

    Action (m): targets of the drives, from their lowest to their highest.
    Observation "full_state", clipped to +-5: n joint angles, -1 to 1 over their range; .2 x n joint velocities; 10 x n
    joints' drive torques; the cube's position, quaternion (x, y, z, w), velocity and .2 x angular velocity (world
    axes); the goal's position and quaternion; the turn from goal to cube as a quaternion; what is known of the
    fingertips; last action. "full" has no torques, "full_no_vel" no velocities either. With `asymmetric` the
    critic sees "full_state" and the policy `observations`.
    Reward: -10 x distance of the cube from the goal's position + 1 / (angle from the goal + .1) - .0002 x sum action^2,
    and 250 where the angle is at most .1 rad: then the next step's goal is a new one. Terminates where the cube is 24
    cm away. An episode begins with the cube turned at random, within 1 cm of its place, and with each joint at a
    fifth of an angle drawn from its range.
    `memory`: "action", the last one; "goal" (4), a quaternion (w, x, y, z); "hit", whether the last step reached it;
    "goals", how many were reached in this episode, and "steps" of it; "dice", from which goals are drawn.
    Metric: consecutive_successes, goals reached in an episode, of those that end in a step; others have NaN.

    Departures from the source, of both hands:
    - joints' forces are their drives' torques, where PhysX has its solver's forces;
    - the first observation of an episode is its start's, with zeros for forces and the last action; an episode lasts
      600 transitions.
    """

    max_episode_steps = 600
    clip_obs = 5.0
    camera = "view"
    tolerance, bonus, far = 0.1, 250.0, 0.24  # rad, and m from the goal's position where the cube has fallen
    around, spread = 0.01, 0.2  # m and share of a joint's range: of the starts
    # rad from a joint's limit, at least, at a start: on it, rounding would decide whether the limit pushes at first.
    within = 0.0
    drop = 0.04  # m from where the cube begins to the goal's position
    kinds: dict[str, int] = {}  # noqa: RUF012 - how many numbers each kind of observation has
    cube: tuple[float, float, float]  # m, where it begins

    def __init__(self, observations: str = "full_state", asymmetric: bool = False):
        if observations not in self.kinds:
            raise TaskError(f"observations must be one of {', '.join(self.kinds)}, not {observations!r}")
        if not isinstance(asymmetric, bool):
            raise TaskError(f"asymmetric must be true or false, not {asymmetric!r}")
        self.observations, self.asymmetric = observations, asymmetric
        self.obs_dim = self.kinds[observations]
        self.critic_obs_dim = self.kinds["full_state"] if asymmetric else 0

    def setup(self, model: Any, device: torch.device) -> None:
        self._joints, self.action_dim = int(model.njnt) - 1, int(model.nu)

        def columns(limits: Any) -> tuple[Tensor, Tensor]:
            low, high = torch.as_tensor(limits, dtype=torch.float32, device=device).unbind(1)
            return low.clone(), high.clone()

        self._low, self._high = columns(model.jnt_range[:-1])
        self._least, self._most = columns(model.actuator_ctrlrange)
        self._begins = torch.tensor(self.cube, device=device)
        self._goal = self._begins - torch.tensor([0.0, 0.0, self.drop], device=device)

    def reset(self, sampler: Sampler) -> Start:
        joints = self.spread * (self._low + (self._high - self._low) * sampler.uniform(0.0, 1.0, self._joints))
        joints = torch.maximum(torch.minimum(joints, self._high - self.within), self._low + self.within)
        place = self._begins + sampler.uniform(-self.around, self.around, 3)
        drawn = sampler.uniform(0.0, 1.0, 4)
        qpos = torch.cat((joints, place, turned(drawn[:, :2])), dim=1)
        high, low = sampler.uniform(0.0, 65536.0, 2).long().unbind(1)
        words = 65536 * high + low
        none = torch.zeros_like(joints[:, 0])
        memory = {"action": none[:, None].repeat(1, self.action_dim), "goal": turned(drawn[:, 2:]), "hit": none > 0}
        memory.update({"goals": none, "steps": none, "dice": words})
        return Start(qpos, qpos.new_zeros(len(qpos), self._joints + 6), memory)

    def control(self, action: Tensor, memory: dict[str, Tensor]) -> Tensor:
        first = rolled(memory["dice"])
        second = rolled(first)
        hit, drawn = memory["hit"], torch.stack((first, second), dim=1) / float(_WORD)
        memory["dice"] = torch.where(hit, second, memory["dice"])
        memory["goal"] = torch.where(hit[:, None], turned(drawn.float()), memory["goal"])
        memory["action"], memory["steps"] = action, memory["steps"] + 1
        return self._least + (self._most - self._least) * (action + 1) / 2

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        return self._seen(self.observations, state, memory)

    def observe_critic(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        return self._seen("full_state", state, memory)

    def _seen(self, kind: str, state: State, memory: dict[str, Tensor]) -> Tensor:
        n, velocities, action = self._joints, kind != "full_no_vel", memory["action"]
        place, quat = state.qpos[:, n : n + 3], state.qpos[:, n + 3 :]
        goal = memory["goal"]
        apart = xyzw(difference(quat, goal))
        if kind == "openai":
            return torch.cat((self.tips(state, False), place, apart, action), dim=1)
        joints = [(2 * state.qpos[:, :n] - self._low - self._high) / (self._high - self._low)]
        cube = [place, xyzw(quat)]
        if velocities:
            joints.append(0.2 * state.qvel[:, :n])
            spin = rotations.to_world(rotations.matrix(quat), state.qvel[:, n + 3 :])
            cube += [state.qvel[:, n : n + 3], 0.2 * spin]
        tips = [self.tips(state, velocities)]
        if kind == "full_state":
            tenfold = 10.0 * (memory["steps"] > 0)[:, None]  # engines differ in forces at a start: there they are 0
            joints.append(tenfold * self.torques(state))
            tips.append(tenfold * self.pressed(state))
        aim = [self._goal.expand_as(place), xyzw(goal), apart]
        return torch.cat((*joints, *cube, *aim, *tips, action), dim=1)

    def shown(self, memory: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"mocap_quat": memory["goal"][:, None]}

    def torques(self, state: State) -> Tensor:
        """What the drive of each joint puts out, (N, n), in N m."""
        return state.sensors

    def tips(self, state: State, velocities: bool) -> Tensor:
        """Where fingertips are, (N, k), or with `velocities` all about them; in the world."""
        return state.qpos[:, :0]

    def pressed(self, state: State) -> Tensor:
        """Forces and torques at the fingertips, (N, k)."""
        return state.qpos[:, :0]

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        n = self._joints
        away = (state.qpos[:, n : n + 3] - self._goal).norm(dim=1)
        angle = 2 * torch.asin(difference(state.qpos[:, n + 3 :], memory["goal"])[:, 1:].norm(dim=1).clamp(max=1.0))
        hit, fallen = angle <= self.tolerance, away >= self.far
        parts = {"distance": -10 * away, "rotation": 1 / (angle + 0.1), "success": self.bonus * hit}
        parts["action_cost"] = -0.0002 * action.square().sum(1)
        memory["hit"], memory["goals"] = hit, memory["goals"] + hit
        over = fallen | (memory["steps"] >= self.max_episode_steps)
        memory["metric/consecutive_successes"] = torch.where(over, memory["goals"], math.nan)
        return told(parts, memory), fallen


def turned(drawn: Tensor) -> Tensor:
    """Quaternions (N, 4) of a turn about x, then about the new y, by up to half a turn; from U(0, 1), (N, 2)."""
    half = math.pi * (drawn - 0.5)
    (sx, sy), (cx, cy) = half.sin().unbind(1), half.cos().unbind(1)
    return torch.stack((cx * cy, sx * cy, cx * sy, sx * sy), dim=1)


def difference(one: Tensor, other: Tensor) -> Tensor:
    """The turn that takes `other` to `one` (world axes); quaternions (N, 4) in order w, x, y, z."""
    a, b = one.unbind(1), other.unbind(1)
    w, x, y, z = a
    u, i, j, k = b[0], -b[1], -b[2], -b[3]
    return torch.stack(
        (
            w * u - x * i - y * j - z * k,
            w * i + x * u + y * k - z * j,
            w * j - x * k + y * u + z * i,
            w * k + x * j - y * i + z * u,
        ),
        dim=1,
    )


def xyzw(quat: Tensor) -> Tensor:
    """Quaternions (N, 4) with w at the end, as Isaac Gym has them."""
    return torch.cat((quat[:, 1:], quat[:, :1]), dim=1)


def rolled(word: Tensor) -> Tensor:
    """The next of a sequence of 32 random bits (Knuth and Lewis' generator), (N,) int64.

    Goals change within episodes, where a step has no sampler: each environment has dice of its own.
    """
    return (word * 1664525 + 1013904223) % _WORD
