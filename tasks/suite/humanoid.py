"""Humanoid: two legs, run ahead."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tasks.suite.locomotion import Locomotion
from tasks.suite.models import humanoid
from tasks.task import State


class Humanoid(Locomotion):
    """A humanoid with 21 motors, paid for speed, uprightness and heading. After IsaacGymEnvs' Humanoid (v1.5.1).

    Observation (108): torso height; linear velocity and 0.25 x angular velocity in torso axes; yaw, roll, angle
    to target; up; heading; 21 joint angles between their limits; 0.1 x joint velocities; 0.01 x joint torques
    (motor, spring, damper and stop); 0.01 x force (3) and torque (3) that the right and the left foot pass to
    the shin, in the foot's axes; last action. Action (21): torque / gear. Gears e are relative to the largest.
    Reward: speed of approach + 2 + 0.1 [up > .93] + up to .5 for heading - .01 |a|^2
    - .05 sum e |a * 0.1 * joint velocity| - sum .25 e (|u| - .98) / .02 over joints at a limit (|u| > .98);
    -1 at a fall (torso height < .8), which terminates.

    Departures from the source, each where it does what it can't have meant or what PhysX alone measures:
    - the angle to the target is taken in the ground plane; the source takes it from z and x;
    - the first observation of an episode holds zeros for the last action and the sensors, where the source holds
      those of the episode before; episodes restart within the step and last exactly 1000 transitions;
    - joint torques are the sum above, where PhysX reports its solver's joint force; foot sensors are MuJoCo's;
    - the left ankle's roll axis mirrors the right one's; the waist isn't turned by the source's .23 degrees;
    - the timestep is 1/120 s, where the source has .0166 / 2; no angular damping of the bodies.
    """

    obs_dim, action_dim = 108, 21
    reference_return = 6525.0  # PPO, skrl, on Isaac Gym
    start_height, fall_height, fall_reward = 1.34, 0.8, -1.0
    alive_reward, action_cost = 2.0, 0.01
    camera = {"distance": 3.4, "azimuth": 125.0, "elevation": -12.0, "height": 0.85}  # noqa: RUF012

    def mjcf(self) -> str:
        return humanoid.mjcf()

    def setup(self, model: Any, device: torch.device) -> None:
        super().setup(model, device)
        gear, _, stiffness, damping, _ = zip(*humanoid.JOINTS.values())
        self._gear, self._stiffness, self._damping = (
            torch.tensor(facts, dtype=torch.float32, device=device) for facts in (gear, stiffness, damping)
        )
        self._relative_gear = self._gear / self._gear.max()

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        feet, stops = state.sensors.split([12, len(self._gear)], dim=1)
        angles, speeds, action = state.qpos[:, 7:], state.qvel[:, 6:], memory["action"]
        torque = action * self._gear - angles * self._stiffness - speeds * self._damping + stops
        return torch.cat(
            (self._torso(state, 0.25), self._unscaled(state), speeds * 0.1, torque * 0.01, feet * 0.01, action), dim=1
        )

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        effort = (action * obs[:, 33:54]).abs() @ self._relative_gear
        beyond = (obs[:, 12:33].abs() - 0.98).clamp(min=0.0) @ self._relative_gear
        progress = self._progress(state, memory, dt=1 / 60)
        return self._judge(obs, progress, action, 0.05 * effort + (0.25 / 0.02) * beyond, memory)
