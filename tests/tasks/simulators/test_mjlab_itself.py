"""mjlab itself, in an interpreter of its own (`make test-mjlab`): each step against its environment stepped by hand."""

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

PYTHON = os.environ.get("MJLAB_PYTHON", "")
BY_HAND = Path(__file__).resolve().parents[2] / "labs" / "mjlab_by_hand.py"
# the first time a robot's kernels are compiled, which takes a minute
pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="needs MJLAB_PYTHON=<an interpreter with mjlab 1.6.0>"),
    pytest.mark.timeout(1200),
]
CARTPOLE, GO1 = "Mjlab-Cartpole-Balance", "Mjlab-Velocity-Flat-Unitree-Go1"
TILT = {"params": {"limit_angle": 0.06}}
CASES = {  # task -> (environments, steps, action_dim), changes of its configuration, the least number of ends and falls
    CARTPOLE: ((8, 45, 1), {"episode_length_s": 1.0}, 16, 0),
    GO1: ((4, 30, 12), {"episode_length_s": 0.3, "terminations": {"fell_over": TILT}}, 8, 4),
}


@pytest.fixture
def by_hand(tmp_path):
    """`by_hand(task, auto_reset)`: what mjlab's own environment gave, and the actions that it was given."""

    def by_hand(task, auto_reset):
        (envs, steps, dim), changes, *_ = CASES[task]
        actions = np.random.default_rng(0).uniform(-1, 1, (steps, envs, dim)).astype(np.float32)
        np.save(tmp_path / "actions.npy", actions)
        words = [task, json.dumps(changes), tmp_path / "actions.npy", tmp_path / "found.npz", auto_reset]
        done = subprocess.run([PYTHON, str(BY_HAND), *map(str, words)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return np.load(tmp_path / "found.npz"), actions

    return by_hand


def run(task, actions, seed=7):
    """What our environments said: {field of a step: (steps, N, ...)}."""
    env = tasks.make(task, actions.shape[1], "mjlab", "cpu", seed, step_timeout=60.0, python=PYTHON, cfg=CASES[task][1])
    try:
        found = []
        for action in actions:
            step = env.step(torch.from_numpy(action))
            found.append({name: value.clone().numpy() for name, value in step._asdict().items() if name != "info"})
        return {name: np.stack([row[name] for row in found]) for name in found[0]}
    finally:
        env.close()


@pytest.mark.parametrize("task", CASES)
def test_every_step_equals_mjlabs_own_stepped_by_hand(task, by_hand):
    want, actions = by_hand(task, "false")
    got = run(task, actions)
    over, (_, _, ends, falls) = want["terminated"] | want["time_outs"], CASES[task]
    assert over.sum() >= ends and want["terminated"].sum() >= falls
    equal = {"reward": want["reward"], "terminated": want["terminated"], "valid": np.ones_like(over)}
    equal["truncated"] = want["time_outs"] & ~want["terminated"]
    for name, group in (("obs", "actor"), ("critic_obs", "critic")):
        equal[f"next_{name}"] = want[f"end_{group}"]
        equal[name] = np.where(over[..., None], want[f"again_{group}"], want[f"end_{group}"])
    for name, values in equal.items():
        assert np.array_equal(got[name], values), (name, np.abs(1.0 * got[name] - values).max())
    # what a partial reset returns of the others is not what they see
    others = ~over & over.any(1, keepdims=True)
    changed = np.abs(want["again_critic"] - want["end_critic"])[others].max(initial=0)
    print(f"{task}: {over.sum()} ends, {want['terminated'].sum()} falls; partial resets change others by {changed:g}")
    assert (changed >= 1) == (task == GO1)  # its foot_contact
    if task == CARTPOLE:  # draws nothing but its starts, so that mjlab's own reset within the step does the same
        auto, _ = by_hand(task, "true")
        for name, theirs in (("obs", "end_actor"), ("reward", "reward"), ("truncated", "time_outs")):
            assert np.array_equal(got[name], auto[theirs]), name


def test_equal_seeds_give_equal_runs():
    actions = np.zeros((20, 4, 1), np.float32)
    runs = [run(CARTPOLE, actions, seed)["obs"] for seed in (3, 3, 4)]
    assert np.array_equal(runs[0], runs[1]) and not np.array_equal(runs[0], runs[2])


def test_mistakes_are_one_line():
    with pytest.raises(TaskError, match="mjlab has no task 'Mjlab-Cartpole'; did you mean Mjlab-Cartpole-"):
        tasks.make("Mjlab-Cartpole", 2, "mjlab", "cpu", python=PYTHON)
    with pytest.raises(TaskError, match=r"Mjlab-Lift-Cube-Yam-Rgb observes pictures|cannot be made"):
        tasks.make("Mjlab-Lift-Cube-Yam-Rgb", 2, "mjlab", "cpu", python=PYTHON)
