"""Environments: from actions to a batch of observations.

`make(name, num_envs)` gives a `VectorEnv`; `list()` names the tasks; `register(name, TaskClass)` adds one; `brought()`
names those that come with an installed simulator.
Importing this package needs torch only; a simulator is imported when an environment is made.
"""

from __future__ import annotations

from tasks.ant import Ant
from tasks.ball_balance import BallBalance
from tasks.base import Step, VectorEnv
from tasks.cartpole import Cartpole
from tasks.errors import TaskError
from tasks.humanoid import Humanoid
from tasks.registry import brought, device_type, get, make, register
from tasks.registry import names as list
from tasks.simulator import Backend, Simulator, register_simulator
from tasks.task import Sampler, Start, State, Task

for _task in (Ant, BallBalance, Cartpole, Humanoid):
    register(_task.__name__, _task)
