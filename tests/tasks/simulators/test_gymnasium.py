"""Environments registered with Gymnasium: every step against what the counting worlds of tests/foreign say is true.

The worker's side is run in this process where nothing depends on there being one.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import tasks
from tasks import TaskError
from tasks.simulators import pool
from tasks.simulators.worker.errors import Mistake
from tasks.simulators.worker.serial import Actions

gymnasium = pytest.importorskip("gymnasium", reason="needs gymnasium: pip install .[gym]")
PLUGIN = Path(__file__).resolve().parents[2] / "foreign" / "foreign_envs.py"
WORLDS = ("single", "NextStep", "SameStep", "Disabled", "masked", "lost", "batched")  # of tests/foreign/shares.py


@pytest.fixture
def truth(foreign):
    """The module with the counting worlds."""
    return foreign.truth()


@pytest.fixture
def share(foreign):
    """`share(name, num_envs, seed, first, **options)`: a worker's environments, in this process."""
    return lambda name, *args, **options: foreign.share("gymnasium_share", name, *args, **options)


@pytest.fixture
def made(monkeypatch, tmp_path_factory):
    """`made(name, num_envs, threads, **options)`: environments in worker processes; none may be left in the end."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("simulations")))  # a crash leaves its folder
    found, workers = [], []
    start = pool.Process

    def noted(*args, **kwargs):
        workers.append(start(*args, **kwargs))
        return workers[-1]

    monkeypatch.setattr(pool, "Process", noted)

    def make(name, num_envs, threads=2, step_timeout=60.0, plugins=(str(PLUGIN),), sim="gymnasium", seed=0, **options):
        found.append(
            tasks.make(name, num_envs, sim, seed=seed, threads=threads, step_timeout=step_timeout, plugins=plugins,
                       **options)
        )  # fmt: skip
        return found[-1]

    make.workers = workers
    yield make
    for env in found:
        env.close()
    assert all(worker.popen.poll() is not None for worker in workers)


def rollout(env, steps, seed=0, beyond=1.0):
    """[(observations acted in, action, step)], with everything copied."""
    source = torch.Generator().manual_seed(seed)
    obs, found = env.reset().clone(), []
    for _ in range(steps):
        action = (torch.rand(env.num_envs, env.action_dim, generator=source) * 2 - 1) * beyond
        step = env.step(action)
        found.append((obs, action, tasks.Step(*(f.clone() if isinstance(f, torch.Tensor) else f for f in step))))
        obs = step.obs.clone()
    return found


# --- what a step says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", WORLDS)
def test_every_step_is_what_its_own_observation_says(truth, foreign, world):
    module, name, options = foreign.WORLDS[world]
    env = foreign.share(module, name, first=4, **options)
    assert (env.num_envs, env.obs_dim, env.action_dim, env.max_episode_steps) == (9, 4, 2, truth.LIMIT)
    assert env.dt == pytest.approx(1 / 20)
    kinds, resets = set(), 0
    for before, action, step in rollout(env, 90):
        assert not (step.terminated & step.truncated).any()
        for e in range(9):
            who, episode, age, _ = (int(v) for v in before[e].tolist())
            assert who == 4 + e
            end, fell, _ = truth.ends_at(who, episode)
            if age == end:  # NextStep alone shows an episode's last observation: this step only reset
                assert world == "NextStep"
                assert not step.valid[e] and step.reward[e] == 0 and not step.terminated[e] and not step.truncated[e]
                assert step.obs[e].tolist() == [who, episode + 1, 0, 0]
                resets += 1
                continue
            over = age + 1 == end
            assert bool(step.terminated[e]) == (over and fell)
            assert bool(step.truncated[e]) == (over and not fell)
            assert float(step.reward[e]) == truth.reward_of(who, episode, age + 1)
            assert bool(step.valid[e]) == (not over or world != "lost")
            if step.valid[e]:
                assert step.next_obs[e, :3].tolist() == [who, episode, age + 1]
                assert float(step.next_obs[e, 3]) == pytest.approx(truth.done_by(action[e]), abs=1e-4)
            if not over or world == "NextStep":
                assert torch.equal(step.obs[e], step.next_obs[e])
            else:
                assert step.obs[e].tolist() == [who, episode + 1, 0, 0]
            if over:
                kinds.add((*truth.ends_at(who, episode)[1:], end == truth.LIMIT))
    # by a fall, by the environment's own limit, by the wrapper's, and by both at once
    assert kinds >= {(True, False, False), (False, True, False), (False, False, True), (True, False, True),
                     (True, True, False)}  # fmt: skip
    assert (resets > 40) == (world == "NextStep")


def test_gymnasiums_own_worker_processes_keep_the_contract_too(truth, share):
    kwargs = {"autoreset_mode": "SameStep", "shared_memory": True}
    env = share("Clock-v0", 3, vectorization_mode="async", vector_kwargs=kwargs)
    twin = share("Clock-v0", 3)
    for (_, _, step), (_, _, want) in zip(rollout(env, 40), rollout(twin, 40)):
        assert all(torch.equal(a, b) for a, b in zip(step[:6], want[:6]))
    env.close()


def test_reset_begins_a_new_episode_everywhere(foreign):
    for world in ("single", "NextStep"):
        module, name, options = foreign.WORLDS[world]
        env = foreign.share(module, name, 5, **options)
        rollout(env, 3)
        assert env.reset()[:, 2].tolist() == [0] * 5
        assert env.step(torch.zeros(5, 2)).valid.all()  # nobody waits for a reset any more


def test_actions_are_clipped_and_mapped_onto_the_bounds_exactly(share):
    env = share("Clock-v0", 5)
    units = torch.tensor([[-1, -1], [1, 1], [0, 0], [-7, 9], [0.25, -0.5]])
    done = env.step(units).next_obs[:, 3].tolist()  # low -2 and 0, high 2 and 10
    assert done == [-2.0, 12.0, 5.0, 8.0, 3.0]
    plain = Actions(np.array([-1.0, -0.1]), np.array([1.0, 0.3]), np.float32, "plain")
    small = np.array([[1e-20, 1.0], [-1.0, -1.0]], np.float32)
    # [-1, 1] itself is not rounded, and float32 bounds are kept
    assert plain(small).tolist() == [[np.float32(1e-20), np.float32(0.3)], [-1.0, np.float32(-0.1)]]


def test_dictionaries_are_flattened_in_sorted_order_of_their_keys(share, foreign):
    env = share("DictClock-v0", 4)
    assert env.obs_dim == 1 + 1 + 3 + 2  # a: age, deed; k: one-hot of three; z: row by row
    for (before, _, step), (was, _, want) in zip(rollout(env, 60), rollout(share("Clock-v0", 4), 60)):
        for shown, told in ((before, was), (step.obs, want.obs), (step.next_obs, want.next_obs)):
            who, episode, age, deed = told.unbind(1)
            one_hot = torch.nn.functional.one_hot(age.long() % 3, 3).float()
            assert torch.equal(shown, torch.column_stack([age, deed, one_hot, who, episode]))
    vector = share("DictClock-v0", 4, **foreign.WORLDS["SameStep"][2])  # terminal observations are dictionaries there
    for (_, _, step), (_, _, want) in zip(rollout(vector, 60), rollout(share("DictClock-v0", 4), 60)):
        assert torch.equal(step.next_obs, want.next_obs) and torch.equal(step.obs, want.obs)


def test_a_row_that_is_not_finite_is_cut_not_learned_from_and_begins_anew(share):
    env = share("Broken-v0", 3, seed=4)
    counted = 0
    for before, _, step in rollout(env, 30):
        broke = before[:, 2] == 2
        assert torch.equal(~step.valid, broke)
        assert (step.truncated & ~step.terminated)[broke].all() and (step.reward[broke] == 0).all()
        assert (step.obs[broke, 2] == 0).all() and torch.isfinite(step.next_obs).all()
        counted += int(broke.sum())
        assert int(step.info["diverged_episodes"]) >= counted or not counted
    assert counted > 5


def test_rewards_in_arrays_of_one_are_numbers_and_others_are_told(share):
    for (_, _, step), (_, _, want) in zip(rollout(share("Listed-v0", 3), 20), rollout(share("Clock-v0", 3), 20)):
        assert all(torch.equal(a, b) for a, b in zip(step[:6], want[:6]))
    with pytest.raises(Mistake, match=r"Listed-v0 gives rewards of shape \(2,\): only one number"):
        rollout(share("Listed-v0", 3, size=2), 1)


def test_a_limit_of_the_users_own_cuts_earlier(truth, share):
    env = share("Endless-v0", 6, max_episode_steps=5)
    assert env.max_episode_steps == 5
    ages = [int(before[e, 2]) + 1 for before, _, step in rollout(env, 60) for e in range(6) if step.truncated[e]]
    assert max(ages) == 5 and ages.count(5) > 10


# --- in worker processes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_envs", [1, 2, 17])
def test_steps_in_two_workers_equal_those_of_the_same_environments_in_one_process(made, share, num_envs):
    env, twin = made("Clock-v0", num_envs, seed=7), share("Clock-v0", num_envs, seed=7)
    assert len(made.workers) == min(num_envs, 2)
    assert (env.obs_dim, env.action_dim, env.max_episode_steps, env.dt) == (4, 2, 12, twin.dt)
    for got, want in zip(rollout(env, 30, beyond=1.2), rollout(twin, 30, beyond=1.2)):
        assert torch.equal(got[0], want[0])
        assert all(torch.equal(a, b) for a, b in zip(got[2][:6], want[2][:6]))
    picture = env.render(100, 80, num_envs - 1)
    assert picture.shape == (80, 100, 3)  # 40 x 20 with bars above and below
    assert (picture[20:60] == 7 + num_envs - 1).all() and (picture[:15] == 0).all()
    with pytest.raises(TaskError, match=rf"0\.\.{num_envs - 1}"):
        env.render(index=num_envs)
    with pytest.raises(TaskError, match="takes actions"):
        env.step(torch.zeros(num_envs, 3))
    with pytest.raises(NotImplementedError):
        env.state_dict()


def test_equal_seeds_give_equal_runs_at_any_number_of_workers(made, share):
    runs = [rollout(share("MountainCarContinuous-v0", 3, seed=seed), 50) for seed in (5, 5, 6)]
    runs.append(rollout(made("MountainCarContinuous-v0", 3, threads=2, plugins=(), seed=5), 50))
    obs = [torch.stack([step.obs for _, _, step in run]) for run in runs]
    assert torch.equal(obs[0], obs[1]) and torch.equal(obs[0], obs[3])
    assert not torch.equal(obs[0], obs[2])
    assert not torch.equal(obs[0][:, 0], obs[0][:, 1])  # nor do its environments share one


@pytest.mark.parametrize(
    "where, how, words",
    [
        ("step", "raise", r"Clock-v0 \(environment 3\) raised: ValueError: three is too many \(foreign_envs.py, line"),
        ("reset", "raise", r"Clock-v0 \(environment 3\) raised: ValueError: three is too many"),
        ("step", "exit", r"Clock-v0 \(environment 3\) raised: SystemExit: 7"),
        ("step", "kill", r"Clock-v0, environments 2 to 4: the simulation was killed by SIGKILL"),
        ("step", "hang", r"Clock-v0, environments 2 to 4: the simulation gave no answer for 2 s \(sim.step_timeout"),
    ],
)
def test_what_goes_wrong_in_a_worker_is_one_line_and_no_process_is_left(made, tmp_path, where, how, words):
    mark = tmp_path / "closed"
    env = made("Clock-v0", 5, step_timeout=2.0, fault=where, how=how, who=3, mark=str(mark))
    with pytest.raises(TaskError, match=words) as caught:
        began = time.monotonic()
        for _ in range(60):
            before, began = began, time.monotonic()
            env.step(torch.zeros(5, 2))
    assert time.monotonic() - began < 10, before
    assert "\n" not in str(caught.value)
    assert all(worker.popen.poll() is not None for worker in made.workers)
    assert mark.read_text().split() == ["0", "1"]  # the other worker's environments were closed
    log = Path(str(caught.value).rpartition("output: ")[2])
    assert log.is_file() and log.parent.parent == Path(tempfile.gettempdir())
    assert how != "raise" or "go_wrong" in log.read_text()  # the whole traceback
    assert len(list(log.parent.parent.iterdir())) == 1  # the other worker's is gone
    with pytest.raises(TaskError, match="closed"):
        env.step(torch.zeros(5, 2))


def test_workers_end_when_their_parent_is_killed(truth):
    code = (
        "import os, tasks, time\n"
        "if __name__ == '__main__':\n"
        f"    env = tasks.make('Clock-v0', 2, 'gymnasium', threads=2, plugins=[{str(PLUGIN)!r}])\n"
        "    print(*(worker.popen.pid for worker in env._workers), flush=True)\n"
        "    time.sleep(600)\n"
    )
    root = str(Path(tasks.__file__).resolve().parents[1])
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=root)
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_one_that_is_slow_to_reset_is_not_taken_for_hung_as_long_as_it_goes_on(made):
    """The limit is for one environment, not for a worker's whole share: 4 x 0.9 s pass a limit of 2 s."""
    env = made("Slow-v0", 4, threads=1, step_timeout=2.0, seconds=0.9)
    assert env.reset().shape == (4, 4)


