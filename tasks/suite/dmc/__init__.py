"""The tasks of dm_control's suite, one file for each domain, and their names."""

from __future__ import annotations

from tasks.suite.dmc import (
    acrobot,
    ball_in_cup,
    cartpole,
    cheetah,
    dog,
    finger,
    fish,
    hopper,
    humanoid,
    lqr,
    manipulator,
    pendulum,
    point_mass,
    quadruped,
    reacher,
    stacker,
    swimmer,
    walker,
)

_DOMAINS = (
    acrobot, ball_in_cup, cartpole, cheetah, dog, finger, fish, hopper, humanoid, lqr, manipulator, pendulum,
    point_mass, quadruped, reacher, stacker, swimmer, walker,
)  # fmt: skip
TASKS = {f"dmc/{name}": task for domain in _DOMAINS for name, task in domain.TASKS.items()}
