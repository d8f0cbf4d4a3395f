"""Environments: from actions to a batch of observations.

`make(name, num_envs)` gives a `VectorEnv`; `list()` names the tasks; `register(name, TaskClass)` adds one; `brought()`
names those that come with an installed simulator.
Importing this package needs torch only; a simulator is imported when an environment is made.
"""

from __future__ import annotations

from tasks.base import Step, VectorEnv
from tasks.errors import TaskError
from tasks.registry import brought, device_type, get, make, register
from tasks.registry import names as list
from tasks.simulators import Backend, Simulator, register_simulator
from tasks.suite.ant import Ant
from tasks.suite.ball_balance import BallBalance
from tasks.suite.cartpole import Cartpole
from tasks.suite.gym.half_cheetah import HalfCheetah
from tasks.suite.gym.hopper import Hopper
from tasks.suite.gym.walker2d import Walker2d
from tasks.suite.humanoid import Humanoid
from tasks.task import Sampler, Start, State, Task

for _task in (Ant, BallBalance, Cartpole, Humanoid):
    register(_task.__name__, _task)
for _task in (HalfCheetah, Hopper, Walker2d):
    register(f"{_task.__name__}-v5", _task)
