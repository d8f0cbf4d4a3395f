"""Isaac Lab itself, in an interpreter of its own (`make test-isaaclab`): each step against its own, stepped by hand.

Its cartpole, with the robot of tests/labs/isaaclab_cartpole.py: the package's models are downloads.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import tasks
from tasks import TaskError

PYTHON = os.environ.get("ISAACLAB_PYTHON", "")
LABS = Path(__file__).resolve().parents[2] / "labs"
pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="needs ISAACLAB_PYTHON=<an interpreter with isaaclab 3.0.0>"),
    pytest.mark.timeout(1200),  # the first time kernels are compiled, which takes a minute
]
TASK = f"{LABS / 'isaaclab_cartpole.py'}:Own-Cartpole"


def run(actions, cfg):
    """What our environments said: {field of a step: (steps, N, ...)}."""
    env = tasks.make(TASK, actions.shape[1], "isaaclab", "cpu", 7, step_timeout=60.0, python=PYTHON, cfg=cfg)
    try:
        found = []
        for action in actions:
            step = env.step(torch.from_numpy(action))._asdict()
            found.append({name: step[name].clone().numpy() for name in tasks.Step._fields[:6]})
        return {name: np.stack([row[name] for row in found]) for name in found[0]}
    finally:
        env.close()


def test_every_step_equals_isaac_labs_own_stepped_by_hand(tmp_path):
    cfg = {"episode_length_s": 0.25}
    actions = np.random.default_rng(0).uniform(-1, 1, (40, 6, 1)).astype(np.float32)
    np.save(tmp_path / "actions.npy", actions)
    words = [PYTHON, LABS / "isaaclab_by_hand.py", json.dumps(cfg), tmp_path / "actions.npy", tmp_path / "found.npz"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    want, got = np.load(tmp_path / "found.npz"), run(actions, cfg)
    over = want["terminated"] | want["time_outs"]
    assert over.sum() >= 12 and (~over.any(1) & np.isfinite(want["final_obs"][:, 0, 0])).sum() > 10  # left over
    equal = {name: want[name] for name in ("obs", "reward", "terminated")}
    equal["truncated"], equal["valid"] = want["time_outs"] & ~want["terminated"], np.ones_like(over)
    equal["next_obs"] = np.where(over[..., None], want["final_obs"], want["obs"])
    for name, values in equal.items():
        assert np.array_equal(got[name], values), name


def test_time_outs_of_observations_with_a_history_are_not_learned_from():
    cfg = {"episode_length_s": 0.1, "observations": {"policy": {"history_length": 2}}}
    found = run(np.zeros((14, 3, 1), np.float32), cfg)
    assert found["truncated"].sum() == 6 and np.array_equal(found["valid"], ~found["truncated"])


def test_mistakes_are_one_line():
    with pytest.raises(TaskError, match=r"Isaac Lab has no task 'Isaac-Cartpol'; did you mean Isaac-Cartpole\?"):
        tasks.make("Isaac-Cartpol", 2, "isaaclab", "cpu", python=PYTHON)
