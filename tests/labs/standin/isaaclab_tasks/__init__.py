"""Registers a task that counts."""

import gymnasium
from isaaclab.envs import Cfg, ManagerBasedRLEnv

if "Isaac-Clock" not in gymnasium.registry:
    gymnasium.register(
        "Isaac-Clock",
        entry_point=lambda cfg, **_: ManagerBasedRLEnv(cfg),
        disable_env_checker=True,
        kwargs={"env_cfg_entry_point": Cfg},
    )
