"""Isaac Lab's manager-based cartpole with a robot and without a ground of its own: the package's are downloads."""

import tempfile
from pathlib import Path

import gymnasium
from isaaclab.utils import configclass
from isaaclab_tasks.core.cartpole.cartpole_manager_env_cfg import CartpoleEnvCfg
from pxr import Gf, Usd, UsdGeom, UsdPhysics


def robot():
    """A pole on a cart on a rail, as a USD file."""
    path = str(Path(tempfile.mkdtemp(), "cartpole.usda"))
    stage = Usd.Stage.CreateNew(path)
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    root = UsdGeom.Xform.Define(stage, "/cartpole").GetPrim()
    stage.SetDefaultPrim(root)
    UsdPhysics.ArticulationRootAPI.Apply(root)
    for name, at, size in (
        ("slider", (0, 0, 0), (0.05, 8, 0.05)), ("cart", (0, 0, 0), (0.2, 0.25, 0.2)),
        ("pole", (0.12, 0, 0.47), (0.04, 0.06, 1.0)),
    ):  # fmt: skip
        body = UsdGeom.Xform.Define(stage, f"/cartpole/{name}")
        body.AddTranslateOp().Set(Gf.Vec3d(*at))
        UsdPhysics.RigidBodyAPI.Apply(body.GetPrim())
        mass = UsdPhysics.MassAPI.Apply(body.GetPrim())
        mass.CreateMassAttr(1.0)
        mass.CreateDiagonalInertiaAttr(Gf.Vec3f(0.05, 0.05, 0.05))
        cube = UsdGeom.Cube.Define(stage, f"/cartpole/{name}/geom")
        cube.CreateSizeAttr(1.0)
        cube.AddScaleOp().Set(Gf.Vec3f(*size))
    UsdPhysics.FixedJoint.Define(stage, "/cartpole/root_joint").CreateBody1Rel().SetTargets(["/cartpole/slider"])
    slide = UsdPhysics.PrismaticJoint.Define(stage, "/cartpole/slider_to_cart")
    hinge = UsdPhysics.RevoluteJoint.Define(stage, "/cartpole/cart_to_pole")
    for joint, first, second, axis, drive in (
        (slide, "slider", "cart", "Y", "linear"), (hinge, "cart", "pole", "X", "angular"),
    ):  # fmt: skip
        joint.CreateBody0Rel().SetTargets([f"/cartpole/{first}"])
        joint.CreateBody1Rel().SetTargets([f"/cartpole/{second}"])
        joint.CreateAxisAttr(axis)
        UsdPhysics.DriveAPI.Apply(joint.GetPrim(), drive).CreateStiffnessAttr(0.0)
    slide.CreateLowerLimitAttr(-4.0)
    slide.CreateUpperLimitAttr(4.0)
    hinge.CreateLocalPos0Attr(Gf.Vec3f(0.12, 0, 0))
    hinge.CreateLocalPos1Attr(Gf.Vec3f(0, 0, -0.47))
    stage.GetRootLayer().Save()
    return path


@configclass
class Cfg(CartpoleEnvCfg):
    def __post_init__(self):
        super().__post_init__()
        self.scene.ground = None
        self.scene.robot.spawn.usd_path = robot()


gymnasium.register(
    "Own-Cartpole",
    entry_point="isaaclab.envs:ManagerBasedRLEnv",
    disable_env_checker=True,
    kwargs={"env_cfg_entry_point": Cfg},
)
