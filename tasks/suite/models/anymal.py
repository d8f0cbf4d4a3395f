"""ANYmal C: a base on four legs of three driven joints each, 52.1 kg.

Masses, centres, inertias, joint places and limits: ANYbotics' public description (anymal_c, 2020) with its fixed
joints merged, legs made exact mirror images of the left front one (the source's differ by .1 mm). Shapes are our own
primitives at its sizes. Drives: IsaacGymEnvs' Anymal, 85 N m/rad and 2 N m s/rad, at most 80 N m.
"""

from __future__ import annotations

from tasks.suite.models.scene import block, compose

LEGS = {"LF": (1, 1), "LH": (-1, 1), "RF": (1, -1), "RH": (-1, -1)}  # signs of x and y
JOINTS = ("HAA", "HFE", "KFE")  # hip about x, hip about y, knee about y
# Standing feet must not creep: with pyramidal cones and MuJoCo's default ratio they gave way by 4 cm in 10 s.
_FRICTION = '<option cone="elliptic" impratio="100"/>'
# As in the source the robot touches the floor and not itself.
_DEFAULT = """
    <geom type="capsule" contype="0" conaffinity="1" condim="3" friction="1 .05 .05" material="pale"/>
    <site type="box" group="4" rgba="0 0 0 0"/>
    <position kp="85" kv="2" forcerange="-80 80"/>
"""


def _inertia(mass: float, centre: tuple, full: tuple, sx: int = 1, sy: int = 1) -> str:
    """A body's inertia about its centre (kg, m, kg m^2; xx yy zz xy xz yz), mirrored."""
    x, y, z = centre
    xx, yy, zz, xy, xz, yz = full
    return (
        f'<inertial mass="{mass}" pos="{x * sx} {y * sy} {z}" '
        f'fullinertia="{xx} {yy} {zz} {xy * sx * sy} {xz * sx} {yz * sy}"/>'
    )


def _leg(name: str, sx: int, sy: int) -> str:
    inward, outward = (-41.253, 28.075) if sy > 0 else (-28.075, 41.253)  # -.72 and .49 rad
    hip = 2.781, (0.0567, 0.017394, -0.000461), (0.0032955, 0.004939, 0.005834, -4.48e-5, -9.9e-5, 1.3581e-4)
    thigh = 3.071, (0, 0.030815, -0.245696), (0.029904, 0.029564, 0.0048611, 0, 0, 0.0041424)
    shank = 0.58842, (0.061253, 0.005462, -0.08066), (0.0088104, 0.010161, 0.0015498, 5.3571e-5, 0.0018194, -2.266e-5)
    return f"""
      <body name="{name}_HIP" pos="{0.2999 * sx} {0.104 * sy} 0">
        <joint name="{name}_HAA" axis="1 0 0" range="{inward} {outward}"/>
        {_inertia(*hip, sx, sy)}
        <geom fromto="{0.0599 * sx} {-0.02 * sy} 0 {0.0599 * sx} {0.05 * sy} 0" size=".05" material="dark"/>
        <body name="{name}_THIGH" pos="{0.0599 * sx} {0.08381 * sy} 0">
          <joint name="{name}_HFE" axis="0 1 0" range="-540 540"/>
          {_inertia(*thigh, sx, sy)}
          <geom fromto="0 {0.03 * sy} 0 0 {0.03 * sy} -.25" size=".045"/>
          <geom fromto="0 0 -.285 0 {0.06 * sy} -.285" size=".05" material="dark"/>
          <site name="{name}_THIGH" pos="0 {0.03 * sy} -.14" size=".2 .2 .3"/>
          <body name="{name}_SHANK" pos="0 {0.1003 * sy} -.285">
            <joint name="{name}_KFE" axis="0 1 0" range="-540 540"/>
            {_inertia(*shank, sx, sy)}
            <geom fromto="{0.08 * sx} {0.01305 * sy} -.03 {0.08795 * sx} {0.01305 * sy} -.29" size=".0175"/>
            <geom type="sphere" pos="{0.08795 * sx} {0.01305 * sy} -.31547" size=".03" material="accent"/>
          </body>
        </body>
      </body>"""


def mjcf(timestep: float = 0.01) -> str:
    """MJCF text: free base, joints and drives LF_HAA, LF_HFE, LF_KFE, LH_*, RF_*, RH_*.

    Sensors: normal force on the base and on each thigh (N), then the torque of each drive (N m).
    """
    base = 26.37317, (-0.017794, -0.000178, 0.008504), (0.21671, 1.7852, 1.8337, 0.0092238, 0.058933, -1.6378e-4)
    world = f"""
    <body name="base" pos="0 0 .62">
      <freejoint name="root"/>
      {_inertia(*base)}
      <geom type="box" size=".41 .14 .09" material="dark"/>
      <geom type="box" size=".0575 .15 .09" pos=".467 0 0" material="accent"/>
      <geom type="box" size=".0575 .15 .09" pos="-.467 0 0" material="accent"/>
      <site name="base" size=".7 .4 .3"/>{"".join(_leg(name, *signs) for name, signs in LEGS.items())}
    </body>"""
    joints = [f"{leg}_{joint}" for leg in LEGS for joint in JOINTS]
    drives = [f'<position name="{joint}" joint="{joint}"/>' for joint in joints]
    sensors = [f'<touch site="{site}"/>' for site in ("base", *(f"{leg}_THIGH" for leg in LEGS))]
    sensors += [f'<actuatorfrc actuator="{joint}"/>' for joint in joints]
    extra = "\n".join([_FRICTION, block("actuator", drives), block("sensor", sensors)])
    return compose("anymal", world, extra, _DEFAULT, timestep)
