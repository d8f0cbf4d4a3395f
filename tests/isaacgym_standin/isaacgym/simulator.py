"""The simulation: all environments' state, the buffers that tasks see of it, and time."""

import numpy as np
import torch

from isaacgym import physics
from isaacgym.kinematics import Chain
from isaacgym.torch_utils import quat_apply

EXISTING = []
PALM, REACH = 0.05, 0.08  # m: how far below its start a hand holds an object, and how far it may slide on it
SHOVE = 2.0  # 1/s: what a joint's speed does to what lies about, chosen so that hands drop some of their cubes


class Env:
    def __init__(self, sim, index):
        self.sim, self.index = sim, index
        self.actors, self.first = 0, sim.actor_count  # `first`: its first actor's place among all


class Slot:
    """The actors of one place in every environment: they may differ, but not in how many numbers they have."""

    def __init__(self, name):
        self.name = name
        self.kinds, self.poses, self.props, self.shapes, self.masses = [], [], [], [], []
        self.forced = False

    def add(self, asset, pose, shapes):
        if self.kinds and self.kinds[0].layout != asset.layout:
            raise NotImplementedError("actors of one place must agree in their numbers of bodies, dofs and sensors")
        p, r = tuple(pose.p), tuple(pose.r)
        self.kinds.append(asset)
        self.poses.append([*p, *r])
        self.props.append(asset.props.copy())
        self.masses.append([body.mass for body in asset.bodies])
        self.shapes.append(shapes)

    @property
    def kind(self):
        return self.kinds[0]

    def prepare(self, device, rough, dof, body, sensor):
        """Its parts of the environments' tensors, and what its actors are for the physics."""
        kind = self.kind
        self.dofs = slice(dof, dof + len(kind.joints))
        self.bodies = slice(body, body + len(kind.bodies))
        self.sensors = slice(sensor, sensor + len(kind.sensors))
        self.pose = torch.tensor(self.poses, device=device)
        self.chain = Chain(kind, device)
        self.half = torch.tensor([k.half or (0.0, 0.0, 0.0) for k in self.kinds], device=device)
        self.flat = kind.fixed and kind.half is not None and not kind.joints  # a table
        self.ground = torch.zeros(len(self.kinds), device=device)
        self.laid = self.pose[:, :3].clone()  # where a setter last put its root
        self.height = float(self.pose[0, 2]) if not rough else 0.0  # at which a legged robot stands
        self.driven_by_force = False
        self.joints, self.mass = None, None
        self.device = device

    def settle(self):
        """Take up changed properties."""
        if self.joints is None and self.kind.joints:
            self.joints = physics.Joints(np.stack(self.props), self.device)
        if self.mass is None:
            self.mass = torch.tensor(self.masses, device=self.device).sum(1)

    def changed(self):
        self.joints, self.mass = None, None


