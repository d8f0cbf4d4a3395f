"""Physics on an NVIDIA GPU: mujoco-warp behind the Simulator interface. The same code runs on a CPU, for tests.

State is float32 and stays where Warp has it: torch sees the same memory. A control step, and a reset, is one graph.

With pyramidal friction cones float32 wants friction: the error of a step grows as its inverse square, a robot's
positions are good to 2e-6 at 1, 6e-6 at .2 and 7e-3 at .01 (Ant). Elliptic cones don't have this.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import Iterable, Iterator, Sequence

import mujoco
import numpy as np
import torch
import warp as wp
from torch import Tensor

from tasks.errors import TaskError
from tasks.simulators.model import STAGES, ModelSimulator, fitted
from tasks.simulators.warp_graph import WarpGraph, on_torchs_stream
from tasks.task import Start, State, Task

wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)  # else a line for each kernel that it compiles or loads

import mujoco_warp as mjw  # noqa: E402
from mujoco_warp import OverflowType  # noqa: E402

# Contacts that the worlds have memory for, on average, and any one of them for its constraints. Measured over 300 steps
# of 64 worlds, random actions and robots left lying where they fell: at most 12 in a world (Humanoid), 8.6 on average.
CONTACTS_PER_ENV = 24
PATIENCE = 5.0  # seconds after which a user is told what takes so long
# Bits of Data.overflow that mean something was left out; the others say that a solver's iterations ran out.
_LEFT_OUT = wp.constant(int(OverflowType.ALL & ~(OverflowType.ITERATIONS | OverflowType.LS_ITERATIONS)))
_LARGEST = wp.constant(mujoco.mjMAXVAL)
_PLANE, _CAPSULE = wp.constant(int(mujoco.mjtGeom.mjGEOM_PLANE)), wp.constant(int(mujoco.mjtGeom.mjGEOM_CAPSULE))
_UPRIGHT = wp.constant(1e-6)  # a capsule's slope below which no direction in the plane is along it
# The fields of the data that the next step depends on.
_STATE = ("qpos", "qvel", "act", "qacc_warmstart", "time", "ctrl")
# Model fields that set_const derives from others.
_DERIVED = (
    "actuator_acc0", "body_invweight0", "body_subtreemass", "cam_mat0", "cam_pos0", "cam_poscom0", "dof_invweight0",
    "eq_data", "geom_aabb", "geom_rbound", "light_dir0", "light_pos0", "light_poscom0", "tendon_invweight0",
    "tendon_length0",
)  # fmt: skip


def make(
    name: str,
    task: Task,
    num_envs: int,
    device: torch.device,
    seed: int = 0,
    threads: int | None = None,
    contacts_per_env: int | None = None,
) -> WarpSimulator:
    """Simulations of `task`; called by `tasks.make`. They have no use for `threads`."""
    return WarpSimulator(task, num_envs, device, contacts_per_env or CONTACTS_PER_ENV)


class WarpSimulator(ModelSimulator):
    """N worlds of mujoco-warp on one device."""

    in_place = True

    def __init__(self, task: Task, num_envs: int, device: torch.device, contacts_per_env: int = CONTACTS_PER_ENV):
        super().__init__(task, num_envs, torch.empty(0, device=device).device)  # with its index, "cuda" has none
        _demand_warp_on(self.device)
        rows = _other_rows(self.model) + _rows_per_contact(self.model) * contacts_per_env
        try:
            with on_torchs_stream(self.device):
                self.data = mjw.make_data(self.model, num_envs, nconmax=contacts_per_env, njmax=rows)
                self._put_model()
        except (NotImplementedError, ValueError) as error:
            what = " ".join(str(error).split())
            raise TaskError(f"sim=mujoco_warp can't simulate {type(task).__name__}: {what}") from error
        self._views: dict[str, tuple[wp.array, Tensor]] = {}
        self._fields: dict[str, Tensor] = {}
        data = mujoco.MjData(self.model)  # Warp's matrices are not flat, as MuJoCo's are
        self._shapes = {name: getattr(data, name).shape for name in task.reads}
        self._derives = False
        self._forces = bool((self.model.sensor_needstage == mujoco.mjtStage.mjSTAGE_ACC).any())
        with on_torchs_stream(self.device):
            self._mask = wp.zeros(num_envs, dtype=bool)
            self._start_qpos, self._start_qvel = wp.zeros_like(self.data.qpos), wp.zeros_like(self.data.qvel)
            self._diverged = wp.zeros(num_envs, dtype=bool)
            self._overflows = wp.zeros(num_envs, dtype=wp.int64)
            # Once without a graph, for kernels load where they are first launched. TaskEnv then resets everything.
            with _told_if_slow("compiling this model's simulation, which a machine does once, takes a while"):
                self._step()
                self._restart()
                if self.looks:
                    self._look()
            self._overflows.zero_()
        self.step_graph = WarpGraph(self._step, self.device, self, "worlds", "data")
        self.reset_graph = WarpGraph(self._restart, self.device, self, "worlds", "data")
        self.look_graph = WarpGraph(self._look, self.device, self, "worlds", "data")

    def _put_model(self, randomized: Iterable[str] = ()) -> None:
        self.worlds = mjw.put_model(self.model, dict.fromkeys(randomized, self.num_envs))
        self.worlds.opt.warn_overflow = 0  # kernels would print
        self.worlds.callback.contactfilter = _like_the_c_engine

    def _step(self) -> None:
        """The launches of a control step."""
        self.data.overflow.zero_()
        for _ in range(self.substeps):
            mjw.step(self.worlds, self.data)
        if "cfrc_ext" in self.reads:
            mjw.rne_postconstraint(self.worlds, self.data)
        self._bring_up_to_date()
        inputs = [self.data.qpos, self.data.qvel, self.data.ctrl, self.data.overflow]
        wp.launch(_poll, self.num_envs, inputs=inputs, outputs=[self._diverged, self._overflows])

    def _look(self) -> None:
        """The launches that show the starts of episodes. They also touch worlds that are amid one, whose step is over.

        What MuJoCo's mj_forward shows, that is, without actuators, which only activations make push on a start.
        """
        if self._fields:
            self._place_static_geoms()
        if self.stage != STAGES["none"] and not self._forces:
            self._bring_up_to_date()
            return
        flags, solved = self.worlds.opt.disableflags, wp.clone(self.data.qacc_warmstart)
        self.worlds.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_ACTUATION)
        mjw.forward(self.worlds, self.data)
        self.worlds.opt.disableflags = flags
        wp.copy(self.data.qacc_warmstart, solved)

    def _place_static_geoms(self) -> None:
        """mujoco-warp 4.0.0 places geoms that can't move once, when the data are made: do it where fields differ."""
        mjw.kinematics(self.worlds, self.data)
        inputs = [
            self.worlds.geom_bodyid, self.worlds.body_weldid, self.worlds.geom_pos, self.worlds.geom_quat,
            self.data.xpos, self.data.xquat,
        ]  # fmt: skip
        outputs = [self.data.geom_xpos, self.data.geom_xmat]
        wp.launch(_static_geoms, (self.num_envs, self.model.ngeom), inputs=inputs, outputs=outputs)

    def _bring_up_to_date(self) -> None:
        """The launches that bring what depends on positions, and on velocities, to the present state."""
        if self.stage >= STAGES["position"]:
            mjw.fwd_position(self.worlds, self.data)
            mjw.sensor_pos(self.worlds, self.data)
        if self.stage >= STAGES["velocity"]:
            mjw.fwd_velocity(self.worlds, self.data)
            mjw.sensor_vel(self.worlds, self.data)

    def _restart(self) -> None:
        """The launches of a reset."""
        mjw.reset_data(self.worlds, self.data, reset=self._mask)
        inputs = [self._mask, self._start_qpos, self._start_qvel]
        wp.launch(_place, self.num_envs, inputs=inputs, outputs=[self.data.qpos, self.data.qvel])

    def _view(self, name: str) -> Tensor:
        """A field of the data as torch sees it, (N, ...); follows where the array is replaced."""
        array = getattr(self.data, name)
        if name not in self._views or self._views[name][0] is not array:
            empty = 0 in array.shape
            self._views[name] = array, torch.zeros(array.shape, device=self.device) if empty else wp.to_torch(array)
        return self._views[name][1]

    def step(self, ctrl: Tensor) -> tuple[State, Tensor]:
        self._view("ctrl").copy_(ctrl)
        self.advance()
        return self.state(), wp.to_torch(self._diverged)

    def advance(self) -> None:
        self.step_graph()

    def state(self) -> State:
        fields = {name: self._view(name).reshape(self.num_envs, *shape) for name, shape in self._shapes.items()}
        return State(self._view("qpos"), self._view("qvel"), self._view("sensordata"), fields)

    def reset(self, mask: Tensor, start: Start) -> None:
        for mine, given in ((self._mask, mask), (self._start_qpos, start.qpos), (self._start_qvel, start.qvel)):
            wp.to_torch(mine).copy_(given)
        self.reset_graph()
        for name, values in start.more.items():
            _choose(mask, values, self._view(name))
        for name, values in start.model.items():
            _choose(mask, values, self._fields[name])
        if self.looks:
            self.look_graph()

    def metrics(self) -> dict[str, Tensor]:
        return {"contact_overflows": wp.to_torch(self._overflows)}

    def vary(self, names: Sequence[str]) -> None:
        if names:
            model = {name: torch.as_tensor(getattr(self.model, name), device=self.device) for name in names}
            self._own({name: field.expand(self.num_envs, *field.shape) for name, field in model.items()})

    def randomize(self, fields: dict[str, Tensor]) -> None:
        self._own(fields, derive=bool(fields))

    def _own(self, fields: dict[str, Tensor], derive: bool = False) -> None:
        """Give each simulation its own values, and with `derive` of what follows from them."""
        if not fields:
            return
        self._derives = derive
        derived = _DERIVED if derive and fields.keys() & set(mujoco.MjModel._setconst_inputs) else ()
        with on_torchs_stream(self.device):
            try:
                self._put_model({*fields, *self._fields, *derived})
            except ValueError as error:
                raise TaskError(f"sim=mujoco_warp can't give each simulation its own: {error}") from error
            for name, values in {**self._fields, **fields}.items():
                field = wp.to_torch(getattr(self.worlds, name))
                self._fields[name] = field.copy_(fitted(name, values, field.shape))
            if derived:
                mjw.set_const(self.worlds, self.data, restore=False)

    def state_dict(self) -> dict[str, Tensor]:
        state = {name: self._view(name).clone() for name in _STATE}
        state["contact_overflows"] = wp.to_torch(self._overflows).clone()
        return {**state, **{f"model.{name}": field.clone() for name, field in self._fields.items()}}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name in _STATE:
            self._view(name).copy_(state[name])
        wp.to_torch(self._overflows).copy_(state["contact_overflows"])
        self._own({name: state[f"model.{name}"] for name in self._fields}, self._derives)

    def positions(self, index: int) -> np.ndarray:
        return self._view("qpos")[index].cpu().numpy()


