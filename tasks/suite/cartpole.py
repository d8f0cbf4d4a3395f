"""Cartpole: keep a pole upright on a cart. Model and task in one short file, to copy from."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tasks.suite.models.scene import compose
from tasks.task import Sampler, Start, State, Task

_DEFAULT = '<geom contype="0" conaffinity="0"/>'
_WORLD = """
    <geom type="capsule" fromto="0 -4 2 0 4 2" size=".025" material="dark"/>
    <body name="cart" pos="0 0 2">
      <joint name="slider" type="slide" axis="0 1 0" range="-4 4"/>
      <geom type="box" size=".1 .125 .1" mass="1" material="blue"/>
      <body name="pole" pos=".12 0 0">
        <joint name="hinge" axis="1 0 0"/>
        <geom type="box" size=".02 .03 .5" pos="0 0 .47" mass="1" material="accent"/>
      </body>
    </body>"""
_FORCE = '<actuator><motor joint="slider" gear="400" ctrlrange="-1 1"/></actuator>'


class Cartpole(Task):
    """A pole of 1 kg and 1 m on a cart of 1 kg, pushed with up to 400 N. After IsaacGymEnvs' Cartpole (v1.5.1).

    Observation (4): cart position (m), cart velocity, pole angle (rad), pole velocity, clipped to +-5.
    Reward: 1 - angle^2 - .01 |cart velocity| - .005 |pole velocity|; -2 where the cart is beyond 3 m or the pole
    beyond a right angle, which terminates. Departures: no limit on the pole's velocity (8 rad/s in the source);
    the timestep is 1/120 s, where the source has .0166 / 2; episodes restart within the step.
    """

    obs_dim, action_dim, max_episode_steps = 4, 1, 500
    clip_obs = 5.0
    ceiling = 500.0
    camera = {"distance": 5.0, "azimuth": 180.0, "elevation": -10.0, "height": 2.0}  # noqa: RUF012

    def mjcf(self) -> str:
        return compose("cartpole", _WORLD, _FORCE, _DEFAULT, timestep=1 / 120)

    def reset(self, sampler: Sampler) -> Start:
        return Start(sampler.uniform(-0.1, 0.1, 2), sampler.uniform(-0.25, 0.25, 2))

    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        (cart, pole), (cart_velocity, pole_velocity) = state.qpos.unbind(1), state.qvel.unbind(1)
        return torch.stack((cart, cart_velocity, pole, pole_velocity), dim=1)

    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        (cart, pole), (cart_velocity, pole_velocity) = state.qpos.unbind(1), state.qvel.unbind(1)
        reward = 1 - pole * pole - 0.01 * cart_velocity.abs() - 0.005 * pole_velocity.abs()
        lost = (cart.abs() > 3) | (pole.abs() > math.pi / 2)
        return torch.where(lost, -2.0, reward), lost
