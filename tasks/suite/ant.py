"""Ant: four legs, run ahead."""

from __future__ import annotations

import torch
from torch import Tensor

from tasks.suite.locomotion import Locomotion
from tasks.suite.models import ant
from tasks.task import State


class Ant(Locomotion):
    """An eight-motor ant that is paid for speed, uprightness and heading. After IsaacGymEnvs' Ant (v1.5.1).

    Observation (60): torso height; linear, angular velocity in torso axes; yaw, roll, angle to target; up;
    heading; 8 joint angles between their limits; 0.2 x joint velocities; 0.1 x force (3) and torque (3) that
    each of 4 feet passes to its leg, in the foot's axes; last action. Action (8): torque / 15 N m.
    Reward: speed of approach + 0.5 + 0.1 [up > .93] + up to .5 for heading - .005 |a|^2
    - .05 sum |a * 0.2 * joint velocity| - .1 per joint at a limit; -2 at a fall (height < .31), which terminates.

    Departures from the source, each where it does what it can't have meant:
    - the angle to the target is taken in the ground plane; the source takes it from z and x;
    - yaw and roll lie in [-pi, pi]; the source jumps from 0 to 2 pi at straight ahead;
    - a joint at its lower limit costs as one at its upper; the source counts the upper only;
    - the first observation of an episode holds zeros for the last action and the foot sensors, where the source
      holds those of the episode before; episodes restart within the step and last exactly 1000 transitions;
    - foot sensors are MuJoCo's force and torque between foot and leg, where PhysX sums constraint forces;
    - the timestep is 1/120 s, where the source has .0166 / 2.
    """

    obs_dim, action_dim = 60, 8
    reference_return = 5095.0  # PPO, skrl, on Isaac Gym
    start_height, fall_height, fall_reward = 0.44, 0.31, -2.0
    alive_reward, action_cost = 0.5, 0.005
    camera = {"distance": 3.2, "azimuth": 125.0, "elevation": -22.0, "height": 0.35}  # noqa: RUF012

    def mjcf(self) -> str:
        return ant.mjcf()

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        joints = self._unscaled(state), state.qvel[:, 6:] * 0.2
        return torch.cat((self._torso(state, 1.0), *joints, state.sensors * 0.1, memory["action"]), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        effort = (action * obs[:, 20:28]).abs().sum(1)
        at_limit = (obs[:, 12:20].abs() > 0.99).sum(1)
        progress = self._progress(state, memory, dt=1 / 60)
        return self._judge(obs, progress, action, 0.05 * effort + 0.1 * at_limit, memory)
