"""The balance bot: a tray on three legs whose feet are pinned to the ground, and a ball.

Sizes, densities and drives: IsaacGymEnvs' BallBalance.
"""

from __future__ import annotations

import math

from tasks.suite.models.scene import block, compose

TRAY_HEIGHT = 0.36 * math.sqrt(2) + 0.05  # of the tray's middle over the floor, legs at their initial angles
BALL_RADIUS = 0.1
_SPAN = 0.36 / math.sqrt(2)  # a leg of .36 m at 45 degrees
# The ball touches tray, legs and floor; the legs, pinned to the floor, touch nothing else. The drives keep the
# source's time constant kd / kp = 25 ms with a quarter of its gains (4000, 100), and the hinges carry a rotor's
# inertia: in a closed chain MuJoCo's integrator can't hold the full gains (legs flew apart within half a second).
_DEFAULT = """
    <geom contype="0" conaffinity="2" condim="3"/>
    <joint armature=".05"/>
    <position kp="1000" kv="25"/>
    <equality solref=".01 1"/>
"""


def _leg(number: int) -> str:
    angle = 120 * number
    x, y = 0.4 * math.cos(math.radians(angle)), 0.4 * math.sin(math.radians(angle))
    return f"""
      <body name="upper_{number}" pos="{x} {y} -.03" euler="0 0 {angle}">
        <joint name="upper_{number}" axis="0 1 0" range="-45 45"/>
        <geom type="capsule" fromto="0 0 0 {-_SPAN} 0 {-_SPAN}" size=".02" density="1000" material="blue"/>
        <site name="leg_{number}" euler="0 135 0" size=".01" group="4"/>
        <body name="lower_{number}" pos="{-_SPAN} 0 {-_SPAN}">
          <joint name="lower_{number}" axis="0 1 0" range="-70 90"/>
          <geom type="capsule" fromto="0 0 0 {_SPAN} 0 {-_SPAN}" size=".02" density="1000" material="dark"/>
        </body>
      </body>"""


def mjcf(timestep: float = 0.005) -> str:
    """MJCF text: free tray, hinges upper_0, lower_0 .. lower_2, free ball; drives on the lower hinges.

    A leg's sensors (force, then torque) have their x axis down the upper leg and y along the hinge.
    """
    legs = "".join(_leg(number) for number in range(3))
    world = f"""
    <body name="tray" pos="0 0 {TRAY_HEIGHT}">
      <freejoint name="tray"/>
      <geom name="tray" type="cylinder" size=".5 .01" density="100" material="pale"/>{legs}
    </body>
    <body name="ball" pos="0 0 1">
      <freejoint name="ball"/>
      <geom name="ball" type="sphere" size="{BALL_RADIUS}" density="200" contype="2" conaffinity="1"
       material="accent"/>
    </body>"""
    drives = [f'<position name="lower_{i}" joint="lower_{i}" inheritrange="1"/>' for i in range(3)]
    pins = [f'<connect name="foot_{i}" body1="lower_{i}" anchor="{_SPAN} 0 {-_SPAN}"/>' for i in range(3)]
    sensors = [f'<{kind} site="leg_{i}"/>' for kind in ("force", "torque") for i in range(3)]
    extra = "\n".join([block("actuator", drives), block("equality", pins), block("sensor", sensors)])
    return compose("ball_balance", world, extra, _DEFAULT, timestep)
