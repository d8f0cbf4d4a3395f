"""A run on a fixed dataset: what its counts mean, that it repeats and resumes to the bit, what it refuses."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pql import config
from pql.errors import UserError
from pql.memory import dataset
from pql.memory.dataset import Steps
from pql.run import evaluation
from pql.run.metrics import read_metrics
from pql.run.record import cut, played
from pql.run.trainer import train
from pql.runtime import checkpoint
from tasks import make


@pytest.fixture
def data(plugin, monkeypatch):
    """600 transitions of random actions on the point, in the place of files: these tests need no Minari."""
    env = make("Point", 12, sim="auto", seed=5)
    episodes = cut(list(played(env, evaluation.random_policy(env, 1), 50)))
    column = lambda name: np.concatenate([e[name] for e in episodes])  # noqa: E731
    obs, after = (np.concatenate([e["observations"][part] for e in episodes]) for part in (slice(-1), slice(1, None)))
    steps = Steps(obs, column("actions"), column("rewards"), after, column("terminations"),
                  column("terminations") | column("truncations"))  # fmt: skip
    assert len(steps.reward) == 600 and steps.last[-1]
    monkeypatch.setattr(dataset, "read", lambda data, most=None, seed=0: Steps(*(part[:most] for part in steps)))
    return steps


@pytest.fixture
def offline(tiny, data):
    """`offline(name=value, ...)`: a configuration of 10 passes in batches of 32, which are 187 updates."""
    none = dict.fromkeys(("num_envs", "max_env_steps", "algo.replay_size", "algo.warmup_steps",
                          "algo.critic_updates_per_step"))  # fmt: skip
    every = {"log_interval": 50, "eval_interval": 100, "checkpoint_interval": 90}
    return lambda **changes: config.load(tiny(**{**none, **every, "data": "points", "passes": 10, **changes}))


def test_env_steps_are_the_data_and_updates_the_axis(offline, data, tmp_path):
    cfg = offline()
    summary = train(cfg)
    assert (summary["env_steps"], summary["critic_updates"], summary["policy_updates"]) == (600, 187, 93)
    assert summary["passes"] == pytest.approx(187 * 32 / 600) and summary["utd"] == pytest.approx(187 / 600)
    assert summary["utd_requested"] == pytest.approx(10 / 32) and summary["data"] == "points"
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert {line["env_steps"] for line in lines} == {600}
    assert [line["critic_updates"] for line in lines if "critic_loss" in line] == [50, 100, 150, 187]
    assert [line["critic_updates"] for line in lines if "eval_return" in line] == [100, 187]
    assert [line["passes"] for line in lines] == [pytest.approx(line["critic_updates"] * 32 / 600) for line in lines]
    assert [folder.name for folder in checkpoint.found(tmp_path / "run")] == ["000000000180", "000000000187"]
    returns = [rewards.sum() for rewards in data.episodes()]
    assert lines[0]["train_return"] == pytest.approx(np.mean(returns), rel=1e-5)  # the data's own
    normalizer = evaluation.load_run(str(tmp_path / "run"), 2).act
    torch.testing.assert_close(normalizer.mean, torch.from_numpy(data.obs).double().mean(0).float())


@pytest.mark.parametrize("algo", ["pql", "flash_sac"])
def test_resumed_run_equals_the_uninterrupted_one_to_the_bit(offline, tmp_path, algo):
    """flash_sac: rewards scaled by moments of the data's returns."""
    small = {"algo.hidden": None, "algo.critic_width": 16, "algo.actor_width": 16} if algo == "flash_sac" else {}
    train(offline(algo=algo, run_dir=tmp_path / "whole", **small))
    train(offline(algo=algo, run_dir=tmp_path / "cut", passes=5, **small))
    summary = train(config.load([f"run_dir={tmp_path / 'cut'}", "resume=true", "passes=10"]))
    assert summary["critic_updates"] == 187
    for role in ("actor", "v_learner", "p_learner"):
        found = (checkpoint.newest(tmp_path / name)[0] for name in ("whole", "cut"))
        whole, parts = (checkpoint.load_tensors(folder, role) for folder in found)
        assert whole.keys() == parts.keys()
        assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    lines = read_metrics(tmp_path / "cut" / "metrics.jsonl")
    assert [line["critic_updates"] for line in lines if "critic_loss" in line] == [50, 93, 100, 150, 187]


