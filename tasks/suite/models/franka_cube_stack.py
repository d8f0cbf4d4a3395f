"""A Panda with a gripper on a stand, a table top, a small cube and a larger one.

Places and sizes: IsaacGymEnvs' FrankaCubeStack. The cubes have the density of water, which is Isaac Gym's default.
Fingers press with up to 70 N, as the real ones, and have a fifth of the source's gain (5000 N/m): with that, MuJoCo's
integrator, which damps a drive's velocity behind the contacts' back, threw cubes about.
"""

from __future__ import annotations

from tasks.suite.models import franka
from tasks.suite.models.scene import block, compose

TABLE = 1.025  # m, height of its surface
SIDE_A, SIDE_B = 0.05, 0.07  # m: .125 kg and .343 kg


def _cube(name: str, side: float, place: float, material: str) -> str:
    return f"""
    <body name="{name}" pos="0 {place} {TABLE + side / 2}">
      <freejoint name="{name}"/>
      <geom type="box" size="{side / 2} {side / 2} {side / 2}" density="1000" {franka.FREE} material="{material}"/>
    </body>"""


def mjcf(timestep: float = 1 / 120) -> str:
    """MJCF text: joint_1 .. joint_7, left_finger, right_finger, free cubes A and B; seven motors, two finger drives.

    The table's surface is a plane: what lies on it can't fall off.
    """
    world = f"""
    <geom name="table" type="plane" size=".6 .6 .05" pos="0 0 {TABLE}" {franka.TABLE} material="dark"/>
    <geom type="box" size=".6 .6 .025" pos="0 0 {TABLE - 0.026}" contype="0" conaffinity="0" material="blue"/>
    <geom type="box" size=".1 .1 .05" pos="-.5 0 {TABLE + 0.05}" contype="0" conaffinity="4" material="dark"/>
    {franka.arm(f"-.45 0 {TABLE + 0.1}", fingers=True)}
    {_cube("A", SIDE_A, -0.1, "accent")}{_cube("B", SIDE_B, 0.1, "pale")}"""
    fingers = [
        f'<position name="{name}" joint="{name}" kp="1000" kv="20" ctrlrange="0 {franka.OPEN}" forcerange="-70 70"/>'
        for name in ("left_finger", "right_finger")
    ]
    extra = "\n".join([franka.FRICTION, block("actuator", franka.motors() + fingers)])
    return compose("franka_cube_stack", world, extra, franka.DEFAULT, timestep)
