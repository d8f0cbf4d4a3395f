"""Our ports of Gymnasium's MuJoCo tasks against its own environments: one state, the same actions, step by step.

PARITY_STEPS=1010 (make test-parity): over as many steps, through the ends of episodes.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
import torch

import tasks

gymnasium = pytest.importorskip("gymnasium", reason="gymnasium is not installed: pip install .[gym]")
pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4")
pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="the MuJoCo simulator needs Python 3.11")

IDS = [
    "HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Swimmer-v5", "Ant-v5", "Humanoid-v5", "HumanoidStandup-v5",
    "Reacher-v5", "Pusher-v5", "InvertedPendulum-v5", "InvertedDoublePendulum-v5",
]  # fmt: skip
STEPS = int(os.environ.get("PARITY_STEPS", 40))


def begin_alike(ours, theirs):
    """Put Gymnasium's environment where ours begins an episode. Returns what it observes."""
    theirs.reset(seed=0)
    theirs.set_state(ours.simulator.batch.qpos[0].copy(), ours.simulator.batch.qvel[0].copy())
    return theirs._get_obs()


def assert_rounded(ours, theirs):
    """`ours` is float64 `theirs` rounded to float32; where sums were taken in another order, 1 ulp off."""
    np.testing.assert_array_max_ulp(ours.numpy(), np.asarray(theirs, dtype=np.float32), maxulp=1)


@pytest.fixture(params=IDS)
def pair(request):
    """Ours with one environment, and Gymnasium's put into the same state."""
    ours = tasks.make(request.param, 1, sim="mujoco", seed=3, threads=1)
    theirs = gymnasium.make(request.param).unwrapped
    begin_alike(ours, theirs)
    yield ours, theirs
    ours.close()
    theirs.close()


def scaled(theirs, action):
    low, high = theirs.model.actuator_ctrlrange.T  # of its float32 action space these are roundings
    return (low + high) / 2 + (high - low) / 2 * action


def test_physics_observations_rewards_and_ends_are_gymnasiums(pair):
    ours, theirs = pair
    rng = np.random.default_rng(0)
    assert (ours.obs_dim, ours.action_dim) == (theirs.observation_space.shape[0], theirs.action_space.shape[0])
    compared = ends = 0
    for _ in range(STEPS):
        # in a float32's and the simulator's range alike
        action = np.float32(rng.uniform(-1, 1, ours.action_dim)).astype(np.float64)
        step = ours.step(torch.from_numpy(action).float().unsqueeze(0))
        obs, reward, terminated, _, _ = theirs.step(scaled(theirs, action))
        assert_rounded(step.next_obs[0], obs)
        assert_rounded(step.reward, [reward])
        assert bool(step.terminated) == terminated
        if terminated or step.truncated:
            assert_rounded(step.obs[0], begin_alike(ours, theirs))
            ends += 1
            continue
        compared += 1
        np.testing.assert_array_equal(ours.simulator.batch.qpos[0], theirs.data.qpos)
        np.testing.assert_array_equal(ours.simulator.batch.qvel[0], theirs.data.qvel)
    assert compared >= STEPS // 2
    assert ends or STEPS <= 1000


@pytest.mark.parametrize("name", IDS)
def test_starts_lie_where_gymnasiums_lie(name):
    """400 starts each: mean and spread of every observed number within five standard errors."""
    n = 400
    ours, theirs = tasks.make(name, n, sim="mujoco", seed=1, threads=1), gymnasium.make(name).unwrapped
    mine = ours.reset().numpy().astype(np.float64)
    yours = np.stack([theirs.reset(seed=seed)[0] for seed in range(n)])
    spread = np.maximum(yours.std(0), 1e-9)
    error = spread * (2 / n) ** 0.5
    np.testing.assert_array_less(np.abs(mine.mean(0) - yours.mean(0)), 5 * error + 1e-6)
    # the standard error of a standard deviation, for tails no heavier than twice a normal's
    np.testing.assert_array_less(np.abs(mine.std(0) - yours.std(0)), 5 * error + 1e-6)
    ours.close()
    theirs.close()