def test_other_data_is_not_gone_on_with(offline, data, tmp_path):
    train(offline(passes=5))
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    data.reward[7] += 1.0
    with pytest.raises(UserError, match="is not what this run began with"):
        train(config.load([f"run_dir={tmp_path / 'again'}", "resume=true", "passes=10"]))
    with pytest.raises(UserError, match="learns from 600 transitions of its dataset, not from 500"):
        config.load([f"run_dir={tmp_path / 'again'}", "resume=true", "max_env_steps=500"])


def test_policy_learns_from_random_actions(offline):
    """Random actions return 1 to 6; five seeds of this run returned 20.9 to 22.6 (sd .8), of at most 25: a false alarm
    would be ten standard deviations away."""
    settings = {"algo.critic_lr": 0.01, "algo.actor_lr": 0.01, "algo.hidden": "[32]", "algo.gamma": 0.95}
    summary = train(offline(passes=20, eval_interval=0, eval_episodes=32, **settings))
    assert summary["random_return"] < 8 and summary["eval_return"] > 14


def test_windows_may_be_longer_than_a_warm_up_that_there_is_none_of(offline):
    assert offline(**{"algo.n_step": 50}).algo.n_step == 50


def test_run_without_a_dataset_is_not_gone_on_with_on_one(tiny, offline):
    train(config.load(tiny(max_env_steps=80)))
    with pytest.raises(UserError, match="was trained with data=None, not points"):
        offline(resume="true", passes=None)


@pytest.mark.parametrize(("changes", "rule"), [
    ({"num_envs": 8}, "num_envs=8: with data= nothing is stepped"),
    ({"algo.critic_updates_per_step": 8}, "passes= says how long"),
    ({"runtime": "parallel"}, "runtime=parallel: must be sync with data="),
    ({"algo.utd": 1}, "passes and algo.utd"),
    ({"data": None}, "passes=10.0: must be left out without data="),
    ({"passes": 0}, "passes=0.0: must be a finite number greater than 0"),
    ({"passes": "nan"}, "passes=nan: must be a finite number greater than 0"),
    ({"profile": "true"}, "profile=True: must be false with data="),
    ({"algo.batch_size": 1024}, "larger than the dataset of 600 transitions"),
    ({"passes": 0.01}, "are not one update"),
    ({"task.options.told": "true"}, "has 2 observations and 2 actions in a step, task=Point 5 and 2"),
])  # fmt: skip
def test_what_makes_no_sense_of_a_dataset_is_refused(offline, changes, rule):
    with pytest.raises(UserError, match=rule):
        train(offline(**changes))


def test_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(UserError, match=r"datasets need the package minari .*pip install -e '\.\[offline\]'"):
        config.load(["data=points-v0", "device=cpu"])


def test_vector_steps_are_cut_into_episodes():
    """Two environments, by hand: an end, an invalid step, and what the last step cuts."""
    F, T = False, True
    terminated, truncated = [[F, T, F, F, F], [F] * 5], [[F] * 5, [F, F, F, T, F]]
    valid = [[T] * 5, [T, T, F, T, T]]
    vectors = []
    for t in range(5):
        at = np.array([[10.0 * t], [10.0 * t + 1]])
        vectors.append((at, at + 0.5, at[:, 0], at + 9, *(np.array(x)[:, t] for x in (terminated, truncated, valid))))
    told = [(e["observations"].ravel().tolist(), e["terminations"].tolist(), e["truncations"].tolist())
            for e in cut(vectors)]  # fmt: skip
    assert told == [
        ([0, 10, 19], [F, T], [F, F]),  # its true end, 19, not what the next episode began with
        ([20, 30, 40, 49], [F, F, F], [F, F, T]),
        ([1, 11, 20], [F, F], [F, T]),
        ([31, 40], [F], [T]),
        ([41, 50], [F], [T]),
    ]


