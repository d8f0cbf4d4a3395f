"""`Gym`: creation of environments, buffers and their refreshes, setters, and time."""


import torch

from isaacgym import assets, physics
from isaacgym.gymtorch import Handle

EXISTING = []


class Env:
    def __init__(self, sim, index):
        self.sim, self.index = sim, index


class Sim:
    """All environments, which hold the same actors in the same order.

    Attributes:
        frame: how often `simulate` was called.
        resets: (frame, environment) for every actor whose state a setter has overwritten: what tests keep their own
            books by.
    """

    def __init__(self, params, device):
        self.params, self.device = params, device
        self.envs, self.kinds, self.poses, self.props, self.forced = [], [], [], [], []
        self.attracted = False
        self.frame, self.resets = 0, []

    def prepare(self):
        e, dev = len(self.envs), self.device
        self.actors = len(self.kinds)
        self.dof_counts = [len(kind.dofs) for kind in self.kinds]
        self.body_counts = [len(kind.bodies) for kind in self.kinds]
        dofs, bodies = sum(self.dof_counts), sum(self.body_counts)
        sensors = sum(len(kind.sensors) for kind in self.kinds)
        # the state, and beside it the buffers that tasks see
        self.root = torch.zeros(e, self.actors, 13, device=dev)
        self.root[:, :, 6] = 1.0
        for a, pose in enumerate(self.poses):
            p, r = pose.p, pose.r
            self.root[:, a, :7] = torch.tensor([p.x, p.y, p.z, r.x, r.y, r.z, r.w])
        self.dof = torch.zeros(e, dofs, 2, device=dev)
        self.start = torch.zeros(e, dofs, device=dev)  # where the last setter put the joints
        self.force, self.target = torch.zeros(e, dofs, device=dev), torch.zeros(e, dofs, device=dev)
        self.joint_force = torch.zeros(e, dofs, device=dev)
        self.contact = torch.zeros(e, bodies, 3, device=dev)
        self.sensor = torch.zeros(e, sensors, 6, device=dev)
        states = {"root": self.root, "dof": self.dof, "dof_force": self.joint_force}
        states.update({"contact": self.contact, "sensor": self.sensor})
        self.states = states
        self.buffers = {
            "root": torch.zeros(e * self.actors, 13, device=dev),
            "dof": torch.zeros(e * dofs, 2, device=dev),
            "dof_force": torch.zeros(e * dofs, device=dev),
            "contact": torch.zeros(e * bodies, 3, device=dev),
            "sensor": torch.zeros(e * sensors, 6, device=dev),
        }
        self.robots = [
            physics.Robot(self.poses[a].p.z, self.props[a], self.root) if self.dof_counts[a] else None
            for a in range(self.actors)
        ]

    def refresh(self, name):
        self.buffers[name].copy_(self.states[name].reshape(self.buffers[name].shape))

    def advance(self):
        self.frame += 1
        dt = self.params.dt / self.params.substeps
        for _ in range(self.params.substeps):
            self.substep(dt)
        self.force.zero_()

    def substep(self, dt):
        at = body = sensor = 0
        tray = self.poses[0].p.z
        for a, kind in enumerate(self.kinds):
            root = self.root[:, a]
            part = slice(at, at + self.dof_counts[a])
            bodies = self.contact[:, body : body + self.body_counts[a]]
            sensors = self.sensor[:, sensor : sensor + len(kind.sensors)]
            if kind.radius is not None:
                push = physics.ball(root, kind.radius, tray, dt)
                self.sensor[:, :, 2] = -push[:, None] / 3
            elif kind.sliding[:1] == [True]:
                q, qd = self.dof[:, part, 0], self.dof[:, part, 1]
                physics.cartpole(q, qd, self.force[:, part], dt)
            else:
                q, qd = self.dof[:, part, 0], self.dof[:, part, 1]
                held = self.attracted or kind.options.fix_base_link
                start, force, target = self.start[:, part], self.force[:, part], self.target[:, part]
                drive, feet, base = self.robots[a].step(root, q, qd, start, force, target, dt, held)
                if self.forced[a]:
                    self.joint_force[:, part] = drive
                bodies.zero_()
                bodies[:, 0, 2] = base
                bodies[:, -1, 2] = feet
                sensors.zero_()
                if sensors.shape[1]:
                    sensors[:, :, 2] = feet[:, None] / sensors.shape[1]
            at += self.dof_counts[a]
            body += self.body_counts[a]
            sensor += len(kind.sensors)


