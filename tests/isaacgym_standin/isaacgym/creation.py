"""`Gym`, first part: simulations, assets, environments."""

import os
import xml.etree.ElementTree as ElementTree

import torch

from isaacgym import assets, mjcf, urdf
from isaacgym.gymapi import RigidShapeProperties, TendonProperties
from isaacgym.simulator import EXISTING, Env, Sim


class Creation:
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

    def add_triangle_mesh(self, sim, vertices, triangles, params):
        if len(vertices) != 3 * params.nb_vertices or len(triangles) != 3 * params.nb_triangles:
            raise ValueError("the mesh has another number of vertices or triangles than its parameters say")
        sim.rough = True

    # --- assets

    def load_asset(self, sim, root, file, options):
        path = os.path.join(root, file) if root else file
        element = ElementTree.parse(path).getroot()
        asset = (mjcf if element.tag == "mujoco" else urdf).read(path, options, element)
        return self._shaped(asset)

    def create_sphere(self, sim, radius, options):
        return self._shaped(assets.primitive("sphere", (radius,), options))

    def create_box(self, sim, width, height, depth, options):
        return self._shaped(assets.primitive("box", (width / 2, height / 2, depth / 2), options))

    @staticmethod
    def _shaped(asset):
        asset.shape_props = [RigidShapeProperties() for body in asset.bodies for _ in range(body.shapes)]
        asset.tendon_props = [TendonProperties() for _ in asset.tendons]
        return asset

    def get_asset_dof_count(self, asset):
        return len(asset.joints)

    def get_asset_joint_count(self, asset):
        return len(asset.joints)

    def get_asset_dof_names(self, asset):
        return asset.dof_names

    def find_asset_dof_index(self, asset, name):
        return asset.dof_names.index(name) if name in asset.dof_names else -1

    def get_asset_dof_properties(self, asset):
        return asset.props.copy()

    def get_asset_rigid_body_count(self, asset):
        return len(asset.bodies)

    def get_asset_rigid_body_names(self, asset):
        return asset.body_names

    def get_asset_rigid_body_name(self, asset, index):
        return asset.bodies[index].name

    def find_asset_rigid_body_index(self, asset, name):
        return asset.body_names.index(name) if name in asset.body_names else -1

    def get_asset_rigid_shape_count(self, asset):
        return len(asset.shape_props)

    def get_asset_rigid_shape_properties(self, asset):
        return _copies(asset.shape_props)

    def set_asset_rigid_shape_properties(self, asset, props):
        asset.shape_props = _copies(props)
        return True

    def get_asset_actuator_count(self, asset):
        return len(asset.motors)

    def get_asset_actuator_joint_name(self, asset, index):
        return asset.motors[index][0]

    def get_asset_actuator_properties(self, asset):
        return [type("Actuator", (), {"motor_effort": effort})() for _, effort in asset.motors]

    def get_asset_tendon_count(self, asset):
        return len(asset.tendons)

    def get_asset_tendon_name(self, asset, index):
        return asset.tendons[index]

    def get_asset_tendon_properties(self, asset):
        return _copies(asset.tendon_props)

    def set_asset_tendon_properties(self, asset, props):
        asset.tendon_props = _copies(props)
        return True

    def create_asset_force_sensor(self, asset, body, pose, props=None):
        asset.sensors.append(body)
        return len(asset.sensors) - 1

    # --- environments

    def create_env(self, sim, lower, upper, per_row):
        sim.envs.append(Env(sim, len(sim.envs)))
        return sim.envs[-1]

    def begin_aggregate(self, env, max_bodies, max_shapes, self_collisions):
        return True

    def end_aggregate(self, env):
        return True


def _copies(props):
    """New objects of the same fields: what a getter gives is the caller's."""
    found = []
    for prop in props:
        new = type(prop).__new__(type(prop))
        new.__dict__.update(prop.__dict__)
        found.append(new)
    return found
