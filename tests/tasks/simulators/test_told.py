"""What environments tell in `info` (sim.metrics), against a slow loop over the counting world; sim.python."""

from __future__ import annotations

import stat
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

import tasks
from tasks import TaskError
from tasks.simulators import pool
from tasks.simulators.worker.errors import Mistake

pytest.importorskip("gymnasium", reason="needs gymnasium: pip install .[gym]")
PLUGIN = Path(__file__).resolve().parents[2] / "foreign" / "foreign_envs.py"
NAMES = ("score", "score/max", "score/mean", "is_success/max", "box", "odd", "odd/mean", "secure", "broken")
GUISES = ("single", "NextStep", "SameStep", "Disabled")


@pytest.fixture
def teller(foreign):
    """`teller(names, num_envs, guise)`: Teller-v0 in this process."""

    def make(names, num_envs=5, guise="single", name="Teller-v0", **more):
        options = foreign.WORLDS[guise][2]
        return foreign.share("gymnasium_share", name, num_envs, metrics=names, **{**options, **more})

    return make


@pytest.fixture
def made(monkeypatch, tmp_path):
    """`made(name, num_envs, **how)`: environments in worker processes."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = []

    def make(name, num_envs, plugins=(str(PLUGIN),), **how):
        found.append(tasks.make(name, num_envs, "gymnasium", plugins=plugins, step_timeout=60.0, **how))
        return found[-1]

    yield make
    for env in found:
        env.close()


def steps(env, count, seed=0):
    source = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield env.step(torch.rand(env.num_envs, env.action_dim, generator=source) * 2 - 1)


def told(truth, who, episode):
    """What an episode's numbers are, one after the other."""
    ages = range(1, truth.ends_at(who, episode)[0] + 1)
    scores = [truth.reward_of(who, episode, age) for age in ages]
    odd = [age for age in ages if age % 2]
    return {
        "score": scores[-1], "score/max": max(scores), "score/mean": sum(scores) / len(scores), "box": scores[-1],
        "is_success/max": float(max(scores) > 0), "odd": odd[-1] if odd[-1] == len(ages) else None,
        "odd/mean": sum(odd) / len(odd), "secure": 7 + len(ages), "broken": None,
    }  # fmt: skip


@pytest.mark.parametrize("guise", GUISES)
def test_each_environment_tells_of_its_newest_episode_that_ended(teller, foreign, guise):
    truth, env = foreign.truth(), teller(NAMES, guise=guise)
    assert env.metric_names == NAMES
    ended = [-1] * 5  # the newest episode of each that has
    for step in steps(env, 50):
        for e in (step.terminated | step.truncated).nonzero().flatten().tolist():
            ended[e] += 1
        for e, episode in enumerate(ended):
            want = told(truth, e, episode) if episode >= 0 else dict.fromkeys(NAMES)
            for name in NAMES:
                value = float(step.info[name][e])
                assert np.isnan(value) if want[name] is None else value == pytest.approx(want[name]), (e, episode, name)
    assert min(ended) > 2
    env.reset()
    assert torch.isnan(next(steps(env, 1)).info["score"]).any()  # forgotten but for episodes of one step


def test_a_pool_tells_what_its_shares_do(teller, made):
    env, twin = made("Teller-v0", 5, threads=2, metrics=[*NAMES, "score"]), teller(NAMES)
    assert env.metric_names == NAMES
    env.reset()
    twin.reset()
    for got, want in zip(steps(env, 30), steps(twin, 30)):
        for name in NAMES:
            assert torch.equal(got.info[name].nan_to_num(-99), want.info[name].nan_to_num(-99)), name


def test_an_episode_that_left_the_finite_numbers_tells_nothing(teller):
    env = teller(["age"], 3, name="Broken-v0")
    for step in steps(env, 30):
        assert torch.isnan(step.info["age"][~step.valid]).all()
    assert int(step.info["diverged_episodes"]) > 5


