"""The Shadow hand (Dexterous Hand, right) on its forearm: 24 joints, 20 drives, palm up, with a cube over it.

Kinematics, joint limits, masses, inertias, drives (1 N m/rad, 5 at the wrist), their limits, damping and rotors, and
the tendons that bend a finger's last two joints together, with .14 rad of slack: Shadow Robot's public description as
OpenAI's manipulation environments (Plappert et al. 2018) and with them IsaacGymEnvs' ShadowHand have it. Shapes are our
own capsules at its sizes. As there, gravity pulls at the cube alone.
"""

from __future__ import annotations

import math

from tasks.suite.models import in_hand
from tasks.suite.models.scene import block, compose

SIDE, DENSITY = 0.05, 567.0  # of the cube: .0709 kg
CUBE = (0.0, -0.39, 0.6)  # m, where it begins; its goal is 4 cm below
SHOWN = (-0.2, -0.45, 0.68)  # m, where the goal is shown
FINGERS = ("FF", "MF", "RF", "LF", "TH")
# Each joint's range (rad) and, where a drive is on it, the most that it puts out (N m).
_SPREAD, _BEND = (-0.349, 0.349), (0.0, 1.571)
JOINTS: dict[str, tuple[float, float, float]] = {
    "WRJ1": (-0.489, 0.14, 4.785), "WRJ0": (-0.698, 0.489, 2.175),
    **{
        f"{finger}{joint}": limits
        for finger in FINGERS[:4]
        for joint, limits in (
            *([("J4", (0.0, 0.785, 0.9))] if finger == "LF" else []),
            ("J3", (*_SPREAD, 0.9)), ("J2", (*_BEND, 0.9)), ("J1", (*_BEND, 0.7245)), ("J0", (*_BEND, 0.0)),
        )
    },
    "THJ4": (-1.047, 1.047, 2.3722), "THJ3": (0.0, 1.222, 1.45), "THJ2": (-0.209, 0.209, 0.99),
    "THJ1": (-0.524, 0.524, 0.99), "THJ0": (-1.571, 0.0, 0.81),
}  # fmt: skip
DRIVEN = [name for name, (_, _, most) in JOINTS.items() if most > 0]
_KNUCKLE = {"FF": ".033 0 .095", "MF": ".011 0 .099", "RF": "-.011 0 .095", "LF": "-.017 0 .044"}
# 30 degrees of freedom in six branches: on a CPU a substep takes two thirds of what dense matrices take.
_SPARSE = '<option jacobian="sparse"/>'
_DEFAULT = """
    <geom type="capsule" condim="4" friction="1 .005 .0001" material="pale"/>
    <joint type="hinge" axis="1 0 0" damping=".1" armature=".001"/>
    <site group="4" size=".004"/>
    <default class="wrist"><joint damping=".5" armature=".005"/></default>
"""


def _joint(name: str, axis: str = "1 0 0", kind: str = "") -> str:
    low, high = (math.degrees(limit) for limit in JOINTS[name][:2])
    return f'<joint {kind} name="{name}" axis="{axis}" range="{low} {high}"/>'


def _inertial(mass: float, height: float, moment: float = 1e-5, x: float = 0.0) -> str:
    return f'<inertial mass="{mass}" pos="{x} 0 {height}" diaginertia="{moment} {moment} {moment}"/>'


def _along(length: float, radius: float, touches: str, begin: float = 0.0, x: float = 0.0, shade: str = "pale") -> str:
    """A capsule along a link."""
    return f'<geom fromto="{x} 0 {begin} {x} 0 {begin + length}" size="{radius}" {touches} material="{shade}"/>'


def _finger(name: str) -> str:
    number = FINGERS.index(name)
    meets, cube_alone = in_hand.touches(number, palm=False), in_hand.palm_touches()
    chain = f"""
      <body name="{name}_knuckle" pos="{_KNUCKLE[name]}" gravcomp="1">
        {_joint(f"{name}J3", "0 1 0")}{_inertial(0.008, 0)}
        <body name="{name}_proximal" gravcomp="1">
          {_joint(f"{name}J2")}{_inertial(0.014, 0.023)}{_along(0.045, 0.01, meets)}
          <body name="{name}_middle" pos="0 0 .045" gravcomp="1">
            {_joint(f"{name}J1")}{_inertial(0.012, 0.012)}{_along(0.025, 0.00805, cube_alone)}
            <body name="{name}_distal" pos="0 0 .025" gravcomp="1">
              {_joint(f"{name}J0")}{_inertial(0.01, 0.015)}{_along(0.024, 0.00705, meets, shade="dark")}
              <site name="{name}"/>
            </body>
          </body>
        </body>
      </body>"""
    if name != "LF":
        return chain
    chain = chain.replace(_KNUCKLE[name], "-.017 0 .044")
    return f"""
      <body name="LF_metacarpal" pos="{_KNUCKLE[name]}" gravcomp="1">
        {_joint("LFJ4", ".571 0 .821")}{_inertial(0.075, 0.014, x=-0.014)}
        {_along(0.034, 0.0105, cube_alone, -0.005, -0.0165)}{chain}
      </body>"""


