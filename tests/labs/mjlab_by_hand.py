"""mjlab's own environment stepped by hand, in the interpreter that has mjlab: what our adapter must say.

python mjlab_by_hand.py <task> <cfg as JSON> <file with actions (steps, N, action_dim)> <file to write> <auto_reset>
"""

import json
import sys

import mjlab.tasks  # noqa: F401 - registers them
import numpy as np
import torch
from mjlab.envs import ManagerBasedRlEnv
from mjlab.tasks.registry import load_env_cfg

task, changes, given, out, auto_reset = sys.argv[1:]
actions = np.load(given)
cfg = load_env_cfg(task)
cfg.episode_length_s = json.loads(changes)["episode_length_s"]
for name, term in json.loads(changes).get("terminations", {}).items():
    cfg.terminations[name].params.update(term["params"])
cfg.scene.num_envs, cfg.seed, cfg.auto_reset = actions.shape[1], 7, auto_reset == "true"
env = ManagerBasedRlEnv(cfg, "cpu")
rows = []


def shown(obs):
    return {group: obs[group].clone().numpy() for group in ("actor", "critic")}


first = shown(env.reset()[0])
for action in actions:
    obs, reward, terminated, time_outs, _ = env.step(torch.from_numpy(action))
    row = {"reward": reward.clone().numpy(), "terminated": terminated.clone().numpy()}
    row["time_outs"], seen = time_outs.clone().numpy(), shown(obs)
    again, over = seen, np.flatnonzero(row["terminated"] | row["time_outs"])
    if len(over) and not cfg.auto_reset:
        again = shown(env.reset(env_ids=torch.from_numpy(over))[0])
    for group, values in seen.items():
        row[f"end_{group}"], row[f"again_{group}"] = values, again[group]
    rows.append(row)
found = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
np.savez(out, **found, **{f"first_{group}": values for group, values in first.items()})
