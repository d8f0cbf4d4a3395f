"""Gymnasium's MuJoCo tasks (v5), one file each, and their names."""

from __future__ import annotations

from tasks.suite.gym.ant import Ant
from tasks.suite.gym.half_cheetah import HalfCheetah
from tasks.suite.gym.hopper import Hopper
from tasks.suite.gym.humanoid import Humanoid
from tasks.suite.gym.humanoid_standup import HumanoidStandup
from tasks.suite.gym.inverted_double_pendulum import InvertedDoublePendulum
from tasks.suite.gym.inverted_pendulum import InvertedPendulum
from tasks.suite.gym.pusher import Pusher
from tasks.suite.gym.reacher import Reacher
from tasks.suite.gym.swimmer import Swimmer
from tasks.suite.gym.walker2d import Walker2d

_ALL = (
    Ant, HalfCheetah, Hopper, Humanoid, HumanoidStandup, InvertedDoublePendulum, InvertedPendulum, Pusher, Reacher,
    Swimmer, Walker2d,
)  # fmt: skip
TASKS = {f"{task.__name__}-v5": task for task in _ALL}