def test_recorded_run_is_learned_from_and_knows_its_task(completed, tmp_path, monkeypatch):
    pytest.importorskip("minari", reason="datasets need pip install -e '.[offline]'")
    from pql.run.record import record

    cfg, _, run_dir = completed
    monkeypatch.chdir(tmp_path)
    out = Path("points-v0")
    said = record(str(run_dir), str(out), steps=300, num_envs=8, explore=True, seed=1, trust=True)
    assert "304 transitions" in said and dataset.task_of(str(out)) == ("Point", None, {})
    steps = dataset.read(str(out))
    assert len(steps.reward) == 304 and len({*steps.action[:, 0]}) > 100
    for given in (str(out), str(out / "data")):
        assert dataset.folder(given) == out / "data"
    with pytest.raises(UserError, match="exists: name another folder"):
        record(str(run_dir), str(out), 300, 8, True, 1, trust=True)
    with pytest.raises(UserError, match="explore=false"):
        record(str(run_dir), str(tmp_path / "b-v0"), 300, 8, True, 1, which="best", trust=True)
    with pytest.raises(UserError, match="ends in its version, as in points-v0"):
        record(str(run_dir), str(tmp_path / "points"), 300, 8, True, 1, trust=True)
    again = config.load([f"data={out}", f"plugins={list(cfg.plugins)}", f"run_dir={tmp_path / 'off'}", "passes=2",
                         "video=false", "device=cpu", "algo.batch_size=64", "algo.hidden=[16]"])  # fmt: skip
    assert train(dataclasses.replace(again, eval_episodes=4))["critic_updates"] == 9


def test_dataset_of_gymnasiums_is_learned_from_and_evaluated_in_its_environment(tmp_path, monkeypatch):
    """As anybody makes one: episodes of InvertedPendulum-v5, whose actions reach to 3, by Minari's own functions."""
    minari = pytest.importorskip("minari", reason="datasets need pip install -e '.[offline]'")
    gymnasium, _ = pytest.importorskip("gymnasium"), pytest.importorskip("mujoco")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = gymnasium.make("InvertedPendulum-v5")
    env.action_space.seed(0)
    buffers = []
    for seed in range(12):
        seen, told, over = [env.reset(seed=seed)[0]], [], False
        while not over:
            action = env.action_space.sample()
            obs, reward, terminated, truncated, _ = env.step(action)
            seen.append(obs)
            told.append((action, reward, terminated, truncated))
            over = terminated or truncated
        columns = dict(zip(("actions", "rewards", "terminations", "truncations"), map(list, zip(*told))))
        buffers.append(minari.data_collector.EpisodeBuffer(observations=seen, **columns))
    minari.create_dataset_from_buffers("pole/random-v0", buffers, env=env)
    cfg = config.load(["data=pole/random-v0", f"run_dir={tmp_path / 'off'}", "passes=20", "eval_episodes=2",
                       "video=false", "device=cpu", "algo.batch_size=16", "algo.hidden=[16]"])  # fmt: skip
    assert (cfg.task.name, cfg.sim.name) == ("InvertedPendulum-v5", "gymnasium")
    assert cfg.task.options == {"max_episode_steps": 1000}
    steps = dataset.read(cfg.data)
    assert steps.terminated.sum() == 12 and np.abs(steps.action).max() > 0.9
    summary = train(cfg)
    assert summary["env_steps"] == len(steps.reward) and summary["eval_return"] >= 1