# --- mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("Clok-v0", {}, r"registered with Gymnasium as 'Clok-v0'; did you mean Clock-v0\?.*plugins=\[module\]"),
        ("Old/Clock", {}, r"did you mean Old/Clock-v2\?"),
        ("nowhere:Clock-v0", {}, "plugin 'nowhere' cannot be imported"),
        ("Odd-v0", {"obs": "picture"}, r"observes pictures \(8, 8, 3\)"),
        ("Odd-v0", {"obs": "grey"}, r"observes pictures \(8, 8\)"),
        ("Odd-v0", {"obs": "nested"}, r"observes pictures in 'camera' \(8, 8, 3\)"),
        ("Odd-v0", {"obs": "sequence"}, "observes Sequence, which has no fixed size"),
        ("Odd-v0", {"action": "discrete"}, "takes Discrete actions: only continuous ones"),
        ("Odd-v0", {"action": "unbounded"}, "action space without bounds.*RescaleAction"),
        ("Odd-v0", {"action": "huge"}, "action space without bounds"),
        ("Odd-v0", {"action": "whole"}, "takes actions of int64"),
        ("Odd-v0", {"colour": 3}, r"Odd-v0 cannot be made: TypeError: .*colour"),
        ("Endless-v0", {}, r"no time limit that it tells: give task\.options\.max_episode_steps"),
        ("Silent-v0", {}, r"metadata\['autoreset_mode'\]"),
    ],
)
def test_what_cannot_be_taken_is_one_line_with_the_remedy(share, name, options, words):
    with pytest.raises(Mistake, match=words) as caught:
        share(name, 2, **options)
    assert "\n" not in str(caught.value)


def test_a_mistake_in_a_worker_reaches_the_caller_and_leaves_nothing(made):
    with pytest.raises(TaskError, match=r"did you mean Clock-v0\?"):
        made("Clok-v0", 4)
    assert all(worker.popen.poll() is not None for worker in made.workers)
    assert not list(Path(tempfile.gettempdir()).iterdir())


def test_a_package_that_is_missing_is_named_with_its_extra(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gymnasium" else find(name))
    with pytest.raises(TaskError, match=r"needs gymnasium, which isn't installed here: pip install \.\[gym\]"):
        tasks.make("HalfCheetah-v5", 2, sim="gymnasium")


def test_it_is_never_chosen_by_itself():
    with pytest.raises(TaskError, match="others' need sim=isaacgym, gymnasium, dm_control, mjlab or isaaclab"):
        tasks.make("Pendulum-v1", 2)
    assert "Pendulum-v1" not in tasks.brought()


def test_workers_ignore_what_stops_a_run(made):
    env = made("Clock-v0", 2)
    for worker in made.workers:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU):
            os.kill(worker.popen.pid, number)
    assert env.step(torch.zeros(2, 2)).valid.all()
