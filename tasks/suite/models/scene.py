"""What every model shares: light, sky, a checkered floor."""

from __future__ import annotations

_SCENE = """
<mujoco model="{name}">
  <compiler angle="degree" autolimits="true"/>
  <option timestep="{timestep}" integrator="implicitfast"/>
  <visual>
    <headlight ambient=".35 .35 .38" diffuse=".45 .45 .45" specular=".1 .1 .1"/>
    <global offwidth="1920" offheight="1080" fovy="40"/>
    <quality shadowsize="4096"/>
    <map znear=".02" zfar="60" shadowclip="4"/>
    <rgba haze=".80 .87 .93 1"/>
  </visual>
  <statistic extent="2" center="0 0 .5"/>
  <asset>
    <texture type="skybox" builtin="gradient" rgb1=".62 .76 .90" rgb2=".93 .95 .97" width="256" height="1536"/>
    <texture name="checker" type="2d" builtin="checker" rgb1=".78 .81 .84" rgb2=".66 .70 .75" width="512" height="512"/>
    <material name="floor" texture="checker" texrepeat="1 1" texuniform="true" reflectance=".08"/>
    <material name="dark" rgba=".16 .19 .24 1" specular=".4" shininess=".5"/>
    <material name="accent" rgba=".90 .42 .16 1" specular=".4" shininess=".5"/>
    <material name="pale" rgba=".90 .88 .84 1" specular=".3" shininess=".4"/>
    <material name="blue" rgba=".20 .46 .72 1" specular=".4" shininess=".5"/>
  </asset>
  <default>
{default}
  </default>
  <worldbody>
    <light directional="true" pos="2 -3 6" dir="-.35 .45 -1" diffuse=".55 .53 .50" specular=".2 .2 .2"
     castshadow="true"/>
    <geom name="floor" type="plane" size="0 0 .5" material="floor" contype="1" conaffinity="0" condim="3"
     friction="1 .05 .05" margin="{margin}"/>
{world}
  </worldbody>
{extra}
</mujoco>
"""


def compose(name: str, world: str, extra: str, default: str, timestep: float, margin: float = 0.0) -> str:
    """MJCF text of a lit scene with a floor at z = 0 around the bodies in `world`.

    Args:
        name: of the model.
        world: bodies, as MJCF elements.
        extra: what follows the world: actuators, sensors, equalities.
        default: the model's default classes.
        timestep: of the physics, seconds.
        margin: at which the floor begins to push (m); MuJoCo adds the other geom's to it.
    """
    return _SCENE.format(
        name=name, world=world, extra=extra, default=default, timestep=timestep, margin=margin
    ).strip()


def target(geom: str) -> str:
    """MJCF of a body "target" that nothing touches, with a geom of these attributes: `Task.shown` puts it somewhere."""
    return f"""
    <body name="target" mocap="true">
      <geom {geom} contype="0" conaffinity="0" mass="0"/>
    </body>"""


def block(tag: str, lines: list[str]) -> str:
    """One MJCF element around others."""
    return "\n".join([f"  <{tag}>", *(f"    {line}" for line in lines), f"  </{tag}>"])