@wp.func
def _finite(values: wp.array2d[float], world: int) -> bool:
    """Whether a world's row has neither NaN nor anything that the C engine, too, calls diverged."""
    for i in range(values.shape[1]):  # noqa: SIM110 - a kernel has no generators
        if not wp.abs(values[world, i]) < _LARGEST:
            return False
    return True


@wp.kernel
def _poll(
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    ctrl: wp.array2d[float],
    overflow: wp.array[int],
    diverged: wp.array[bool],
    overflows: wp.array[wp.int64],
):
    """Who diverged (a control that is no number is clamped to one, and would not show), and who left contacts out."""
    world = wp.tid()
    diverged[world] = not (_finite(qpos, world) and _finite(qvel, world) and _finite(ctrl, world))
    if (overflow[world] & _LEFT_OUT) != 0:
        overflows[world] += wp.int64(1)


@wp.kernel
def _place(
    mask: wp.array[bool],
    start_qpos: wp.array2d[float],
    start_qvel: wp.array2d[float],
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
):
    """Write an episode's start where `mask`."""
    world = wp.tid()
    if mask[world]:
        for i in range(qpos.shape[1]):
            qpos[world, i] = start_qpos[world, i]
        for i in range(qvel.shape[1]):
            qvel[world, i] = start_qvel[world, i]


