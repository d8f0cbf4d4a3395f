#!/usr/bin/env bash
# isaaclab 3.0.0 (torch 2.11, newton 1.6.1), Python 3.12, on a CPU; no GPU and no Isaac Sim is needed. The first time, kernels
# are compiled for a minute. ISAACLAB_PYTHON=<an interpreter that has isaaclab> saves an installation of gigabytes.
#
# With compute_final_obs=True, extras["final_obs"] is to be the terminal observation of an episode that ended within step().
# It is computed by observation_manager.compute(), without update_history=True, "which reads recorded data without advancing
# either buffer". So in a term with history_length > 0 (or a delay) the newest frame in it is the one before: where all terms
# have a history, final_obs is the observation that was acted in, and a time-out bootstraps from its own state. (A term
# without history is right, so that one observation mixes two instants.)
#
# Output seen (episodes of 6 steps; the task is Isaac-Cartpole with a robot of its own, as the package's is a download):
#   history_length 0: 8 ends, final_obs is the observation before the step in 0
#   history_length 2: 8 ends, final_obs is the observation before the step in 8
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
if [ -z "${ISAACLAB_PYTHON:-}" ]; then
  python3.12 -m venv "$folder/venv"
  "$folder/venv/bin/pip" install --quiet --disable-pip-version-check isaaclab==3.0.0
  ISAACLAB_PYTHON="$folder/venv/bin/python"
fi
for history in 0 2; do
  PYTHONPATH="$(dirname "$0")/../tests/labs" TMPDIR="$folder" HISTORY=$history "$ISAACLAB_PYTHON" - <<'EOF' 2>/dev/null | grep history
import os

import isaaclab_cartpole  # registers the task
import torch
from isaaclab.app import launch_simulation
from isaaclab.envs import ManagerBasedRLEnv
from isaaclab_tasks.utils import parse_env_cfg

history = int(os.environ["HISTORY"])
cfg = parse_env_cfg("Own-Cartpole", device="cpu", num_envs=4)
cfg.seed, cfg.compute_final_obs, cfg.episode_length_s = 7, True, 0.1
cfg.observations.policy.history_length = history
with launch_simulation(cfg):
    env = ManagerBasedRLEnv(cfg)
    before, ends, same = env.reset()[0]["policy"].clone(), 0, 0
    for _ in range(12):
        obs, _, terminated, time_outs, extras = env.step(2 * torch.rand(4, 1) - 1)
        over = terminated | time_outs
        if over.any():
            rows = (extras["final_obs"]["policy"] == before).all(1)
            ends, same = ends + int(over.sum()), same + int(rows[over].sum())
        before = obs["policy"].clone()
    print(f"history_length {history}: {ends} ends, final_obs is the observation before the step in {same}", flush=True)
    os._exit(same != (ends if history else 0))
EOF
done
