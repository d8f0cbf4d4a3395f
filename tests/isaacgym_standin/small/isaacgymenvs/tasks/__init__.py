"""The tasks by name, as IsaacGymEnvs has them."""

from isaacgymenvs.tasks.cartpole import Cartpole
from isaacgymenvs.tasks.clocks import ClockNoReset, ClockPostReset, ClockPreReset, ClockSameReset

isaacgym_task_map = {
    "Cartpole": Cartpole,
    "ClockNoReset": ClockNoReset,
    "ClockPostReset": ClockPostReset,
    "ClockPreReset": ClockPreReset,
    "ClockSameReset": ClockSameReset,
}