@wp.kernel
def _static_geoms(
    geom_bodyid: wp.array[int],
    body_weldid: wp.array[int],
    geom_pos: wp.array2d[wp.vec3],
    geom_quat: wp.array2d[wp.quat],
    xpos: wp.array2d[wp.vec3],
    xquat: wp.array2d[wp.quat],
    geom_xpos: wp.array2d[wp.vec3],
    geom_xmat: wp.array2d[wp.mat33],
):
    """Where geoms of bodies that are welded to the world are. Warp's quaternions end with w, MuJoCo's begin with it."""
    world, geom = wp.tid()
    body = geom_bodyid[geom]
    if body_weldid[body] == 0:
        turn, own = xquat[world, body], geom_quat[world % geom_quat.shape[0], geom]
        of_body, of_geom = wp.quat(turn[1], turn[2], turn[3], turn[0]), wp.quat(own[1], own[2], own[3], own[0])
        place = geom_pos[world % geom_pos.shape[0], geom]
        geom_xpos[world, geom] = xpos[world, body] + wp.quat_rotate(of_body, place)
        geom_xmat[world, geom] = wp.quat_to_matrix(of_body * of_geom)


@wp.kernel
def _align_frames(
    geom_type: wp.array[int],
    geom_xmat: wp.array2d[wp.mat33],
    contacts: wp.array[int],
    geoms: wp.array[wp.vec2i],
    world: wp.array[int],
    frame: wp.array[wp.mat33],
):
    """Turn a capsule's contact frames with a plane along its axis, however steeply it stands."""
    contact = wp.tid()
    if contact < contacts[0]:
        plane, capsule = geoms[contact][0], geoms[contact][1]
        if plane >= 0 and geom_type[plane] == _PLANE and geom_type[capsule] == _CAPSULE:
            normal = frame[contact][0]
            turn = geom_xmat[world[contact], capsule]
            axis = wp.vec3(turn[0, 2], turn[1, 2], turn[2, 2])
            along = axis - normal * wp.dot(normal, axis)
            if wp.length(along) > _UPRIGHT:
                first = wp.normalize(along)
                frame[contact] = wp.matrix_from_rows(normal, first, wp.cross(normal, first))