def _thumb() -> str:
    meets, cube_alone = in_hand.touches(4), in_hand.palm_touches()
    return f"""
      <body name="TH_base" pos=".034 -.009 .029" euler="0 45 0" gravcomp="1">
        {_joint("THJ4", "0 0 -1")}{_inertial(0.01, 0)}
        <body name="TH_proximal" gravcomp="1">
          {_joint("THJ3")}{_inertial(0.016, 0.017)}{_along(0.038, 0.013, cube_alone)}
          <body name="TH_hub" pos="0 0 .038" gravcomp="1">
            {_joint("THJ2")}{_inertial(0.002, 0)}
            <body name="TH_middle" gravcomp="1">
              {_joint("THJ1", "0 1 0")}{_inertial(0.016, 0.016)}{_along(0.032, 0.011, cube_alone)}
              <body name="TH_distal" pos="0 0 .032" gravcomp="1">
                {_joint("THJ0", "0 1 0")}{_inertial(0.016, 0.016)}{_along(0.026, 0.00918, meets, shade="dark")}
                <site name="TH"/>
              </body>
            </body>
          </body>
        </body>
      </body>"""


def _sensors() -> list[str]:
    sensors = [f'<actuatorfrc actuator="{name}"/>' for name in DRIVEN]
    for finger in FINGERS:
        of = f'objtype="xbody" objname="{finger}_distal"'
        sensors += [f"<{kind} {of}/>" for kind in ("framepos", "framequat", "framelinvel", "frameangvel")]
    return sensors + [f'<{kind} site="{finger}"/>' for finger in FINGERS for kind in ("force", "torque")]


def mjcf(timestep: float = 1 / 120) -> str:
    """MJCF text: joints WRJ1, WRJ0, FFJ3 .. FFJ0, MF.., RF.., LFJ4 .. LFJ0, THJ4 .. THJ0, then the free cube.

    Drives in the same order on all but FFJ0, MFJ0, RFJ0 and LFJ0. Sensors: the torque of each drive (N m); position,
    quaternion, velocity and angular velocity of each finger's last link; the force and the torque that it passes on.
    """
    palm = in_hand.palm_touches()
    ribs = "".join(_along(0.076, 0.0111, palm, 0.0, -0.0099 + 0.0139 * i) for i in range(4))
    world = f"""
    {in_hand.camera(CUBE)}
    <body name="forearm" pos="0 0 .49" xyaxes="-1 0 0 0 0 -1" gravcomp="1">
      {_inertial(4.0, 0.29, 0.01)}
      {_along(0.2, 0.045, 'contype="0" conaffinity="0"', shade="dark")}
      <body name="wrist" pos="0 0 .256" gravcomp="1">
        {_joint("WRJ1", "0 1 0", 'class="wrist"')}{_inertial(0.3, 0.016, 0.001, 0.003)}
        <geom fromto="-.01 0 0 .01 0 0" size=".02" contype="0" conaffinity="0" material="dark"/>
        <body name="palm" pos="0 0 .034" gravcomp="1">
          {_joint("WRJ0", "1 0 0", 'class="wrist"')}{_inertial(0.3, 0.036, 0.001, 0.006)}
          {ribs}{_along(0.028, 0.0111, palm, 0.0, -0.032)}
          {"".join(map(_finger, FINGERS[:4]))}{_thumb()}
        </body>
      </body>
    </body>{in_hand.cubes(SIDE, DENSITY, CUBE, SHOWN)}"""
    drives = []
    for name in DRIVEN:
        gain, most = 5 if name in ("WRJ1", "WRJ0") else 1, JOINTS[name][2]
        drive = f'joint="{name}" kp="{gain}" forcerange="-{most} {most}" inheritrange="1"'
        drives.append(f'<position name="{name}" {drive}/>')
    coupled = [
        f'<fixed name="{finger}" range="-.001 .001"><joint joint="{finger}J0" coef=".00705"/>'
        f'<joint joint="{finger}J1" coef="-.00805"/></fixed>'
        for finger in FINGERS[:4]
    ]
    blocks = {"tendon": coupled, "actuator": drives, "sensor": _sensors()}
    extra = "\n".join([in_hand.FRICTION, _SPARSE, *(block(tag, lines) for tag, lines in blocks.items())])
    return compose("shadow_hand", world, extra, _DEFAULT, timestep)
