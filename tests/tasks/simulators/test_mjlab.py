"""sim=mjlab on a stand-in (tests/labs/standin): each step against what its own observation says, and ways to fail.

mjlab itself: test_mjlab_itself.py.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

import tasks
from tasks import TaskError
from tasks.simulators import lab, remote
from tasks.simulators.mjlab_env import make
from tasks.simulators.worker.errors import Mistake

LABS = Path(__file__).resolve().parents[2] / "labs" / "standin"
SEED, ENVS = 4, 9


@pytest.fixture
def clock(monkeypatch):
    """The module with the truth about the counting world; mjlab's stand-in can be imported."""
    monkeypatch.syspath_prepend(str(LABS))
    import clock

    yield clock
    for name in [name for name in sys.modules if name == "clock" or name.partition(".")[0] == "mjlab"]:
        del sys.modules[name]


@pytest.fixture
def local(clock):
    """`local(name, num_envs, **cfg)`: the adapter's environment in this process."""

    def local(name="Mjlab-Clock", num_envs=ENVS, seed=SEED, action_scale=1.0, **cfg):
        return make(name, num_envs, "cpu", seed, cfg, action_scale, str(LABS))

    return local


@pytest.fixture
def made(clock, monkeypatch, tmp_path_factory):
    """`made(name, num_envs, **cfg)`: environments in a process of another interpreter; none may be left in the end."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("simulations")))  # a failure leaves its folder
    monkeypatch.setenv("PYTHONPATH", str(LABS))
    found, started, start = [], [], remote.Process

    def noted(*args, **kwargs):
        started.append(start(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(remote, "Process", noted)

    def make(name="Mjlab-Clock", num_envs=ENVS, seed=SEED, step_timeout=60.0, python=sys.executable, **cfg):
        found.append(
            tasks.make(name, num_envs, "mjlab", "cpu", seed, step_timeout=step_timeout, python=python, cfg=cfg)
        )
        return found[-1]

    make.started = started
    yield make
    for env in found:
        env.close()
    assert all(child.popen.poll() is not None for child in started)


def rollout(env, steps, beyond=1.0):
    """[(observations acted in, action, step)], with everything copied."""
    source = torch.Generator().manual_seed(0)
    obs, found = env.reset().clone(), []
    for _ in range(steps):
        action = (torch.rand(env.num_envs, env.action_dim, generator=source) * 2 - 1) * beyond
        step = env.step(action)
        found.append((obs, action, tasks.Step(*(f.clone() if isinstance(f, torch.Tensor) else f for f in step))))
        obs = step.obs.clone()
    return found


def test_every_step_is_what_its_own_observation_says(local, clock):
    env, kinds = local(), set()
    assert (env.obs_dim, env.critic_obs_dim, env.action_dim) == (5, 4, 2)
    assert (env.max_episode_steps, env.dt, env.terminates) == (clock.LIMIT, clock.DT, True)
    for before, action, step in rollout(env, 80, beyond=1.5):
        assert step.valid.all() and not (step.terminated & step.truncated).any()
        for e in range(ENVS):
            who, episode, age, _, contact = (int(v) for v in before[e].tolist())
            assert (who, contact) == (10 * SEED + e, 0)
            end, fell, late = clock.ends_at(who, episode)
            over = age + 1 == end
            assert bool(step.terminated[e]) == (over and fell)  # flagged both ways: terminated
            assert bool(step.truncated[e]) == (over and late and not fell)
            assert float(step.reward[e]) == clock.DT * clock.reward_of(who, episode, age + 1)
            deed = float(action[e].clamp(-1, 1).sum())
            assert step.next_obs[e].tolist() == [who, episode, age + 1, pytest.approx(deed), 0]
            assert step.obs[e].tolist() == ([who, episode + 1, 0, 0, 0] if over else step.next_obs[e].tolist())
            if over:
                kinds.add((fell, late, end == clock.LIMIT))
        for shown, told in ((step.critic_obs, step.obs), (step.next_critic_obs, step.next_obs)):
            assert torch.equal(shown, torch.column_stack((told[:, 3], -told[:, :3])))  # in the order of its terms
    assert kinds == {(True, False, False), (True, True, True), (False, True, False), (True, True, False),
                     (False, True, True)}  # fmt: skip


def test_groups_are_those_that_mjlabs_own_learner_is_shown(local):
    env = local("Mjlab-Clock-Plain")
    assert (env.obs_dim, env.critic_obs_dim, env.critic_obs) == (5, 0, None)
    assert env.step(torch.zeros(ENVS, 2)).critic_obs is None
    with pytest.raises(Mistake, match=r"observes pictures in 'camera' \(4, 4, 3\): choose"):
        local("Mjlab-Clock-Rgb")


def test_time_limits(local, clock):
    assert not local("Mjlab-Clock-Timed").terminates  # episodes are only ever cut
    env = local(episode_length_s=5 * clock.DT)
    assert env.max_episode_steps == 5
    ages = [int(before[e, 2]) + 1 for before, _, step in rollout(env, 30) for e in range(ENVS) if step.truncated[e]]
    assert max(ages) == 5 and ages.count(5) > 10
    # a task without a term for it
    steps = rollout(local("Mjlab-Clock-Unlimited"), 40)
    cut = [int(before[e, 2]) + 1 for before, _, step in steps for e in range(ENVS) if step.truncated[e]]
    assert set(cut) == {clock.LIMIT} and len(cut) > 5
    # a horizon that is finite ends in a state without a future
    ends = [step for _, _, step in rollout(local(is_finite_horizon=True), 30)]
    assert sum(int(step.terminated.sum()) for step in ends) > 20 and not any(step.truncated.any() for step in ends)
    with pytest.raises(Mistake, match=r"has no time limit: give task.cfg.episode_length_s"):
        local(episode_length_s=0.0)


def test_actions_without_bounds_are_scaled_and_others_mapped(local, monkeypatch):
    action = torch.tensor([[0.5, -3.0]] * ENVS)
    assert local(action_scale=4).step(action).next_obs[:, 3].tolist() == [4 * (0.5 - 1)] * ENVS
    monkeypatch.setattr("mjlab.envs.ManagerBasedRlEnv.single_action_space.low", [-2.0, 0.0])
    monkeypatch.setattr("mjlab.envs.ManagerBasedRlEnv.single_action_space.high", [2.0, 10.0])
    assert local().step(action).next_obs[:, 3].tolist() == [1.0 + 0.0] * ENVS
    with pytest.raises(Mistake, match="has bounds of its own"):
        local(action_scale=4)
    monkeypatch.setattr("mjlab.envs.ManagerBasedRlEnv.single_action_space", type("Discrete", (), {"n": 3})())
    with pytest.raises(Mistake, match="takes Discrete actions: only continuous ones"):
        local()


def test_a_row_that_is_not_finite_is_cut_not_learned_from_and_begins_anew(local):
    env = local(fault="nan", at=3)
    steps = [step for _, _, step in rollout(env, 6)]
    assert [int(step.info["diverged_episodes"]) for step in steps] == [0, 0, 1, 1, 1, 1]
    broke = steps[2]
    assert broke.valid.tolist() == [False] + [True] * (ENVS - 1) and broke.truncated[0] and not broke.terminated[0]
    assert broke.reward[0] == 0 and torch.isfinite(broke.next_obs).all() and broke.obs[0, 2] == 0


@pytest.mark.parametrize(
    "name, cfg, words",
    [
        ("Mjlab-Clok", {}, r"mjlab has no task 'Mjlab-Clok'; did you mean Mjlab-Clock\? known: Mjlab-Cart"),
        ("nowhere_at_all:Mjlab-Clock", {}, "plugin 'nowhere_at_all' cannot be imported"),
        ("Mjlab-Clock", {"episode_lenght_s": 3.0}, r"task.cfg.episode_lenght_s: .*task.cfg.episode_length_s\?"),
        ("Mjlab-Clock", {"scene": {"envs": 3}}, r"task.cfg.scene.envs: .*did you mean task.cfg.scene.num_envs"),
        ("Mjlab-Clock", {"terminations": {"fall": None}}, r"did you mean task.cfg.terminations.fell\?"),
        ("Mjlab-Clock", {"groups": ["critic"]}, "shows no group 'actor' of observations, but critic"),
    ],
)
def test_mistakes_name_what_there_is(local, name, cfg, words):
    with pytest.raises(Mistake, match=words) as caught:
        local(name, **cfg)
    assert "\n" not in str(caught.value)


# --- in a process of another interpreter ------------------------------------------------------------------------


def test_steps_in_another_interpreter_equal_those_in_this_process(made, local, tmp_path):
    python, seen = tmp_path / "python", tmp_path / "seen"
    python.write_text(f'#!/bin/sh\necho "$@" >>{seen}\nexec {sys.executable} "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "more.py").write_text(
        "from mjlab.tasks import _register\n_register('Mine')\n"
    )
    name = f"{os.path.relpath(tmp_path / 'more.py')}:Mine"
    env, twin = made(name, python=str(python)), local()
    assert "from tasks.simulators.remote import serve" in seen.read_text()
    assert (env.obs_dim, env.critic_obs_dim, env.max_episode_steps, env.terminates) == (5, 4, 12, True)
    for got, want in zip(rollout(env, 20), rollout(twin, 20)):
        assert torch.equal(got[0], want[0])
        assert all(torch.equal(a, b) for a, b in zip(got[2][:6], want[2][:6]))
        assert torch.equal(got[2].next_critic_obs, want[2].next_critic_obs)
        assert got[2].info == {"diverged_episodes": torch.tensor(0)}
    assert (rollout(local(seed=SEED + 1), 1)[0][0] != rollout(twin, 1)[0][0]).any()
    with pytest.raises(NotImplementedError, match="without rendering"):
        env.render()


@pytest.mark.parametrize(
    "fault, words",
    [
        ("raise", r"Mjlab-Clock raised in step: ValueError: three is too many \(clock.py, line \d+\)"),
        ("kill", r"Mjlab-Clock: the simulation was killed by SIGKILL"),
        ("hang", r"Mjlab-Clock: the simulation gave no answer for 1 s \(sim.step_timeout allows more\)"),
    ],
)
def test_what_goes_wrong_there_is_one_line_and_no_process_is_left(made, fault, words):
    env = made(step_timeout=1.0, fault=fault)
    for _ in range(2):
        env.step(torch.zeros(ENVS, 2))
    began = time.monotonic()
    with pytest.raises(TaskError, match=words) as caught:
        env.step(torch.zeros(ENVS, 2))
    assert time.monotonic() - began < 10 and "\n" not in str(caught.value)
    assert made.started[0].popen.poll() is not None
    log = Path(str(caught.value).rpartition("output: ")[2])
    assert log.is_file() and ("_go_wrong" in log.read_text()) == (fault == "raise")  # the whole traceback
    with pytest.raises(TaskError, match="closed"):
        env.step(torch.zeros(ENVS, 2))


def test_a_slow_step_is_not_taken_for_one_that_hangs(monkeypatch):
    env = object.__new__(lab.LabEnv)
    env._limit, env._longest = 5.0, None
    took = iter([0.5, 40.0, 0.2, 3.0])  # a reset, the first step, which compiles, and two more
    clock = [0.0]
    monkeypatch.setattr(lab.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(remote.RemoteEnv, "_do", lambda self, what: clock.__setitem__(0, clock[0] + next(took)))
    for what, seconds in (("reset", remote.START), ("step", remote.START), ("step", 5.0), ("step", 5.0)):
        assert env._patience()[0] == seconds
        env._do(what)
    assert env._patience()[0] == 30.0


@pytest.mark.parametrize(
    "python, words",
    [
        (None, r"sim=mjlab needs mjlab, which isn't installed here: .*pip install mjlab==1.6.0.*sim.python="),
        ("/no/such/python", r"sim.python=/no/such/python is no Python that can be run \(.*No such file"),
        ("/bin/false", r"sim.python=/bin/false is no Python that can be run \("),
        ("/usr", r"sim.python=/usr is a folder: name its interpreter, /usr/bin/python"),
        (sys.executable, r"sim.python=.*python.* has no mjlab: install it there \(pip install mjlab==1.6.0\)"),
    ],
)
def test_an_interpreter_that_will_not_do_is_named(python, words):
    with pytest.raises(TaskError, match=words) as caught:
        tasks.make("Mjlab-Clock", 2, "mjlab", "cpu", python=python)
    assert "\n" not in str(caught.value)


def test_what_else_is_refused():
    with pytest.raises(TaskError, match=r"sim=mjlab takes task.options.action_scale and .*, no options \['scale'\]"):
        tasks.make("Mjlab-Clock", 2, "mjlab", "cpu", scale=3)
    with pytest.raises(TaskError, match="can't step the environments of several seeds together"):
        tasks.make("Mjlab-Clock", 2, "mjlab", "cpu", seed=[1, 2])


def test_an_interpreter_is_refused_where_the_simulator_runs_in_this_one():
    pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")
    with pytest.raises(TaskError, match=r"drop sim.python, which is for gymnasium, dm_control, mjlab, isaaclab"):
        tasks.make("Cartpole", 2, "mujoco", python=sys.executable)
