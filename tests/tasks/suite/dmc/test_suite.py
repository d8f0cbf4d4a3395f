"""What the ports of dm_control's suite do beyond its numbers: repeated actions, saved starts, pictures, refusals."""

import importlib.util

import numpy as np
import pytest
import torch

import tasks
from tasks import starts

pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")
pytest.importorskip("dm_control", reason="dm-control is not installed: pip install .[dmc]")


def actions(env, steps):
    source = torch.Generator().manual_seed(0)
    return [torch.rand(env.num_envs, env.action_dim, generator=source) * 2 - 1 for _ in range(steps)]


def test_a_repeated_action_sums_the_rewards_of_its_steps():
    single = tasks.make("dmc/walker-walk", 3, sim="mujoco", seed=1, threads=1)
    double = tasks.make("dmc/walker-walk", 3, sim="mujoco", seed=1, threads=1, action_repeat=2)
    assert (double.max_episode_steps, double.dt) == (500, 2 * single.dt)
    for action in actions(single, 20):
        one, two, both = single.step(action), single.step(action), double.step(action)
        assert torch.equal(two.next_obs, both.next_obs)
        torch.testing.assert_close(both.reward, one.reward + two.reward, rtol=1e-6, atol=1e-6)


def test_an_episode_of_repeated_actions_is_cut_at_a_thousand_control_steps():
    env = tasks.make("dmc/pendulum-swingup", 2, sim="mujoco", threads=1, action_repeat=500)
    first, second = (env.step(action) for action in actions(env, 2))
    assert not first.truncated.any() and second.truncated.all() and not second.terminated.any()


def test_saved_starts_go_on_as_they_would_have():
    """The next starts, targets included, depend on numpy's generator, which a checkpoint therefore holds."""
    env = tasks.make("dmc/reacher-easy", 3, sim="mujoco", seed=2, threads=1)
    taken = actions(env, 8)
    env._progress[1] = 997  # ends within
    for action in taken[:2]:
        env.step(action)
    saved = env.state_dict()
    expected = [env.step(action) for action in taken[2:]]
    assert expected[0].truncated.tolist() == [False, True, False]
    other = tasks.make("dmc/reacher-easy", 3, sim="mujoco", seed=9, threads=1)
    other.load_state_dict(saved)
    for action, step in zip(taken[2:], expected):
        again = other.step(action)
        assert torch.equal(again.obs, step.obs) and torch.equal(again.reward, step.reward)
    assert torch.equal(env.reset(), other.reset())


def test_only_those_begin_anew_whose_episode_ended():
    env = tasks.make("dmc/fish-swim", 4, sim="mujoco", seed=2, threads=1)
    targets = env.simulator.batch.expand("geom_pos")
    before = targets.copy()
    env._progress[2] = 999
    step = env.step(torch.zeros(4, env.action_dim))
    assert step.truncated.tolist() == [False, False, True, False]
    changed = (targets != before).any((1, 2))
    assert changed.tolist() == [False, False, True, False]
    kept = [0, 1, 3]
    assert torch.equal(step.obs[kept], step.next_obs[kept]) and not torch.equal(step.obs[2], step.next_obs[2])


def test_a_pool_gives_whole_starts(monkeypatch):
    """Positions, targets and the rest of one draw stay together."""
    monkeypatch.setattr(starts, "POOL", 16)
    env = tasks.make("dmc/fish-swim", 64, sim="mujoco", seed=2, threads=1)
    pool = starts.Pool(starts.Drawn(env.task, env.simulator, 7), env._sampler)
    drawn = pool(torch.ones(64, dtype=torch.bool))
    rows = torch.cat((drawn.qpos, drawn.model["geom_pos"].flatten(1)), dim=1).numpy()
    again = starts.Drawn(env.task, env.simulator, 7).many(16)
    known = torch.cat((again.qpos, again.model["geom_pos"].flatten(1)), dim=1).numpy()
    assert 8 < len(np.unique(rows, axis=0)) <= 16
    assert all((row == known).all(1).any() for row in rows)


def test_pictures_are_taken_by_the_models_own_camera():
    env = tasks.make("dmc/pendulum-swingup", 1, sim="mujoco", threads=1)
    try:
        picture = env.render(64, 48)
    except tasks.TaskError as error:
        pytest.skip(str(error))
    assert picture.shape == (48, 64, 3) and picture.std() > 10


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("dmc/cheetah-run", {"action_repeat": 3}, "must divide the 1000"),
        ("dmc/cheetah-run", {"action_repeat": 0}, "must divide the 1000"),
        ("dmc/lqr-lqr_2_1", {"action_repeat": 2}, "must be 1"),
        ("dmc/cheetah-rum", {}, "did you mean dmc/cheetah-run"),
    ],
)
def test_mistakes_are_named_in_one_line(name, options, words):
    with pytest.raises(tasks.TaskError, match=words) as caught:
        tasks.make(name, 1, sim="mujoco", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name, package, extra", [
    ("dmc/cheetah-run", "dm_control", "dm-control|dmc"), ("Hopper-v5", "gymnasium", "gym"),
])  # fmt: skip
def test_a_missing_package_is_named_with_its_remedy(name, package, extra, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda what: None if what == package else find(what))
    with pytest.raises(tasks.TaskError, match=f"{package}, which isn't installed: pip install .*({extra})"):
        tasks.make(name, 1, sim="mujoco")
