"""isaaclab_tasks.utils, as far as an adapter needs it."""

import gymnasium


def parse_env_cfg(task_name, device=None, num_envs=None):
    cfg = gymnasium.spec(task_name).kwargs["env_cfg_entry_point"]()
    cfg.sim.device, cfg.scene.num_envs = device, num_envs
    return cfg
