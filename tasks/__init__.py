"""Environments: from actions to a batch of observations.

`make(name, num_envs)` gives a `VectorEnv`; `list()` names the tasks; `register(name, TaskClass)` adds one; `brought()`
names those that come with an installed simulator.
Importing this package needs torch only; a simulator is imported when an environment is made.
"""

from __future__ import annotations

import tasks.suite as _suite
from tasks.base import Spaces, Step, VectorEnv
from tasks.errors import TaskError
from tasks.plugins import import_plugins, is_imported
from tasks.registry import brings_tasks, brought, chosen, device_type, get, make, register
from tasks.registry import names as list
from tasks.simulators import Backend, Simulator, register_simulator
from tasks.suite import (
    AllegroHand,
    Ant,
    Anymal,
    BallBalance,
    Cartpole,
    FrankaCubeStack,
    FrankaPush,
    Humanoid,
    Ingenuity,
    Quadcopter,
    ShadowHand,
)
from tasks.suite.dmc import TASKS as _DMC
from tasks.suite.gym import TASKS as _GYM
from tasks.task import Sampler, Start, State, Task

for _name, _class in {**_suite.TASKS, **_GYM, **_DMC}.items():
    register(_name, _class)
