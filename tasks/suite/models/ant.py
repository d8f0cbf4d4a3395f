"""The ant: a sphere on four legs of two links, 8 motors, .911 kg. Sizes and gears: IsaacGymEnvs' nv_ant."""

from __future__ import annotations

from tasks.suite.models.scene import block, compose

GEAR = 15.0  # N m at full action
# name, sign of x, sign of y, ankle axis, ankle range (degrees)
_LEGS = (
    ("front_left", 1, 1, "-1 1 0", "30 100"),
    ("front_right", -1, 1, "1 1 0", "-100 -30"),
    ("left_back", -1, -1, "-1 1 0", "-100 -30"),
    ("right_back", 1, -1, "1 1 0", "30 100"),
)
# The robot's geoms touch the floor but not each other. The margins (this and the floor's) add up to the 2 cm at
# which PhysX begins to look for a contact; MuJoCo pushes from there, so feet rest 2 cm above z = 0.
MARGIN = 0.01
_DEFAULT = """
    <joint armature=".01" damping=".1"/>
    <geom type="capsule" size=".08" density="5" friction="1.5 .1 .1" condim="3" contype="0" conaffinity="1"
     margin="{margin}" material="accent"/>
    <motor ctrlrange="-1 1" gear="{gear}"/>
"""


def _leg(number: int, name: str, sx: int, sy: int, axis: str, ankle_range: str) -> str:
    hip, foot = f"{0.2 * sx} {0.2 * sy} 0", f"{0.4 * sx} {0.4 * sy} 0"
    return f"""
      <geom fromto="0 0 0 {hip}" material="dark"/>
      <body name="{name}_leg" pos="{hip}">
        <joint name="hip_{number}" axis="0 0 1" range="-40 40"/>
        <geom fromto="0 0 0 {hip}"/>
        <body name="{name}_foot" pos="{hip}">
          <joint name="ankle_{number}" axis="{axis}" range="{ankle_range}"/>
          <geom fromto="0 0 0 {foot}" material="{"pale" if sx > 0 else "accent"}"/>
          <site name="{name}_foot" size=".02" group="4"/>
        </body>
      </body>"""


def mjcf(timestep: float = 1 / 120) -> str:
    """MJCF text: free torso, joints and actuators in the order hip_1, ankle_1 .. hip_4, ankle_4, foot sensors."""
    legs = "".join(_leg(number, *leg) for number, leg in enumerate(_LEGS, start=1))
    world = f"""
    <body name="torso" pos="0 0 .44">
      <freejoint name="root"/>
      <geom type="sphere" size=".25" material="dark"/>{legs}
    </body>"""
    joints = [f"{kind}_{number}" for number in range(1, 5) for kind in ("hip", "ankle")]
    motors = [f'<motor name="{joint}" joint="{joint}"/>' for joint in joints]
    sensors = [f'<{kind} site="{leg[0]}_foot"/>' for leg in _LEGS for kind in ("force", "torque")]
    extra = "\n".join([block("actuator", motors), block("sensor", sensors)])
    return compose("ant", world, extra, _DEFAULT.format(gear=GEAR, margin=MARGIN), timestep, MARGIN)
