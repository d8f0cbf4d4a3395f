"""Our ports of dm_control's suite against its own environments: equal seeds, equal actions, equal numbers.

PARITY_STEPS=1010 (make test-parity) compares every task over a whole episode and the next one's start.
"""

import os

import numpy as np
import pytest
import torch

import tasks
from tasks.suite.dmc import TASKS

pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")
STEPS = int(os.environ.get("PARITY_STEPS", 0))
# One of each way to draw starts, look and reward.
SOME = (
    "acrobot-swingup", "ball_in_cup-catch", "cartpole-swingup", "cartpole-balance_sparse", "cartpole-three_poles",
    "cheetah-run", "dog-run", "finger-spin", "finger-turn_hard", "fish-swim", "hopper-hop", "hopper-stand",
    "humanoid-run", "humanoid-stand", "manipulator-bring_ball", "manipulator-insert_peg", "pendulum-swingup",
    "point_mass-hard", "quadruped-walk", "quadruped-fetch", "reacher-hard", "stacker-stack_2", "swimmer-swimmer6",
    "walker-walk",
)  # fmt: skip
NAMES = [name for name in TASKS if not name.startswith("dmc/lqr")] if STEPS else [f"dmc/{name}" for name in SOME]
SEED = 5


def actions(env, steps, seed=0):
    source = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        yield torch.rand(1, env.action_dim, generator=source) * 2 - 1


def controls(env, action):
    """An action in the units of the original, which takes it unclipped."""
    low, high = env.simulator.model.actuator_ctrlrange.T
    unlimited = env.simulator.model.actuator_ctrllimited == 0
    action = action[0].double().numpy()
    return np.where(unlimited, action, (low + high) / 2 + (high - low) / 2 * action)


def flat(step):
    return np.concatenate([np.ravel(part) for part in step.observation.values()])


def assert_rounded(ours, theirs):
    """`ours` is float64 `theirs` rounded to float32; where products were summed in another order, 1 ulp off."""
    np.testing.assert_array_max_ulp(ours.numpy(), theirs.astype(np.float32), maxulp=1)


def assert_same_physics(env, original):
    batch, data = env.simulator.batch, original.physics.data
    for name in ("qpos", "qvel", "act"):
        np.testing.assert_array_equal(batch.bind(name)[0], getattr(data, name), err_msg=name)


def follow(env, original, steps):
    """Step both with the same actions, through the ends of episodes, and compare everything. Returns how many ended."""
    ended = 0
    for action in actions(env, steps):
        step, theirs = env.step(action), original.step(controls(env, action))
        assert_rounded(step.next_obs[0], flat(theirs))
        assert_rounded(step.reward, np.array([theirs.reward]))
        assert bool(step.truncated) == (theirs.last() and theirs.discount == 1)
        assert bool(step.terminated) == (theirs.last() and theirs.discount == 0)
        if theirs.last():
            ended += 1
            assert_rounded(step.obs[0], flat(original.reset()))
        assert_same_physics(env, original)
    return ended


@pytest.mark.parametrize("name", NAMES)
def test_starts_physics_observations_rewards_and_ends_are_dm_controls(name, load):
    env = tasks.make(name, 1, sim="mujoco", seed=SEED, threads=1)
    original = load(*name[4:].split("-", 1), SEED)
    original.reset()  # as ours was reset when it was made: the next draws go on where these stopped
    first, theirs = env.reset(), original.reset()
    assert_same_physics(env, original)
    assert_rounded(first[0], flat(theirs))
    assert follow(env, original, STEPS or 12) == (STEPS > 1000)
    env.close()


@pytest.mark.parametrize("name", ["lqr_2_1", "lqr_6_2"])
def test_a_linear_system_of_dm_controls_own_stiffness_is_its_own(name, load):
    env, original = tasks.make(f"dmc/lqr-{name}", 1, sim="mujoco", seed=0, threads=1), load("lqr", name, SEED)
    original.reset()
    stiffness = original.physics.model.jnt_stiffness
    assert ((stiffness >= 15) & (stiffness <= 25)).all()
    env.simulator.randomize({"jnt_stiffness": torch.as_tensor(np.array(stiffness))[None]})
    with original.physics.reset_context():
        original.physics.data.qpos[:] = env.simulator.batch.qpos[0]
    np.testing.assert_allclose(np.linalg.norm(env.simulator.batch.qpos[0]), 2**0.5)
    assert follow(env, original, 50) == 0


def test_a_linear_system_ends_at_rest():
    task = tasks.get("dmc/lqr-lqr_2_1")()
    env = tasks.make("dmc/lqr-lqr_2_1", 2, sim="mujoco", threads=1)
    task.setup(env.simulator.model, env.device)
    qpos = torch.tensor([[5e-7, 0], [2e-6, 0]], dtype=torch.float64)
    _, ended = task.judge(tasks.State(qpos, 0 * qpos, qpos), qpos, torch.zeros(2, 1), {})
    assert ended.tolist() == [True, False]


def test_each_linear_system_is_another():
    env = tasks.make("dmc/lqr-lqr_2_1", 16, sim="mujoco", seed=3)
    stiffness = env.simulator.batch.expand("jnt_stiffness").reshape(16, -1)[:, :2]
    assert ((stiffness >= 15) & (stiffness <= 25)).all() and len(np.unique(stiffness)) == 32


def test_every_task_of_the_suite_has_its_name_here(load):
    from dm_control import suite

    theirs = {f"dmc/{domain}-{task}" for domain, task in suite.ALL_TASKS}
    assert theirs - TASKS.keys() == {"dmc/quadruped-escape"}
    assert set(TASKS) <= theirs


def test_models_are_dm_controls_field_by_field(load):
    """But for what an episode changes, and for colours."""
    some = "cartpole-three_poles", "swimmer-swimmer15", "stacker-stack_2", "stacker-stack_4"
    for name in (*some, *(("manipulator-insert_peg", "quadruped-walk", "dog-walk", "dog-fetch") if STEPS else ())):
        task = tasks.get(f"dmc/{name}")
        ours = tasks.make(f"dmc/{name}", 1, sim="mujoco", threads=1).simulator.model
        original = load(*name.split("-", 1), SEED).physics.model
        fields = [key for key in dir(ours) if not key.startswith("_") and isinstance(getattr(ours, key), np.ndarray)]
        assert len(fields) > 300
        for key in fields:
            if key not in task.episode_fields and key != "paths":
                np.testing.assert_array_equal(getattr(ours, key), getattr(original, key), err_msg=f"{name} {key}")