def _like_the_c_engine(model: mjw.Model, data: mjw.Data) -> None:
    """Undo two differences of mujoco-warp 4.0.0 from MuJoCo; it calls this between contacts and constraints.

    - Where a capsule stands steeper than 60 degrees on a plane, its contact frames are not along the capsule. A
      pyramidal friction cone is not round, so that friction came out up to sqrt(2) different.
    - The velocity-dependent part of connect and weld constraints (the derivative of their Jacobian) is taken
      from the body velocities of the substep before.
    """
    inputs = [model.geom_type, data.geom_xmat, data.nacon, data.contact.geom, data.contact.worldid]
    wp.launch(_align_frames, data.naconmax, inputs=inputs, outputs=[data.contact.frame])
    if model.neq:
        mjw.com_vel(model, data)


def _choose(mask: Tensor, values: Tensor, field: Tensor) -> None:
    """Write `values` into `field` where `mask`, in place."""
    field.copy_(torch.where(mask.reshape(-1, *[1] * (field.dim() - 1)), values.to(field.dtype), field))


@contextmanager
def _told_if_slow(what: str) -> Iterator[None]:
    """Print a line once it has taken `PATIENCE` seconds."""
    timer = threading.Timer(PATIENCE, print, [f"note: {what}"], {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _demand_warp_on(device: torch.device) -> None:
    wp.init()
    try:
        wp.device_from_torch(device)
    except (IndexError, RuntimeError) as error:
        raise TaskError(
            f"sim=mujoco_warp finds no {device} that Warp can use: its CUDA toolkit ({wp.get_cuda_toolkit_version()}) "
            "needs an NVIDIA driver of 580 or newer"
        ) from error


def _rows_per_contact(model: mujoco.MjModel) -> int:
    """Rows of constraints that one contact can take."""
    largest = max([1, *model.geom_condim, *model.pair_dim])
    if largest == 1 or model.opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC:
        return int(largest)
    return int(2 * (largest - 1))


def _other_rows(model: mujoco.MjModel) -> int:
    """Rows of constraints that are no contacts', at most: equalities, friction in joints and tendons, limits."""
    friction = np.count_nonzero(model.dof_frictionloss) + np.count_nonzero(model.tendon_frictionloss)
    return int(6 * model.neq + friction + np.sum(model.jnt_limited) + 2 * np.sum(model.tendon_limited))