class Sim:
    """All environments, which hold the same number of actors in the same order.

    Attributes:
        frame: how often `simulate` was called.
        resets: (frame, environment) for every robot whose joints a setter has put somewhere: so a task begins an
            episode, and by that tests keep their own books.
    """

    def __init__(self, params, device):
        self.params, self.device = params, device
        self.envs, self.slots, self.actor_count = [], [], 0
        self.attracted, self.rough, self.prepared = False, False, False
        self.frame, self.resets = 0, []

    def prepare(self):
        """Allocate everything, when a task first asks for a buffer or says that it is done; what then is stays."""
        if self.prepared:
            return
        self.prepared = True
        e, dev = len(self.envs), self.device
        dofs = bodies = sensors = 0
        for slot in self.slots:
            if len(slot.kinds) != e:
                raise NotImplementedError(f"only {len(slot.kinds)} of {e} environments have actor {slot.name}")
            slot.prepare(dev, self.rough, dofs, bodies, sensors)
            dofs, bodies, sensors = slot.dofs.stop, slot.bodies.stop, slot.sensors.stop
        self.actors = len(self.slots)
        self.root = torch.zeros(e, self.actors, 13, device=dev)
        for a, slot in enumerate(self.slots):
            self.root[:, a, :7] = slot.pose
        self.dof = torch.zeros(e, dofs, 2, device=dev)
        for slot in self.slots:  # joints begin at 0 or at the limit next to it
            if slot.kind.joints:
                slot.settle()
                low, high = slot.joints.lower, slot.joints.upper
                self.dof[:, slot.dofs, 0] = torch.zeros_like(low).clamp(low, high)
        self.start = torch.zeros(e, dofs, device=dev)  # where the last setter put the joints
        self.force, self.target = torch.zeros(e, dofs, device=dev), torch.zeros(e, dofs, device=dev)
        self.pushes, self.twists = torch.zeros(e, bodies, 3, device=dev), torch.zeros(e, bodies, 3, device=dev)
        self.states = {
            "root": self.root,
            "dof": self.dof,
            "dof_force": torch.zeros(e, dofs, device=dev),
            "body": torch.zeros(e, bodies, 13, device=dev),
            "contact": torch.zeros(e, bodies, 3, device=dev),
            "sensor": torch.zeros(e, sensors, 6, device=dev),
        }
        self.buffers = {
            name: torch.zeros(state.shape[:-1].numel(), state.shape[-1], device=dev)
            for name, state in self.states.items()
            if name != "dof_force"
        }
        self.buffers["dof_force"] = torch.zeros(e * dofs, device=dev)
        self.place()

    def buffer(self, name):
        self.prepare()
        return self.buffers[name]

    def refresh(self, name):
        self.buffers[name].copy_(self.states[name].reshape(self.buffers[name].shape))

    def place(self):
        """Put the bodies where roots and joints have them: their tensor shows the last `simulate`, not the setters."""
        for a, slot in enumerate(self.slots):
            q, qd = self.dof[:, slot.dofs].unbind(2)
            self.states["body"][:, slot.bodies] = slot.chain.place(self.root[:, a], q, qd)

    def set_root(self, ids, rows):
        """`ids` of actors; rows (n, 13)."""
        self.root.view(-1, 13)[ids] = rows
        for a, slot in enumerate(self.slots):
            mine = ids[ids % self.actors == a] // self.actors
            slot.laid[mine] = self.root[mine, a, :3]
            if self.rough and len(mine):  # robots are made on the ground and then put upon their feet
                slot.height = slot.height or float(self.root[mine[0], a, 2] - slot.pose[mine[0], 2])
                slot.ground[mine] = self.root[mine, a, 2] - slot.height

    def advance(self):
        self.frame += 1
        for slot in self.slots:
            slot.settle()
        dt = self.params.dt / self.params.substeps
        self.states["contact"].zero_()
        self.states["sensor"].zero_()
        for _ in range(self.params.substeps):
            for a, slot in enumerate(self.slots):
                self.move(a, slot, dt)
        self.place()
        self.force.zero_()
        self.pushes.zero_()
        self.twists.zero_()

    def move(self, a, slot, dt):
        """One substep of one place's actors."""
        root, kind, gravity = self.root[:, a], slot.kind, self.params.gravity.z
        q, qd = self.dof[:, slot.dofs].unbind(2)
        force, target = self.force[:, slot.dofs], self.target[:, slot.dofs]
        contact, sensor = self.states["contact"][:, slot.bodies], self.states["sensor"][:, slot.sensors]
        if kind.joints and kind.joints[0].sliding and kind.fixed and len(kind.joints) == 2:
            physics.cartpole(q, qd, force, dt)
            return
        if kind.joints:
            drive = slot.joints.step(q, qd, force, target, dt)
            if slot.forced:
                self.states["dof_force"][:, slot.dofs] = drive
        if kind.fixed or (self.attracted and kind.joints):
            return
        if kind.radius is not None:
            push = physics.ball(root, kind.radius, float(self.slots[0].pose[0, 2]), dt)
            self.states["sensor"][:, :, 2] = -push[:, None] / 3
        elif slot.driven_by_force and kind.joints:
            physics.fly(root, *self.wrench(a, slot), slot.mass, gravity, dt)
        elif kind.joints:
            height = slot.height
            feet, base = physics.legs(root, q, qd, self.start[:, slot.dofs], height, slot.ground, gravity, dt)
            contact[:, 0, 2], contact[:, -1, 2] = base, feet
            if sensor.shape[1]:
                sensor[:, :, 2] = feet[:, None] / sensor.shape[1]
        elif not kind.options.disable_gravity:
            root[:, 7:10] += dt * self.wrench(a, slot)[0] / slot.mass[:, None]
            held = physics.loose(root, self.shelf(a, slot), self.shove(), gravity, dt)
            contact[:, 0, 2] = held * slot.mass

    def wrench(self, a, slot):
        """The forces put on an actor's bodies and their torque about its root, (E, 3) each, in the world."""
        arms = self.states["body"][:, slot.bodies, :3] - self.root[:, a, None, :3]
        pushes = self.pushes[:, slot.bodies]
        return pushes.sum(1), (torch.cross(arms, pushes, dim=2) + self.twists[:, slot.bodies]).sum(1)

    def push(self, forces, torques, local):
        """Forces and torques (E, bodies, 3), or None, for the next `simulate`."""
        turns = self.states["body"][..., 3:7]
        for given, kept in ((forces, self.pushes), (torques, self.twists)):
            if given is not None:
                given = given.reshape(kept.shape)
                kept.copy_(quat_apply(turns, given) if local else given)
        for slot in self.slots:
            slot.driven_by_force |= bool(self.pushes[:, slot.bodies].any())

    def shelf(self, a, slot):
        """How high (E,) a loose body's origin rests: on the ground, on tables, on the hand that it was put into."""
        place = self.root[:, a, :3]
        found = slot.half[:, 2].clone()
        for b, other in enumerate(self.slots):
            away = (place - self.root[:, b, :3]).abs()
            if other.flat:
                top = self.root[:, b, 2] + other.half[:, 2] + slot.half[:, 2]
                over = (away[:, :2] < other.half[:, :2]).all(1) & (place[:, 2] > top - 0.03)
            elif other.kind.fixed and other.kind.joints:
                top = slot.laid[:, 2] - PALM
                over = ((place - slot.laid)[:, :2].norm(dim=1) < REACH) & (place[:, 2] > top - 0.03)
            else:
                continue
            found = torch.where(over, torch.max(found, top), found)
        return found

    def shove(self):
        """What moving fixed robots do to the things that lie about, (E, 2) m/s^2."""
        speeds = [self.dof[:, s.dofs, 1] for s in self.slots if s.kind.fixed and s.kind.joints]
        if not speeds:
            return torch.zeros(len(self.envs), 2, device=self.device)
        every = torch.cat(speeds, dim=1)
        return SHOVE * torch.stack((every[:, 0::2].mean(1), every[:, 1::2].mean(1)), dim=1)
