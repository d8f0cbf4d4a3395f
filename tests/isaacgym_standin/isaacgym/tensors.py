"""`Gym`, third part: buffers, their refreshes, and setters.

A buffer shows the state of the last refresh, and writing to it moves nothing until a setter is called.
"""

import torch

from isaacgym.gymapi import ENV_SPACE, LOCAL_SPACE
from isaacgym.gymtorch import Handle


class Tensors:
    def prepare_sim(self, sim):
        sim.prepare()
        return True

    def acquire_actor_root_state_tensor(self, sim):
        return Handle(sim.buffer("root"))

    def acquire_dof_state_tensor(self, sim):
        return Handle(sim.buffer("dof"))

    def acquire_dof_force_tensor(self, sim):
        return Handle(sim.buffer("dof_force"))

    def acquire_rigid_body_state_tensor(self, sim):
        return Handle(sim.buffer("body"))

    def acquire_net_contact_force_tensor(self, sim):
        return Handle(sim.buffer("contact"))

    def acquire_force_sensor_tensor(self, sim):
        return Handle(sim.buffer("sensor"))

    def acquire_jacobian_tensor(self, sim, name):
        """(E, bodies - 1, 6, dofs): the fixed base has no row."""
        sim.prepare()
        slot = _robot(sim, name)
        shape = (len(sim.envs), len(slot.kind.bodies) - 1, 6, len(slot.kind.joints))
        slot.jacobian = torch.zeros(shape, device=sim.device)
        self.refresh_jacobian_tensors(sim)
        return Handle(slot.jacobian)

    def acquire_mass_matrix_tensor(self, sim, name):
        """(E, dofs, dofs)."""
        sim.prepare()
        slot = _robot(sim, name)
        dofs = len(slot.kind.joints)
        slot.mass_matrix = torch.zeros(len(sim.envs), dofs, dofs, device=sim.device)
        self.refresh_mass_matrix_tensors(sim)
        return Handle(slot.mass_matrix)

    def refresh_actor_root_state_tensor(self, sim):
        sim.refresh("root")

    def refresh_dof_state_tensor(self, sim):
        sim.refresh("dof")

    def refresh_dof_force_tensor(self, sim):
        sim.refresh("dof_force")

    def refresh_rigid_body_state_tensor(self, sim):
        sim.refresh("body")

    def refresh_net_contact_force_tensor(self, sim):
        sim.refresh("contact")

    def refresh_force_sensor_tensor(self, sim):
        sim.refresh("sensor")

    def refresh_jacobian_tensors(self, sim):
        for slot in sim.slots:
            if hasattr(slot, "jacobian"):
                slot.jacobian.copy_(slot.chain.jacobian()[:, 1:])

    def refresh_mass_matrix_tensors(self, sim):
        for slot in sim.slots:
            if hasattr(slot, "mass_matrix"):
                slot.mass_matrix.copy_(slot.chain.mass_matrix(0.1))

    # --- setters

    def set_actor_root_state_tensor(self, sim, states):
        sim.root.copy_(states.tensor.reshape(sim.root.shape))
        return True

    def set_actor_root_state_tensor_indexed(self, sim, states, indices, count):
        ids = _ids(sim, indices, count)
        sim.set_root(ids, states.tensor.reshape(-1, 13)[ids])
        return True

    def set_dof_state_tensor_indexed(self, sim, states, indices, count):
        new = states.tensor.reshape(sim.dof.shape)
        for rows, part in _parts(sim, indices, count):
            sim.dof[rows, part] = new[rows, part]
            sim.start[rows, part] = new[rows, part, 0]
            sim.resets.extend((sim.frame, row) for row in rows.tolist())
        return True

    def set_dof_actuation_force_tensor(self, sim, forces):
        sim.force.copy_(forces.tensor.reshape(sim.force.shape))
        return True

    def set_dof_actuation_force_tensor_indexed(self, sim, forces, indices, count):
        for rows, part in _parts(sim, indices, count):
            sim.force[rows, part] = forces.tensor.reshape(sim.force.shape)[rows, part]
        return True

    def set_dof_position_target_tensor(self, sim, targets):
        sim.target.copy_(targets.tensor.reshape(sim.target.shape))
        return True

    def set_dof_position_target_tensor_indexed(self, sim, targets, indices, count):
        for rows, part in _parts(sim, indices, count):
            sim.target[rows, part] = targets.tensor.reshape(sim.target.shape)[rows, part]
        return True

    def apply_rigid_body_force_tensors(self, sim, forces, torques, space=ENV_SPACE):
        sim.push(*(given.tensor if given is not None else None for given in (forces, torques)), space == LOCAL_SPACE)
        return True


def _robot(sim, name):
    slot = next(slot for slot in sim.slots if slot.name == name)
    if not slot.kind.fixed:
        raise NotImplementedError("Jacobians and mass matrices here are those of robots with a fixed base")
    return slot


def _ids(sim, handle, count):
    """Actors' indices among all, as they must be given: int32, as many as said, each of an actor there is."""
    ids = handle.tensor
    if ids.dtype != torch.int32:
        raise TypeError(f"actor indices must be int32, not {ids.dtype}")
    if len(ids) != count:
        raise ValueError("the number of indices is not the one given")
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < sim.actor_count:
        raise IndexError("there is no such actor")
    return ids.long()


def _parts(sim, handle, count):
    """[(environments, slice of an environment's joints)] for the robots among the actors named."""
    ids = _ids(sim, handle, count)
    found = []
    for a, slot in enumerate(sim.slots):
        rows = ids[ids % sim.actors == a] // sim.actors
        if len(rows) and slot.kind.joints:
            found.append((rows, slot.dofs))
    return found