def _ids(sim, handle, count):
    ids = handle.tensor
    if ids.dtype != torch.int32:
        raise TypeError(f"actor indices must be int32, not {ids.dtype}")
    if len(ids) != count:
        raise ValueError("the number of indices is not the one given")
    ids = ids.long()
    sim.resets.extend((sim.frame, int(i)) for i in (ids // sim.actors).tolist())
    return ids


class Gym:
    """What `gymapi.acquire_gym` returns."""

    # --- simulation and assets

    def create_sim(self, compute_device, graphics_device, engine, params):
        if EXISTING:
            raise RuntimeError("a process can hold one simulation only")
        device = f"cuda:{compute_device}" if params.use_gpu_pipeline else "cpu"
        if graphics_device != -1:
            raise RuntimeError("there is no graphics device here")
        EXISTING.append(Sim(params, torch.device(device)))
        return EXISTING[0]

    def add_ground(self, sim, params):
        pass

    def load_asset(self, sim, root, file, options):
        return assets.load(f"{root}/{file}" if root else file, options)

    def create_sphere(self, sim, radius, options):
        return assets.sphere(radius, options)

    def get_asset_dof_count(self, asset):
        return len(asset.dofs)

    def get_asset_joint_count(self, asset):
        return len(asset.dofs)

    def get_asset_dof_names(self, asset):
        return list(asset.dofs)

    def get_asset_dof_properties(self, asset):
        return asset.props.copy()

    def get_asset_rigid_body_count(self, asset):
        return len(asset.bodies)

    def get_asset_rigid_body_names(self, asset):
        return list(asset.bodies)

    def get_asset_rigid_body_name(self, asset, index):
        return asset.bodies[index]

    def find_asset_rigid_body_index(self, asset, name):
        return asset.bodies.index(name) if name in asset.bodies else -1

    def get_asset_actuator_properties(self, asset):
        return [type("Actuator", (), {"motor_effort": effort})() for effort in asset.efforts]

    def create_asset_force_sensor(self, asset, body, pose):
        asset.sensors.append(body)
        return len(asset.sensors) - 1

    # --- environments and actors

    def create_env(self, sim, lower, upper, per_row):
        sim.envs.append(Env(sim, len(sim.envs)))
        return sim.envs[-1]

    def create_actor(self, env, asset, pose, name, group=-1, filter=-1, segmentation=0):
        sim = env.sim
        if env.index == 0:
            sim.kinds.append(asset)
            sim.poses.append(pose)
            sim.props.append(asset.props.copy())
            sim.forced.append(False)
            env.actors = len(sim.kinds)
            return env.actors - 1
        env.actors = getattr(env, "actors", 0) + 1
        if sim.kinds[env.actors - 1] is not asset:
            raise NotImplementedError("environments of this stand-in hold the same actors")
        return env.actors - 1

    def get_actor_dof_properties(self, env, actor):
        return env.sim.props[actor].copy()

    def set_actor_dof_properties(self, env, actor, props):
        env.sim.props[actor] = props.copy()
        return True

    def enable_actor_dof_force_sensors(self, env, actor):
        env.sim.forced[actor] = True

    def find_actor_rigid_body_handle(self, env, actor, name):
        bodies = env.sim.kinds[actor].bodies
        return bodies.index(name) if name in bodies else -1

    def create_rigid_body_attractor(self, env, props):
        env.sim.attracted = True
        return 0

    def set_rigid_body_color(self, *_):
        pass

    # --- buffers

    def prepare_sim(self, sim):
        sim.prepare()
        return True

    def acquire_actor_root_state_tensor(self, sim):
        return Handle(sim.buffers["root"])

    def acquire_dof_state_tensor(self, sim):
        return Handle(sim.buffers["dof"])

    def acquire_dof_force_tensor(self, sim):
        return Handle(sim.buffers["dof_force"])

    def acquire_net_contact_force_tensor(self, sim):
        return Handle(sim.buffers["contact"])

    def acquire_force_sensor_tensor(self, sim):
        return Handle(sim.buffers["sensor"])

    def refresh_actor_root_state_tensor(self, sim):
        sim.refresh("root")

    def refresh_dof_state_tensor(self, sim):
        sim.refresh("dof")

    def refresh_dof_force_tensor(self, sim):
        sim.refresh("dof_force")

    def refresh_net_contact_force_tensor(self, sim):
        sim.refresh("contact")

    def refresh_force_sensor_tensor(self, sim):
        sim.refresh("sensor")

    # --- setters

    def set_actor_root_state_tensor_indexed(self, sim, states, indices, count):
        ids = _ids(sim, indices, count)
        sim.root.view(-1, 13)[ids] = states.tensor.reshape(-1, 13)[ids]
        return True

    def set_dof_state_tensor_indexed(self, sim, states, indices, count):
        new = states.tensor.reshape(sim.dof.shape)
        for a in range(sim.actors):
            ids = _ids(sim, indices, count)
            rows = ids[ids % sim.actors == a] // sim.actors
            part = slice(sum(sim.dof_counts[:a]), sum(sim.dof_counts[: a + 1]))
            sim.dof[rows, part] = new[rows, part]
            sim.start[rows, part] = new[rows, part, 0]
        return True

    def set_dof_actuation_force_tensor(self, sim, forces):
        sim.force.copy_(forces.tensor.reshape(sim.force.shape))
        return True

    def set_dof_position_target_tensor(self, sim, targets):
        sim.target.copy_(targets.tensor.reshape(sim.target.shape))
        return True

    # --- time

    def simulate(self, sim):
        sim.advance()

    def fetch_results(self, sim, wait):
        pass

    def get_frame_count(self, sim):
        return sim.frame

    def get_sim_params(self, sim):
        return sim.params
