"""What all tasks share, with the habits of IsaacGymEnvs' base class: live buffers, `reset` that resets nothing."""

import torch


class VecTask:
    """A task defines `num_obs`, `num_acts`, `before_physics`, `physics`, `after_physics` and `reset_idx`."""

    control_freq_inv = 1

    def __init__(self, cfg, rl_device, sim_device, graphics_device_id, headless, virtual_screen_capture, force_render):
        assert headless and not force_render and not virtual_screen_capture
        self.cfg, self.device = cfg, rl_device
        self.num_envs, self.max_episode_length = cfg["env"]["numEnvs"], cfg["env"]["episodeLength"]
        n = self.num_envs
        self.obs_buf = torch.zeros(n, self.num_obs)
        self.rew_buf = torch.zeros(n)
        self.reset_buf = torch.ones(n, dtype=torch.long)
        self.progress_buf = torch.zeros(n, dtype=torch.long)
        self.num_states = cfg["env"].get("numStates", 0)
        self.obs_dict, self.extras = {}, {}

    def reset(self):
        return self.seen()

    def seen(self):
        self.obs_dict["obs"] = self.obs_buf
        if self.num_states:
            self.obs_dict["states"] = -self.obs_buf[:, : self.num_states]
        return self.obs_dict

    def step(self, actions):
        self.before_physics(actions)
        self.physics()
        self.after_physics()
        self.extras["time_outs"] = (self.progress_buf >= self.max_episode_length - 1) & (self.reset_buf != 0)
        return self.seen(), self.rew_buf, self.reset_buf, self.extras

    def before_physics(self, actions):
        pass

    def flagged(self):
        """Whose reset is due, as ids."""
        return self.reset_buf.nonzero().flatten()
