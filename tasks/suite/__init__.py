"""IsaacGymEnvs' tasks on MuJoCo, and one of our own, one file each, and their names."""

from __future__ import annotations

from tasks.suite.allegro_hand import AllegroHand
from tasks.suite.ant import Ant
from tasks.suite.anymal import Anymal
from tasks.suite.ball_balance import BallBalance
from tasks.suite.cartpole import Cartpole
from tasks.suite.franka_cube_stack import FrankaCubeStack
from tasks.suite.franka_push import FrankaPush
from tasks.suite.humanoid import Humanoid
from tasks.suite.ingenuity import Ingenuity
from tasks.suite.quadcopter import Quadcopter
from tasks.suite.shadow_hand import ShadowHand

_ALL = (
    AllegroHand, Ant, Anymal, BallBalance, Cartpole, FrankaCubeStack, FrankaPush, Humanoid, Ingenuity, Quadcopter,
    ShadowHand,
)  # fmt: skip
TASKS = {task.__name__: task for task in _ALL}
