#!/usr/bin/env bash
# mjlab 1.6.0 (mujoco and mujoco-warp 3.11, torch 2.13), Python 3.12, on a CPU; no GPU is needed. The first time, Go1's
# kernels are compiled for a minute. MJLAB_PYTHON=<an interpreter that has mjlab> saves an installation of gigabytes.
#
# With auto_reset=False, reset(env_ids=) returns the observations of ALL environments, and says that others' histories and
# delays are left alone. But what it returns of the others isn't what step() showed a moment before: sim.forward() runs for
# everybody, after which the sensors of contact are of another instant. Positions and velocities are the same. So a loop that takes
# the whole of reset's observations shows its learner, on each step in which anybody ends, feet in the air that stand (and
# with noise, another draw of it). Take the rows that were reset, and keep step()'s for the others.
#
# Output seen (of environments that were not reset; the critic's group, which has no noise):
#   qpos changed by 0, qvel by 0
#   foot_contact changed by 1
#   foot_contact_forces changed by 4.05
set -euo pipefail
if [ -z "${MJLAB_PYTHON:-}" ]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  python3 -m venv "$folder/venv"
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check mjlab==1.6.0
  MJLAB_PYTHON="$folder/venv/bin/python"
fi
"$MJLAB_PYTHON" - <<'EOF' 2>/dev/null | grep -E "changed"
import sys

import mjlab.tasks  # registers them
import torch
from mjlab.envs import ManagerBasedRlEnv
from mjlab.tasks.registry import load_env_cfg

cfg = load_env_cfg("Mjlab-Velocity-Flat-Unitree-Go1")
cfg.scene.num_envs, cfg.seed, cfg.auto_reset = 4, 7, False
cfg.terminations["fell_over"].params["limit_angle"] = 0.06  # some end early, so that resets are partial
env = ManagerBasedRlEnv(cfg, "cpu")
manager = env.observation_manager
names = [n for n, d in zip(manager.active_terms["critic"], manager.group_obs_term_dim["critic"]) for _ in range(d[0])]
largest = dict.fromkeys(("qpos", "qvel", *names), 0.0)
env.reset()
for _ in range(30):
    obs, _, terminated, time_outs, _ = env.step(2 * torch.rand(4, 12) - 1)
    over = (terminated | time_outs).clone()
    if not over.any():
        continue
    before = obs["critic"].clone(), {name: getattr(env.sim.data, name).clone() for name in ("qpos", "qvel")}
    after = env.reset(env_ids=over.nonzero().flatten())[0]["critic"]
    for column, name in enumerate(names):
        change = (after - before[0])[~over, column].abs()
        largest[name] = max(largest[name], float(change.max()) if len(change) else 0.0)
    for name, was in before[1].items():
        change = (getattr(env.sim.data, name) - was)[~over].abs()
        largest[name] = max(largest[name], float(change.max()) if len(change) else 0.0)
print(f"qpos changed by {largest.pop('qpos'):g}, qvel by {largest.pop('qvel'):g}")
for name, change in largest.items():
    if change:
        print(f"{name} changed by {change:.3g}")
sys.exit(largest["foot_contact"] != 1.0)
EOF
