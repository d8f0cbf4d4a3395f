"""The Allegro hand (v3, right): three fingers and a thumb of four driven joints each, palm up, with a cube over it.

Kinematics, joint limits and masses: Wonik Robotics' public description of the hand (allegro_hand_ros) as it comes with
IsaacGymEnvs' AllegroHand, which has touch sensors for fingertips. Shapes are our own capsules at its sizes, and a
link's mass is spread over them. Drives: IsaacGymEnvs' AllegroHand, 3 N m/rad, .1 N m s/rad, at most .5 N m, .001 kg m^2
of rotor. As there, gravity pulls at the cube alone.
"""

from __future__ import annotations

import math

from tasks.suite.models import in_hand
from tasks.suite.models.scene import block, compose

SIDE, DENSITY = 0.065, 400.0  # of the cube: .110 kg
CUBE = (0.0, -0.2, 0.56)  # m, where it begins; its goal is 4 cm below
SHOWN = (-0.2, -0.26, 0.64)  # m, where the goal is shown
FINGERS = ("index", "middle", "ring", "thumb")
_FINGER = ((-0.5585, 0.5585), (-0.2792, 1.7278), (-0.2792, 1.7278), (-0.2792, 1.7278))
_THUMB = ((0.2792, 1.5708), (-0.3316, 1.1519), (-0.2792, 1.7278), (-0.2792, 1.7627))
LIMITS = {"index": _FINGER, "middle": _FINGER, "ring": _FINGER, "thumb": _THUMB}  # rad
# Where fingers begin in the palm (m) and how they spread (degrees).
_KNUCKLE = {
    "index": (0.0514302, -0.03632, -5.0), "middle": (0.0537375, 0.0087771, 0.0), "ring": (0.0514302, 0.0538749, 5.0)
}  # fmt: skip
# The palm's frame: x along the fingers, which tilt down by 5.4 degrees, z out of the palm.
_PALM = 'pos="-.0088 -.0824 .5127" xyaxes="0 -.9956 -.0941 1 0 0"'
_DEFAULT = """
    <geom type="capsule" condim="4" friction="1 .01 .0001" material="pale"/>
    <joint type="hinge" axis="0 0 1" armature=".001"/>
    <position kp="3" kv=".1" forcerange="-.5 .5" inheritrange="1"/>
"""


def _joint(finger: str, number: int) -> str:
    low, high = (math.degrees(limit) for limit in LIMITS[finger][number])
    return f'<joint name="{finger}_{number}" range="{low} {high}"/>'


def _link(finger: str, number: int, place: str, mass: float, shapes: list[tuple[str, float]], inner: str = "") -> str:
    """A link in the frame of the one before; its shapes share the mass, and the first of three is a fingertip."""
    touches = in_hand.touches(FINGERS.index(finger)) if number > 0 else in_hand.palm_touches()
    geoms = "".join(
        f'<geom fromto="{ends}" size="{radius}" mass="{mass / len(shapes)}" {touches} '
        f'material="{"pale" if i or len(shapes) < 3 else "dark"}"/>'
        for i, (ends, radius) in enumerate(shapes)
    )
    return f"""
      <body name="{finger}_{number}" {place} gravcomp="1">
        {_joint(finger, number)}
        {geoms}{inner}
      </body>"""


def _flat(begin: float, end: float, pad: float = 0.0098) -> list[tuple[str, float]]:
    """A link's shapes: two capsules side by side, 28 mm wide, for a cube rolls off a round one. `pad`: its front."""
    radius, aside = 0.0085, 0.0057
    y = pad - radius
    return [(f"{begin} {y:.4f} {z} {end} {y:.4f} {z}", radius) for z in (-aside, aside)]


def _finger(name: str) -> str:
    x, y, turn = _KNUCKLE[name]
    sine, cosine = math.sin(math.radians(turn)), math.cos(math.radians(turn))
    tip = [(".036 .003 0 .05 .003 0", 0.012), *_flat(0, 0.03, 0.0085)]
    chain = _link(name, 3, 'pos=".0384 0 0"', 0.0306, tip)
    chain = _link(name, 2, 'pos=".054 0 0"', 0.0355, _flat(0.004, 0.0384), chain)
    chain = _link(name, 1, 'xyaxes="0 0 1 1 0 0"', 0.065, _flat(0, 0.054), chain)
    place = f'pos="{x} {y} -.0113" xyaxes="0 0 1 {sine} {-cosine} 0"'
    return _link(name, 0, place, 0.0119, [("0 -.004 -.005 0 .004 -.005", 0.0098)], chain)


def _thumb() -> str:
    tip = [(".052 .003 0 .065 .003 0", 0.012), *_flat(0, 0.043)]
    chain = _link("thumb", 3, 'pos=".0514 0 0"', 0.0598, tip)
    chain = _link("thumb", 2, 'pos="0 0 .0554" xyaxes="0 0 1 0 -1 0"', 0.038, _flat(0, 0.0514), chain)
    chain = _link("thumb", 1, 'pos=".005 0 0" xyaxes="1 0 0 0 0 1"', 0.0119, [("0 0 .045 0 0 .055", 0.0115)], chain)
    place = 'pos="-.0367482 -.0081281 -.0295" xyaxes="0 0 1 .0872 .9962 0"'
    return _link("thumb", 0, place, 0.0176, [(".009 0 -.008 .009 -.026 -.008", 0.014)], chain)


def mjcf(timestep: float = 1 / 120) -> str:
    """MJCF text: joints and drives index_0 .. index_3, middle_*, ring_*, thumb_*, then the free cube.

    Sensors: the torque of each drive (N m).
    """
    ribs = "".join(
        f'<geom fromto="-.038 {y:.4f} -.02 .03 {y:.4f} -.02" size=".02" mass=".08308" {in_hand.palm_touches()}/>'
        for y in (-0.028 + 0.01825 * i for i in range(5))
    )
    shade = 'mass="0" contype="0" conaffinity="0" material="dark"'
    world = f"""
    {in_hand.camera(CUBE)}
    <body name="palm" {_PALM} gravcomp="1">
      {ribs}
      <geom type="box" size=".045 .055 .02" pos="-.009 .0085 -.0225" {shade}/>
      <!-- the flange at the wrist is higher than the palm: its edge holds a cube back -->
      <geom fromto="-.07 -.01 .006 -.07 .028 .006" size=".0115" mass="0" {in_hand.palm_touches()} material="dark"/>
      <geom type="cylinder" fromto="-.081 .0088 -.0204 -.058 .0088 -.0204" size=".038" {shade}/>
      <geom fromto="-.1 .0088 -.0204 -.2 .0088 -.0204" size=".038" {shade}/>
      {"".join(map(_finger, FINGERS[:3]))}{_thumb()}
    </body>{in_hand.cubes(SIDE, DENSITY, CUBE, SHOWN)}"""
    joints = [f"{finger}_{number}" for finger in FINGERS for number in range(4)]
    drives = [f'<position name="{joint}" joint="{joint}"/>' for joint in joints]
    sensors = [f'<actuatorfrc actuator="{joint}"/>' for joint in joints]
    # What a link never meets, or always does: the palm before it, and a thumb's base, which is within the palm.
    apart = [("palm", f"{finger}_{number}") for finger in FINGERS for number in (0, 1)]
    contacts = [f'<exclude body1="{one}" body2="{other}"/>' for one, other in apart]
    extra = "\n".join(
        [in_hand.FRICTION, block("contact", contacts), block("actuator", drives), block("sensor", sensors)]
    )
    return compose("allegro_hand", world, extra, _DEFAULT, timestep)
