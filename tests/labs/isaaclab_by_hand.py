"""Isaac Lab's own environment stepped by hand, in the interpreter that has it: what our adapter must say.

python isaaclab_by_hand.py <cfg as JSON> <file with actions (steps, N, 1)> <file to write>
"""

import json
import os
import sys

import gymnasium
import isaaclab_cartpole  # noqa: F401 - registers the task
import numpy as np
import torch
from isaaclab.app import launch_simulation
from isaaclab_tasks.utils import parse_env_cfg

changes, given, out = sys.argv[1:]
actions = np.load(given)
cfg = parse_env_cfg("Own-Cartpole", device="cpu", num_envs=actions.shape[1])
cfg.seed, cfg.compute_final_obs, cfg.episode_length_s = 7, True, json.loads(changes)["episode_length_s"]
with launch_simulation(cfg):
    env = gymnasium.make("Own-Cartpole", cfg=cfg).unwrapped
    rows, nothing = [], torch.full_like(env.reset()[0]["policy"], float("nan"))
    for action in actions:
        obs, reward, terminated, time_outs, extras = env.step(torch.from_numpy(action))
        shown = {"obs": obs["policy"], "reward": reward, "terminated": terminated, "time_outs": time_outs}
        shown["final_obs"] = extras["final_obs"]["policy"] if "final_obs" in extras else nothing
        rows.append({name: value.clone().numpy() for name, value in shown.items()})
    np.savez(out, **{name: np.stack([row[name] for row in rows]) for name in rows[0]})
    os._exit(0)
