"""A helicopter for Mars: a box with two discs that push along their axis, and up to a fifth of that aside; 1.50 kg.

Sizes, densities and gravity: IsaacGymEnvs' Ingenuity, whose locked hinges are none here. Its rotors that turn for show
alone are left out, as their meshes are. (NASA's weighs 1.8 kg.)
"""

from __future__ import annotations

from tasks.suite.models.scene import block, compose, target

GRAVITY = 3.721  # m/s^2
MAX_THRUST = 20.0  # N, of each of two, down as well as up; the whole weighs 5.58 N
LATERAL = 0.2  # of the thrust, along x and along y
_SEPARATION = 0.025  # m, from the lower rotor, in the box's middle, to the upper one
_DEFAULT = """
    <geom contype="0" conaffinity="0"/>
"""  # nothing touches anything: an episode ends before the floor is met


def _rotor(number: int) -> str:
    return f"""
      <body name="rotor_{number}" pos="0 0 {number * _SEPARATION}">
        <geom type="cylinder" size=".15 .005" density="1000" material="{("blue", "dark")[number]}"/>
        <site name="rotor_{number}" size=".005" group="4"/>
      </body>"""


def mjcf(timestep: float = 0.005) -> str:
    """MJCF text: a free chassis; forces (N) of rotor_0 (lower) and rotor_1 along their x, y and z; a target to see."""
    world = f"""
    <body name="chassis" pos="0 0 1">
      <freejoint name="root"/>
      <geom type="box" size=".06 .06 .06" density="50" material="pale"/>{"".join(map(_rotor, range(2)))}
    </body>"""
    world += target('type="sphere" size=".07" material="accent"')
    motors = []
    for number in range(2):
        for axis, most in (("x", LATERAL), ("y", LATERAL), ("z", 1.0)):
            gear = " ".join("1" if axis == other else "0" for other in "xyz")
            limits = f"-{most * MAX_THRUST} {most * MAX_THRUST}"
            where = f'name="{axis}_{number}" site="rotor_{number}"'
            motors.append(f'<motor {where} gear="{gear} 0 0 0" ctrlrange="{limits}"/>')
    extra = f'  <option gravity="0 0 -{GRAVITY}"/>\n' + block("actuator", motors)
    return compose("ingenuity", world, extra, _DEFAULT, timestep)
