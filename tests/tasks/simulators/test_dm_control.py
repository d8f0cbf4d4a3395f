"""dm_env environments: a counting world of tests/foreign that knows what is true, and the Control Suite itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import tasks
from tasks import TaskError
from tasks.simulators.worker.errors import Mistake

pytest.importorskip("dm_env", reason="needs dm-control: pip install .[dmc]")
FOREIGN = Path(__file__).resolve().parents[2] / "foreign"
CLOCK = "foreign_envs:dm_clock"


@pytest.fixture
def truth(foreign):
    return foreign.truth()


@pytest.fixture
def share(foreign, monkeypatch):
    """`share(name, num_envs, seed, first, **options)`: a worker's environments, in this process."""
    monkeypatch.syspath_prepend(str(FOREIGN))
    return lambda name, *args, **options: foreign.share("dm_share", name, *args, **options)


@pytest.fixture
def suite():
    pytest.importorskip("dm_control", reason="needs dm-control: pip install .[dmc]")
    from tasks.simulators.worker.dm_share import _import_suite

    return _import_suite()


def rollout(env, steps, seed=0):
    """[(observations acted in, action, step)], with everything copied."""
    source = torch.Generator().manual_seed(seed)
    obs, found = env.reset().clone(), []
    for _ in range(steps):
        action = torch.rand(env.num_envs, env.action_dim, generator=source) * 2 - 1
        step = env.step(action)
        found.append((obs, action, tasks.Step(*(f.clone() if isinstance(f, torch.Tensor) else f for f in step))))
        obs = step.obs.clone()
    return found


@pytest.mark.parametrize("world", ["dict", "array", "soft", "our limit"])
def test_every_step_is_what_its_own_observation_says(truth, share, foreign, world):
    """A discount of 0, or below 1, at the end terminates; a time limit, its own or ours, truncates."""
    env = share(CLOCK, 9, max_episode_steps=truth.LIMIT, **foreign.DM_WORLDS[world])
    assert (env.obs_dim, env.action_dim, env.max_episode_steps) == (4, 2, truth.LIMIT)
    kinds = set()
    for before, action, step in rollout(env, 90):
        assert step.valid.all() and not (step.terminated & step.truncated).any()
        for e in range(9):
            who, episode, age, _ = (int(v) for v in before[e].tolist())
            end, fell, _ = truth.ends_at(who, episode)
            over = age + 1 == end
            assert who == e
            assert bool(step.terminated[e]) == (over and fell)
            assert bool(step.truncated[e]) == (over and not fell)
            assert float(step.reward[e]) == truth.reward_of(who, episode, age + 1)
            assert step.next_obs[e, :3].tolist() == [who, episode, age + 1]
            assert float(step.next_obs[e, 3]) == pytest.approx(truth.done_by(action[e]), abs=1e-4)
            want = [who, episode + 1, 0, 0] if over else step.next_obs[e].tolist()
            assert step.obs[e].tolist() == want
            if over:
                kinds.add((fell, end == truth.LIMIT))
    assert len(kinds) == 4


def test_an_episode_begun_unasked_is_no_transition(share):
    env = share(CLOCK, 4, max_episode_steps=12, restarts=True)
    joined = 0
    for before, _, step in rollout(env, 60):
        unasked = (before[:, 1] == 1) & (before[:, 2] == 1)
        assert torch.equal(~step.valid, unasked)
        assert (step.reward[unasked] == 0).all() and not (step.terminated | step.truncated)[unasked].any()
        assert (step.obs[unasked, 1] == 2).all()
        joined += int(unasked.sum())
    assert joined > 1


@pytest.mark.parametrize(
    "name, options, words",
    [
        (CLOCK, {}, r"no time limit that it tells: give task\.options\.max_episode_steps"),
        (CLOCK, {"action": "unbounded"}, "action space without bounds"),
        (CLOCK, {"action": "array"}, "takes actions of Array: only a BoundedArray"),
        (CLOCK, {"obs": "pixels"}, "observes pictures in 'pixels'"),
        (CLOCK, {"fault": "make", "at": 0}, r"cannot be made: ValueError: three is too many"),
        (CLOCK, {"colour": 3}, r"cannot be made: TypeError: .*colour"),
        ("foreign_envs:dm_clok", {}, "foreign_envs has no function 'dm_clok'"),
        ("no_such_module:make", {}, "plugin 'no_such_module' cannot be imported"),
    ],
)
def test_what_cannot_be_taken_is_one_line_with_the_remedy(share, name, options, words):
    with pytest.raises(Mistake, match=words) as caught:
        share(name, 2, **options)
    assert "\n" not in str(caught.value)


def test_a_name_that_the_suite_lacks_gets_the_nearest(share, suite):
    with pytest.raises(Mistake, match=r"no task 'cartpole-swing_up'; did you mean cartpole-swingup\?"):
        share("cartpole-swing_up", 2)
    with pytest.raises(Mistake, match="lqr-lqr_2_1 has an action space without bounds"):
        share("lqr-lqr_2_1", 2)


def test_steps_are_the_suites_own(share, suite):
    """On one seed and one sequence of actions, over ends of episodes, and with 0-dim observations (head_height)."""
    limit, steps = 0.1, 12  # seconds; 4 control steps of 0.025
    env = share("humanoid-walk", 2, 3, 5, time_limit=limit)
    assert (env.obs_dim, env.action_dim, env.max_episode_steps, env.dt) == (67, 21, 4, 0.025)
    twins = [suite.load("humanoid", "walk", {"random": 8 + index, "time_limit": limit}) for index in range(2)]
    for twin in twins:
        twin.reset()
    firsts = [twin.reset() for twin in twins]  # `rollout` resets too
    for t, (before, action, step) in enumerate(rollout(env, steps)):
        for e, twin in enumerate(twins):
            flat = [np.concatenate([np.ravel(v) for v in firsts[e].observation.values()])]
            assert np.array_equal(before[e].numpy(), flat[0].astype(np.float32))
            found = twin.step(action[e].double().numpy())
            flat = np.concatenate([np.ravel(v) for v in found.observation.values()])
            assert np.array_equal(step.next_obs[e].numpy(), flat.astype(np.float32))
            assert float(step.reward[e]) == np.float32(found.reward)
            assert bool(step.truncated[e]) == found.last() == (t % 4 == 3) and not step.terminated[e]
            firsts[e] = twin.reset() if found.last() else found


def test_it_runs_in_worker_processes(monkeypatch, suite):
    monkeypatch.syspath_prepend(str(FOREIGN))
    env = tasks.make("cartpole-swingup", 3, sim="dm_control", threads=2, seed=1)
    assert (env.obs_dim, env.action_dim, env.max_episode_steps, env.dt) == (5, 1, 1000, 0.01)
    assert env.step(torch.zeros(3, 1)).valid.all()
    env.close()
    with pytest.raises(TaskError, match=r"foreign_envs:dm_clock \(environment 1\) raised: ValueError: three"):
        env = tasks.make(CLOCK, 2, sim="dm_control", threads=1, max_episode_steps=12, fault="step", who=1)
        for _ in range(40):
            env.step(torch.zeros(2, 2))