@pytest.mark.parametrize(
    "names, words",
    [
        (["succes"], r"tells no 'succes', .*did you mean is_success\?.*told: age, box, is_success, odd, score"),
        (["score", "scores/max"], "no 'scores', .*did you mean score?"),
        (["name"], r"info\['name'\].* is str: only numbers"),
        (["pair/mean"], r"info\['pair'\].* is ndarray: only numbers"),
    ],
)
def test_a_name_that_will_not_do_is_told_before_the_first_step(teller, names, words):
    with pytest.raises(Mistake, match=words) as caught:
        teller(names)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("guise", GUISES)
def test_a_name_like_no_other_is_told_when_an_episode_has_ended_without_it(teller, guise):
    env = teller(["secure", "xyz"], guise=guise)
    with pytest.raises(Mistake, match=r"no 'xyz', which sim.metrics asks for; numbers told: age, .*score, secure"):
        for _ in steps(env, 30):
            assert not (env.rows.terminated | env.rows.truncated).any()


def test_what_cannot_be_made_or_stepped_is_one_line_here_too(teller):
    for fault in ("make", "reset", "step"):
        with pytest.raises(Mistake, match=r"cannot be made and stepped: ValueError: three is too many") as caught:
            teller(["age"], name="Clock-v0", fault=fault, at=0)
        assert "\n" not in str(caught.value)


def test_arrays_of_a_vector_environment_are_told_where_it_says_so_or_says_nothing():
    from tasks.simulators.worker.gymnasium_share import _row  # imports gymnasium

    infos = {"a": np.array([1.0, 2.0]), "_a": np.array([True, False]), "b": np.array([3, 4]), "c": {"d": 1}, "n": 5}
    assert [_row(infos, at) for at in (0, 1)] == [{"a": 1.0, "b": 3}, {"b": 4}]


def test_metrics_of_tasks_of_ours_are_not_asked_for():
    with pytest.raises(TaskError, match=r"drop sim\.metrics, which is for gymnasium"):
        tasks.make("Cartpole", 2, "mujoco", metrics=["success"])


# --- another interpreter ----------------------------------------------------------------------------------------------


def interpreter(path, words):
    path.write_text(f"#!/bin/sh\n{words}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_workers_run_in_the_interpreter_that_is_named_and_import_their_package_there_alone(
    made, teller, tmp_path, monkeypatch
):
    (tmp_path / "only_there").mkdir()
    (tmp_path / "only_there" / "theirs.py").write_text(PLUGIN.read_text())
    path, seen = f"PYTHONPATH={tmp_path / 'only_there'}", tmp_path / "seen"
    python = interpreter(tmp_path / "python", f'echo "$3" >>{seen}\n{path} exec {sys.executable} "$@"')
    env, twin = made("theirs:Teller-v0", 5, (), threads=2, python=python, metrics=["age"]), teller(["age"])
    assert "theirs" not in sys.modules and len(seen.read_text().split()) == 3  # a look, and two workers
    twin.reset()
    env.reset()
    for got, want in zip(steps(env, 20), steps(twin, 20)):
        assert torch.equal(got.obs, want.obs) and torch.equal(got.reward, want.reward)
    assert env.render(40, 20).shape == (20, 40, 3) and env.render(100, 80).shape == (80, 100, 3)


def test_an_interpreter_without_the_package_is_named(tmp_path):
    bare = interpreter(tmp_path / "bare", f'exec {sys.executable} -I -S "$@"')
    with pytest.raises(TaskError, match=r"bare has no gymnasium: install it there \(pip install gymnasium\)"):
        tasks.make("Clock-v0", 2, "gymnasium", python=bare)
    with pytest.raises(TaskError, match=r"bare has no dm_control: install it there \(pip install dm-control\)"):
        tasks.make("cartpole-swingup", 2, "dm_control", python=bare)
    with pytest.raises(TaskError, match=r"is no Python that can be run"):
        tasks.make("Clock-v0", 2, "gymnasium", python="/bin/false")
    assert pool.fitted(np.zeros((4, 6, 3), np.uint8), 6, 4).shape == (4, 6, 3)
