"""Environments: from actions to a batch of observations.

`make(name, num_envs)` gives a `VectorEnv`; `list()` names the tasks; `register(name, TaskClass)` adds one; `brought()`
names those that come with an installed simulator.
Importing this package needs torch only; a simulator is imported when an environment is made.
"""

from __future__ import annotations

from tasks.base import Spaces, Step, VectorEnv
from tasks.errors import TaskError
from tasks.plugins import import_plugins, is_imported
from tasks.registry import brings_tasks, brought, chosen, device_type, get, make, register
from tasks.registry import names as list
from tasks.simulators import Backend, Simulator, register_simulator
from tasks.suite.allegro_hand import AllegroHand
from tasks.suite.ant import Ant
from tasks.suite.anymal import Anymal
from tasks.suite.ball_balance import BallBalance
from tasks.suite.cartpole import Cartpole
from tasks.suite.dmc import TASKS as _DMC
from tasks.suite.franka_cube_stack import FrankaCubeStack
from tasks.suite.franka_push import FrankaPush
from tasks.suite.gym import TASKS as _GYM
from tasks.suite.humanoid import Humanoid
from tasks.suite.ingenuity import Ingenuity
from tasks.suite.quadcopter import Quadcopter
from tasks.suite.shadow_hand import ShadowHand
from tasks.task import Sampler, Start, State, Task

_OURS = (AllegroHand, Ant, Anymal, BallBalance, Cartpole, FrankaCubeStack, FrankaPush, Humanoid, Ingenuity)
for _class in (*_OURS, Quadcopter, ShadowHand):
    register(_class.__name__, _class)
for _name, _class in {**_GYM, **_DMC}.items():
    register(_name, _class)
