"""The quadcopter: a disc with four thrusters that tilt about two axes each, .252 kg.

Sizes, densities and limits: IsaacGymEnvs' Quadcopter.
"""

from __future__ import annotations

import math

from tasks.suite.models.scene import block, compose

MAX_THRUST = 2.0  # N, of each of four; the whole weighs 2.47 N
_ARM, _ROTOR = 0.1025, 0.0425  # m: from the middle to the pitch hinge, from there to the rotor
# The source's drives have stiffness and no damping, which PhysX integrates implicitly. MuJoCo treats damping so, not
# stiffness: these follow their target with a time constant of 10 ms, two timesteps. Nothing touches anything:
# an episode ends before the floor is met.
_DEFAULT = """
    <geom contype="0" conaffinity="0"/>
    <joint range="-30 30"/>
    <position kp="100" kv="1" inheritrange="1"/>
"""


def _rotor(number: int) -> str:
    angle = math.pi / 4 + number * math.pi / 2
    x, y = _ARM * math.cos(angle), _ARM * math.sin(angle)
    return f"""
      <body name="arm_{number}" pos="{x} {y} 0" euler="0 0 {math.degrees(angle)}">
        <joint name="pitch_{number}" axis="0 1 0"/>
        <geom type="sphere" size=".01" density="200" material="dark"/>
        <body name="rotor_{number}" pos="{_ROTOR} 0 0">
          <joint name="roll_{number}" axis="1 0 0"/>
          <geom type="cylinder" size=".04 .005" density="1000" material="blue"/>
          <site name="rotor_{number}" size=".005" group="4"/>
        </body>
      </body>"""


def mjcf(timestep: float = 0.005) -> str:
    """MJCF text: free chassis, hinges pitch_0, roll_0 .. pitch_3, roll_3; a drive on each, then four thrusters (N)."""
    world = f"""
    <body name="chassis" pos="0 0 1">
      <freejoint name="root"/>
      <geom type="cylinder" size=".1 .015" density="50" material="accent"/>{"".join(map(_rotor, range(4)))}
    </body>"""
    joints = [f"{kind}_{number}" for number in range(4) for kind in ("pitch", "roll")]
    drives = [f'<position name="{joint}" joint="{joint}"/>' for joint in joints]
    thrusters = [
        f'<motor name="thrust_{i}" site="rotor_{i}" gear="0 0 1 0 0 0" ctrlrange="0 {MAX_THRUST}"/>' for i in range(4)
    ]
    return compose("quadcopter", world, block("actuator", drives + thrusters), _DEFAULT, timestep)
