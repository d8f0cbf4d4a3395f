"""`Gym`, second part: actors, their places among all, their properties."""

import torch

from isaacgym.creation import _copies
from isaacgym.gymapi import (
    DOMAIN_ACTOR,
    DOMAIN_ENV,
    INVALID_HANDLE,
    Quat,
    RigidBodyProperties,
    Transform,
    Vec3,
)
from isaacgym.kinematics import Chain
from isaacgym.simulator import Slot


class Actors:
    def create_actor(self, env, asset, pose, name, group=-1, filter=-1, segmentation=0):
        sim, index = env.sim, env.actors
        if index == len(sim.slots):
            sim.slots.append(Slot(name))
        sim.slots[index].add(asset, pose, _copies(asset.shape_props))
        env.actors += 1
        sim.actor_count += 1
        return index

    def create_rigid_body_attractor(self, env, props):
        env.sim.attracted = True
        return 0

    # --- places

    def get_sim_actor_count(self, sim):
        return sim.actor_count

    def get_actor_count(self, env):
        return env.actors

    def get_actor_handle(self, env, index):
        return index

    def get_actor_name(self, env, actor):
        return env.sim.slots[actor].name

    def find_actor_handle(self, env, name):
        names = [slot.name for slot in env.sim.slots]
        return names.index(name) if name in names else INVALID_HANDLE

    def get_actor_index(self, env, actor, domain):
        return actor if domain == DOMAIN_ENV else env.first + actor

    def find_actor_index(self, env, name, domain):
        return self.get_actor_index(env, self.find_actor_handle(env, name), domain)

    def find_actor_rigid_body_index(self, env, actor, name, domain):
        names = _kind(env, actor).body_names
        if name not in names:
            return INVALID_HANDLE
        if domain == DOMAIN_ACTOR:
            return names.index(name)
        if domain == DOMAIN_ENV:
            return names.index(name) + sum(len(_kind(env, a).bodies) for a in range(actor))
        raise NotImplementedError("bodies are counted within an actor or an environment")

    def find_actor_rigid_body_handle(self, env, actor, name):
        return self.find_actor_rigid_body_index(env, actor, name, DOMAIN_ENV)

    def find_actor_dof_handle(self, env, actor, name):
        names = _kind(env, actor).dof_names
        return names.index(name) if name in names else INVALID_HANDLE

    def get_actor_joint_dict(self, env, actor):
        """Joint -> its place among all, fixed ones too: the row of the Jacobian where the base is fixed."""
        return {body.link: index - 1 for index, body in enumerate(_kind(env, actor).bodies) if body.link}

    def get_actor_dof_count(self, env, actor):
        return len(_kind(env, actor).joints)

    def get_actor_rigid_body_count(self, env, actor):
        return len(_kind(env, actor).bodies)

    def get_actor_rigid_shape_count(self, env, actor):
        return len(_kind(env, actor).shape_props)

    def get_env_rigid_body_count(self, env):
        return sum(len(_kind(env, a).bodies) for a in range(env.actors))

    def get_env_dof_count(self, env):
        return sum(len(_kind(env, a).joints) for a in range(env.actors))

    def get_sim_dof_count(self, sim):
        return sum(self.get_env_dof_count(env) for env in sim.envs)

    def get_env_origin(self, env):
        return Vec3()

    def get_rigid_transform(self, env, body):
        """A body's pose as its actor was created, in its environment."""
        for slot in env.sim.slots[: env.actors]:
            kind = slot.kinds[env.index]
            if body < len(kind.bodies):
                root = torch.zeros(1, 13)
                root[0, :7] = torch.tensor(slot.poses[env.index])
                still = torch.zeros(1, len(kind.joints))
                pose = Chain(kind, "cpu").place(root, still, still)[0, body].tolist()
                return Transform(Vec3(*pose[:3]), Quat(*pose[3:7]))
            body -= len(kind.bodies)
        raise IndexError("the environment has no such body")

    # --- properties

    def get_actor_dof_properties(self, env, actor):
        return env.sim.slots[actor].props[env.index].copy()

    def set_actor_dof_properties(self, env, actor, props):
        env.sim.slots[actor].props[env.index] = props.copy()
        env.sim.slots[actor].changed()
        return True

    def enable_actor_dof_force_sensors(self, env, actor):
        env.sim.slots[actor].forced = True

    def get_actor_rigid_body_properties(self, env, actor):
        return [RigidBodyProperties(mass) for mass in env.sim.slots[actor].masses[env.index]]

    def set_actor_rigid_body_properties(self, env, actor, props, recompute_inertia=False):
        env.sim.slots[actor].masses[env.index] = [prop.mass for prop in props]
        env.sim.slots[actor].changed()
        return True

    def get_actor_rigid_shape_properties(self, env, actor):
        return _copies(env.sim.slots[actor].shapes[env.index])

    def set_actor_rigid_shape_properties(self, env, actor, props):
        env.sim.slots[actor].shapes[env.index] = _copies(props)
        return True

    def get_actor_tendon_properties(self, env, actor):
        return _copies(_kind(env, actor).tendon_props)

    def set_actor_tendon_properties(self, env, actor, props):
        return True

    def set_actor_scale(self, env, actor, scale):
        return True  # of no consequence to these physics

    def set_rigid_body_color(self, *_):
        pass


def _kind(env, actor):
    return env.sim.slots[actor].kinds[env.index]
