"""The humanoid: 13 bodies of capsules, 21 motors. Sizes, ranges, springs and gears: IsaacGymEnvs' nv_humanoid."""

from __future__ import annotations

from tasks.suite.models.scene import block, compose

# joint: gear (N m at full action), range (degrees), stiffness (N m/rad), damping (N m s/rad), armature (kg m^2).
# In the order of degrees of freedom; those of a limb are mirrored to the left side.
_ABDOMEN = {
    "abdomen_z": (67.5, "-45 45", 20, 5, 0.02),
    "abdomen_y": (67.5, "-75 30", 20, 5, 0.01),
    "abdomen_x": (67.5, "-35 35", 10, 5, 0.01),
}
_LEG = {
    "hip_x": (45.0, "-25 5", 10, 5, 0.01),
    "hip_z": (45.0, "-60 35", 10, 5, 0.01),
    "hip_y": (135.0, "-80 20", 20, 5, 0.01),
    "knee": (90.0, "-160 2", 5, 0.1, 0.007),
    "ankle_y": (22.5, "-50 50", 2, 1, 0.006),
    "ankle_x": (22.5, "-50 50", 2, 1, 0.006),
}
_ARM = {
    "shoulder1": (67.5, "-60 60", 10, 5, 0.01),
    "shoulder2": (67.5, "-60 60", 10, 5, 0.01),
    "elbow": (45.0, "-90 50", 2, 1, 0.006),
}
JOINTS = {
    **_ABDOMEN,
    **{f"{side}_{name}": facts for side in ("right", "left") for name, facts in _LEG.items()},
    **{f"{side}_{name}": facts for side in ("right", "left") for name, facts in _ARM.items()},
}
_DEFAULT = """
    <geom type="capsule" condim="1" friction="1 .05 .05" solimp=".9 .99 .003" solref=".0167 1" material="pale"/>
    <joint solimplimit="0 .99 .01"/>
    <motor ctrlrange="-1 1"/>
"""


def _joint(name: str, axis: tuple[float, float, float], pos: str = "0 0 0") -> str:
    _, limits, stiffness, damping, armature = JOINTS[name]
    return (
        f'<joint name="{name}" pos="{pos}" axis="{axis[0]} {axis[1]} {axis[2]}" range="{limits}" '
        f'stiffness="{stiffness}" damping="{damping}" armature="{armature}"/>'
    )


def _leg(side: str) -> str:
    s = -1 if side == "right" else 1  # the sign of y; an axis mirrors as (-s x, y, -s z)
    return f"""
          <body name="{side}_thigh" pos="0 {0.1 * s} -.04">
            {_joint(f"{side}_hip_x", (-s, 0, 0))}
            {_joint(f"{side}_hip_z", (0, 0, -s))}
            {_joint(f"{side}_hip_y", (0, 1, 0))}
            <geom fromto="0 0 0 0 {-0.01 * s} -.34" size=".06" material="blue"/>
            <body name="{side}_shin" pos="0 {-0.01 * s} -.403">
              {_joint(f"{side}_knee", (0, -1, 0), "0 0 .02")}
              <geom fromto="0 0 0 0 0 -.3" size=".049"/>
              <body name="{side}_foot" pos="0 0 -.39">
                {_joint(f"{side}_ankle_y", (0, 1, 0), "0 0 .08")}
                {_joint(f"{side}_ankle_x", (-s, 0, -0.5 * s), "0 0 .08")}
                <geom fromto="-.07 {0.02 * s} 0 .14 {0.04 * s} 0" size=".027" material="accent"/>
                <geom fromto="-.07 0 0 .14 {-0.02 * s} 0" size=".027" material="accent"/>
                <site name="{side}_foot" size=".02" group="4"/>
              </body>
            </body>
          </body>"""


def _arm(side: str) -> str:
    s = -1 if side == "right" else 1
    return f"""
      <body name="{side}_upper_arm" pos="0 {0.17 * s} .06">
        {_joint(f"{side}_shoulder1", (-2 * s, 1, -s))}
        {_joint(f"{side}_shoulder2", (0, -1, -s))}
        <geom fromto="0 0 0 .16 {0.16 * s} -.16" size=".04" material="blue"/>
        <body name="{side}_lower_arm" pos=".18 {0.18 * s} -.18">
          {_joint(f"{side}_elbow", (0, -1, -s))}
          <geom fromto=".01 {-0.01 * s} .01 .17 {-0.17 * s} .17" size=".031"/>
          <geom type="sphere" size=".04" pos=".18 {-0.18 * s} .18" material="accent"/>
        </body>
      </body>"""


def mjcf(timestep: float = 1 / 120) -> str:
    """MJCF text: free torso, joints and actuators in the order of JOINTS; foot sensors, then joint stops."""
    world = f"""
    <body name="torso" pos="0 0 1.34">
      <freejoint name="root"/>
      <geom fromto="0 -.07 0 0 .07 0" size=".07" material="blue"/>
      <geom fromto="-.01 -.06 -.12 -.01 .06 -.12" size=".06" material="blue"/>
      <geom type="sphere" size=".09" pos="0 0 .19"/>
      <body name="lower_waist" pos="-.01 0 -.26">
        {_joint("abdomen_z", (0, 0, 1), "0 0 .065")}
        {_joint("abdomen_y", (0, 1, 0), "0 0 .065")}
        <geom fromto="0 -.06 0 0 .06 0" size=".06" material="dark"/>
        <body name="pelvis" pos="0 0 -.165">
          {_joint("abdomen_x", (1, 0, 0), "0 0 .1")}
          <geom fromto="-.02 -.07 0 -.02 .07 0" size=".09" material="dark"/>{_leg("right")}{_leg("left")}
        </body>
      </body>{_arm("right")}{_arm("left")}
    </body>"""
    motors = [f'<motor name="{name}" joint="{name}" gear="{facts[0]}"/>' for name, facts in JOINTS.items()]
    sensors = [f'<{kind} site="{side}_foot"/>' for side in ("right", "left") for kind in ("force", "torque")]
    sensors += [f'<jointlimitfrc joint="{name}"/>' for name in JOINTS]
    extra = "\n".join([block("actuator", motors), block("sensor", sensors)])
    return compose("humanoid", world, extra, _DEFAULT, timestep)
