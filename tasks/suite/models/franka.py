"""The Franka Emika Panda: seven joints and a two-finger gripper, 16.8 kg, on which gravity does not act.

Kinematics (Craig's convention), joint limits, torques, fingers and gripper: Franka Emika's documentation (FCI, "Robot
and interface specifications") and its public franka_ros description. Masses, centres and inertias of the links: Gaz et
al. 2019, "Dynamic Identification of the Franka Emika Panda Robot With Retrieval of Feasible Parameters". Shapes are
our own. Motors' inertia as seen at the joints, .1 kg m^2, and friction, 1 N m s/rad, are round figures.

Gravity is compensated body by body: the source's robot has none, and the real one's controller adds its weight.
"""

from __future__ import annotations

TORQUES = (87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0)  # N m
HOME = (0.0, 0.1963, 0.0, -2.618, 0.0, 2.9416, 0.7854)  # IsaacGymEnvs' FrankaCubeStack; the gripper points down
TIP = 0.1034  # m from the hand's frame to the middle between the fingertips
OPEN = 0.04  # m that a finger moves
# m by which a cube that begins on a surface lies in it: with none, rounding decides whether it touches at first.
SUNK = 1e-4
# radians; the model's compiler takes degrees
LIMITS = (
    (-2.8973, 2.8973), (-1.7628, 1.7628), (-2.8973, 2.8973), (-3.0718, -0.0698), (-2.8973, 2.8973), (-0.0175, 3.7525),
    (-2.8973, 2.8973),
)  # fmt: skip
# place in the frame before (m, degrees); mass (kg), centre (m), inertia about it (kg m^2; xx yy zz xy xz yz); shapes
_LINKS = (
    ("0 0 .333", "0 0 0", 4.970684, ".003875 .002081 -.04762",
     ".70337 .70661 .0091170 -.000139 .0067720 .019169", ["0 0 -.19 0 0 -.05"]),
    ("0 0 0", "-90 0 0", 0.646926, "-.003141 -.02872 .003495",
     ".0079620 .028110 .025995 -.0039250 .010254 .00070400", ["0 0 -.06 0 0 .06", "0 -.05 0 0 -.15 0"]),
    ("0 -.316 0", "90 0 0", 3.228604, ".027518 .039252 -.066502",
     ".037242 .036155 .010830 -.0047610 -.011396 -.012805", ["0 0 -.12 0 0 -.05", ".0825 .06 0 .0825 -.06 0"]),
    (".0825 0 0", "90 0 0", 3.587895, "-.053170 .104419 .027454",
     ".025853 .019552 .028323 .0077960 -.0013320 .0086410", ["-.0825 .08 0 -.0825 .13 0", "0 0 -.05 0 0 .05"]),
    ("-.0825 .384 0", "-90 0 0", 1.225946, "-.011953 .041065 -.038437",
     ".035549 .029474 .0086270 -.0021170 -.0040370 .00022900", ["0 0 -.23 0 .06 -.12", "0 .06 -.12 0 .06 -.03"]),
    ("0 0 0", "90 0 0", 1.666555, ".060149 -.014117 -.010517",
     ".0019640 .0043540 .0054330 .00010900 -.0011580 .00034100", ["0 0 -.03 0 0 .04", ".088 .02 0 .088 -.02 0"]),
    (".088 0 0", "90 0 0", 0.735522, ".010517 -.004252 .061597",
     ".012516 .010027 .0048150 -.00042800 -.0011960 -.00074100", ["0 0 .03 0 0 .09"]),
)  # fmt: skip
_RADIUS = (0.06, 0.06, 0.055, 0.055, 0.05, 0.045, 0.04)
# What collides: a robot's with the floor (contype 1) and with what is `free`; nothing of it with itself.
ROBOT, FREE, TABLE = (
    'contype="2" conaffinity="1"',
    'contype="4" conaffinity="7"',
    'contype="0" conaffinity="6"',
)
DEFAULT = f"""
    <geom condim="3" friction="1 .05 .005" solref=".01 1"/>
    <motor gear="1"/>
    <default class="robot">
      <geom {ROBOT} material="pale"/>
      <joint armature=".1" damping="1"/>
    </default>
"""
# Elliptic cones and a high ratio: what is gripped, or rests, must not creep.
FRICTION = '<option cone="elliptic" impratio="20"/>'


def _finger(name: str, sign: int, joint: bool) -> str:
    slide = f'<joint name="{name}_finger" type="slide" axis="0 {sign} 0" range="0 {OPEN}" armature=".2" damping="1"/>'
    flat = f'<geom type="box" size=".009 .006 .027" pos="0 {0.0075 * sign} .0268" material="dark"/>'
    # Engines agree on a capsule's contacts with a box to 1e-5; of two boxes they choose other points to push at.
    round_ = f'<geom type="capsule" size=".009" fromto="0 {0.0065 * sign} 0 0 {0.0065 * sign} .0448" material="dark"/>'
    return f"""
      <body name="{name}_finger" pos="0 0 .0584" gravcomp="1">
        {slide if joint else ""}
        <inertial mass=".015" pos="0 {0.01 * sign} .025" diaginertia="2.375e-6 2.375e-6 7.5e-7"/>
        {flat if joint else round_}
        <site name="{name}_tip" pos="0 {0.0015 * sign} .0445" size=".004" group="4"/>
      </body>"""


def arm(pos: str, fingers: bool) -> str:
    """MJCF of the robot: joints joint_1 .. joint_7 and, with `fingers` that move, left_finger and right_finger.

    Sites: tip, between the fingertips and in the hand's axes; left_tip, right_tip. Without, fingers are closed.
    """
    body = f"""
      <body name="hand" pos="0 0 .107" euler="0 0 -45" gravcomp="1">
        <inertial mass=".73" pos="-.01 0 .03" diaginertia=".001 .0025 .0017"/>
        <geom type="capsule" fromto="0 -.07 .035 0 .07 .035" size=".03"/>
        <site name="tip" pos="0 0 {TIP}" size=".005" group="4"/>
        {_finger("left", 1, fingers)}{_finger("right", -1, fingers)}
      </body>"""
    for number in range(7, 0, -1):
        place, turn, mass, centre, inertia, shapes = _LINKS[number - 1]
        low, high = (57.29577951308232 * limit for limit in LIMITS[number - 1])
        geoms = "".join(f'<geom type="capsule" fromto="{shape}" size="{_RADIUS[number - 1]}"/>' for shape in shapes)
        body = f"""
      <body name="link_{number}" pos="{place}" euler="{turn}" gravcomp="1">
        <joint name="joint_{number}" axis="0 0 1" range="{low} {high}"/>
        <inertial mass="{mass}" pos="{centre}" fullinertia="{inertia}"/>
        {geoms}{body}
      </body>"""
    return f"""
    <body name="base" pos="{pos}" childclass="robot">
      <geom type="capsule" fromto="-.05 0 .06 0 0 .06" size=".06" contype="0" conaffinity="0" mass="0"
       material="dark"/>{body}
    </body>"""


def motors() -> list[str]:
    """A motor on each joint of the arm, which takes a torque (N m)."""
    return [
        f'<motor name="joint_{i}" joint="joint_{i}" ctrlrange="{-most} {most}"/>' for i, most in enumerate(TORQUES, 1)
    ]
