"""sim=isaaclab on a stand-in (tests/labs/standin): each step against what its own observation says."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

import tasks
from tasks.simulators.isaaclab_env import make
from tasks.simulators.worker.errors import Mistake

pytest.importorskip("gymnasium", reason="Isaac Lab registers its tasks with gymnasium: pip install .[gym]")
LABS = Path(__file__).resolve().parents[2] / "labs" / "standin"
SEED, ENVS = 4, 9


@pytest.fixture
def clock(monkeypatch):
    """The module with the truth about the counting world; Isaac Lab's stand-in can be imported."""
    monkeypatch.syspath_prepend(str(LABS))
    import clock

    yield clock
    import gymnasium

    gymnasium.registry.pop("Isaac-Clock", None)
    for name in [name for name in sys.modules if name == "clock" or name.partition(".")[0].startswith("isaaclab")]:
        del sys.modules[name]


@pytest.fixture
def local(clock):
    """`local(**cfg)`: the adapter's environment in this process."""
    return lambda name="Isaac-Clock", **cfg: make(name, ENVS, "cpu", SEED, cfg, 1.0, str(LABS))


def rollout(env, steps):
    """[(observations acted in, action, step)], with everything copied."""
    source = torch.Generator().manual_seed(0)
    obs, found = env.reset().clone(), []
    for _ in range(steps):
        action = torch.rand(env.num_envs, env.action_dim, generator=source) * 2 - 1
        step = env.step(action)
        found.append((obs, action, tasks.Step(*(f.clone() if isinstance(f, torch.Tensor) else f for f in step))))
        obs = step.obs.clone()
    return found


@pytest.mark.parametrize("history", [False, True])
def test_every_step_is_what_its_own_observation_says(local, clock, history):
    """Also on steps where nothing ends while the last end's terminal observations are left over."""
    env, kinds, quiet = local(history=history), set(), 0
    assert (env.obs_dim, env.critic_obs_dim, env.action_dim) == (5, 3, 2)
    assert (env.max_episode_steps, env.dt, env.name) == (clock.LIMIT, clock.DT, "Isaac-Clock")
    for before, action, step in rollout(env, 80):
        quiet += not (step.terminated | step.truncated).any()
        assert not (step.terminated & step.truncated).any()
        for e in range(ENVS):
            who, episode, age, _, _ = (int(v) for v in before[e].tolist())
            end, fell, late = clock.ends_at(who, episode)
            over = age + 1 == end
            assert bool(step.terminated[e]) == (over and fell)  # flagged both ways: terminated
            assert bool(step.truncated[e]) == (over and late and not fell)
            assert bool(step.valid[e]) == (not history or not step.truncated[e])  # its last frame is not told
            assert float(step.reward[e]) == clock.DT * clock.reward_of(who, episode, age + 1)
            if not (history and over):
                deed = float(action[e].sum())
                assert step.next_obs[e].tolist() == [who, episode, age + 1, pytest.approx(deed), 0]
            assert step.obs[e].tolist() == ([who, episode + 1, 0, 0, 0] if over else step.next_obs[e].tolist())
            if over:
                kinds.add((fell, late, end == clock.LIMIT))
        assert torch.equal(step.critic_obs, -step.obs[:, :3])
        assert torch.equal(step.next_critic_obs, -step.next_obs[:, :3])
    assert len(kinds) == 5 and quiet > 5


def test_a_critic_without_a_group_of_its_own_sees_what_the_policy_sees(local):
    env = local(critic=False)
    assert (env.critic_obs_dim, env.critic_obs) == (0, None) and env.step(torch.zeros(ENVS, 2)).critic_obs is None


def test_a_lost_terminal_observation_is_not_guessed(local, monkeypatch):
    env = local()
    env.env.cfg.compute_final_obs = False  # a task that doesn't heed it
    for before, _, step in rollout(env, 40):
        assert torch.equal(step.valid, ~step.truncated)
        ended = step.terminated | step.truncated
        assert torch.equal(step.next_obs[ended], before[ended])


def test_a_row_that_is_not_finite_is_cut_and_its_next_step_only_resets(local):
    env = local(fault="nan", at=3)
    steps = rollout(env, 8)
    broke, reset = steps[2][2], steps[3][2]
    assert [int(step.info["diverged_episodes"]) for _, _, step in steps] == [0, 0, 1, 1, 1, 1, 1, 1]
    assert broke.truncated[0] and not broke.terminated[0] and broke.valid.tolist() == [False] + [True] * (ENVS - 1)
    assert torch.isfinite(broke.obs).all() and torch.isfinite(broke.next_obs).all() and broke.reward[0] == 0
    assert not reset.valid[0] and not reset.truncated[0] and not reset.terminated[0] and reset.reward[0] == 0
    assert reset.obs[0, 2] == 0  # a new episode's
    after = [step for _, _, step in steps[4:]]
    assert all(step.valid[0] for step in after) and [int(step.next_obs[0, 2]) for step in after][:2] == [1, 2]


def test_mistakes_name_what_there_is(local):
    with pytest.raises(Mistake, match=r"Isaac Lab has no task 'Isaac-Clok'; did you mean Isaac-Clock\? known: Isaac-"):
        local("Isaac-Clok")
    with pytest.raises(Mistake, match=r"task.cfg.scene.num_env: .*did you mean task.cfg.scene.num_envs\?"):
        local(scene={"num_env": 3})
    with pytest.raises(Mistake, match="has several agents: only tasks with one can be learned"):
        local(agents=True)


def test_steps_in_another_interpreter_equal_those_in_this_process(local, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(LABS) + os.pathsep + os.environ.get("PYTHONPATH", ""))
    env, twin = tasks.make("Isaac-Clock", ENVS, "isaaclab", "cpu", SEED, python=sys.executable), local()
    try:
        for got, want in zip(rollout(env, 20), rollout(twin, 20)):
            assert all(torch.equal(a, b) for a, b in zip(got[2][:6], want[2][:6]))
            assert torch.equal(got[2].next_critic_obs, want[2].next_critic_obs)
    finally:
        env.close()
