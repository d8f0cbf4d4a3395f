"""A cart and its pole on the stand-in simulator; rewards and resets as the public task documents them."""

import math
import os

import torch
from isaacgym import gymapi, gymtorch

from isaacgymenvs.tasks.vec_task import VecTask

URDF = """<robot name="cartpole">
  <link name="rail"/><link name="cart"/><link name="pole"/>
  <joint name="a_slide" type="prismatic"><parent link="rail"/><child link="cart"/>
    <limit lower="-4" upper="4" effort="1000" velocity="100"/></joint>
  <joint name="b_hinge" type="continuous"><parent link="cart"/><child link="pole"/>
    <limit effort="1000" velocity="8"/></joint>
</robot>
"""


class Cartpole(VecTask):
    """Post-step reset, as the public one."""

    num_obs, num_acts = 4, 1

    def __init__(self, cfg, *args, **kwargs):
        super().__init__(cfg, *args, **kwargs)
        gym = self.gym = gymapi.acquire_gym()
        params = gymapi.SimParams()
        params.dt, params.substeps = cfg["sim"]["dt"], cfg["sim"]["substeps"]
        self.dt = params.dt
        self.sim = gym.create_sim(0, -1, gymapi.SIM_PHYSX, params)
        with open("cartpole.urdf", "w") as file:  # some public tasks write where they stand, too
            file.write(URDF)
        options = gymapi.AssetOptions()
        options.fix_base_link = True
        asset = gym.load_asset(self.sim, os.getcwd(), "cartpole.urdf", options)
        for i in range(self.num_envs):
            env = gym.create_env(self.sim, gymapi.Vec3(), gymapi.Vec3(), 1)
            gym.create_actor(env, asset, gymapi.Transform(), "cartpole", i, 1, 0)
        gym.prepare_sim(self.sim)
        self.dofs = gymtorch.wrap_tensor(gym.acquire_dof_state_tensor(self.sim)).view(self.num_envs, 2, 2)

    def reset_idx(self, ids):
        width = torch.tensor([0.2, 0.5])  # positions within .1, velocities within .25
        self.dofs[ids] = (torch.rand(len(ids), 2, 2) - 0.5) * width
        actors = ids.to(torch.int32)
        states = gymtorch.unwrap_tensor(self.dofs)
        self.gym.set_dof_state_tensor_indexed(self.sim, states, gymtorch.unwrap_tensor(actors), len(actors))
        self.reset_buf[ids] = 0
        self.progress_buf[ids] = 0

    def before_physics(self, actions):
        forces = torch.zeros(self.num_envs, 2)
        forces[:, 0] = 400.0 * actions[:, 0]
        self.gym.set_dof_actuation_force_tensor(self.sim, gymtorch.unwrap_tensor(forces))

    def physics(self):
        self.gym.simulate(self.sim)

    def after_physics(self):
        self.progress_buf += 1
        ids = self.flagged()
        if len(ids):
            self.reset_idx(ids)
        self.gym.refresh_dof_state_tensor(self.sim)
        bound = self.cfg["env"]["clipObservations"]
        self.obs_buf[:] = self.dofs.reshape(self.num_envs, 4).clamp(-bound, bound)
        x, speed, angle, spin = self.obs_buf.unbind(1)
        fallen = (x.abs() > 3.0) | (angle.abs() > math.pi / 2)
        self.rew_buf[:] = torch.where(
            fallen, torch.full_like(x, -2.0), 1 - angle**2 - 0.01 * speed.abs() - 0.005 * spin.abs()
        )
        self.reset_buf[:] = (fallen | (self.progress_buf >= self.max_episode_length - 1)).long()
