"""A Panda with its gripper closed, and a cube on the floor at its feet."""

from __future__ import annotations

from tasks.suite.models import franka
from tasks.suite.models.scene import block, compose, target

SIDE = 0.06  # m, of a cube of .216 kg


def mjcf(timestep: float = 1 / 120) -> str:
    """MJCF text: the arm's seven joints and motors, a free cube, and where it is to be."""
    world = f"""{franka.arm("0 0 0", fingers=False)}
    <body name="cube" pos=".5 0 {SIDE / 2}">
      <freejoint name="cube"/>
      <geom type="box" size="{SIDE / 2} {SIDE / 2} {SIDE / 2}" density="1000" {franka.FREE} material="accent"/>
    </body>{target('type="cylinder" size=".03 .001" material="blue"')}"""
    extra = "\n".join([franka.FRICTION, block("actuator", franka.motors())])
    return compose("franka_push", world, extra, franka.DEFAULT, timestep)
