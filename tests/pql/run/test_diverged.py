"""A task whose rewards are NaN: said, counted, refused past a share; evaluations leave its episodes out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import tasks
from pql import config
from pql.errors import RoleFailed, UserError
from pql.run import evaluation
from pql.run.trainer import train

pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")


@pytest.fixture
def spoiled(tiny):
    """Overrides of a short run on Cartpole whose reward is NaN in the first so many environments of any."""

    def overrides(environments, **changes):
        from tasks.suite.cartpole import Cartpole

        class Spoiled(Cartpole):
            max_episode_steps = 20

            def judge(self, state, obs, action, memory):
                reward, terminated = super().judge(state, obs, action, memory)
                bad = torch.arange(len(reward)) < environments
                return torch.where(bad, torch.full_like(reward, float("nan")), reward), terminated

        tasks.register("Spoiled", Spoiled)
        return tiny(task="Spoiled", plugins="[]", num_envs=32, **changes)

    yield overrides
    tasks.registry._TASKS.pop("Spoiled", None)


def test_run_without_a_finite_reward_is_refused_naming_the_share(spoiled, tmp_path):
    with pytest.raises(RoleFailed, match=r"^416 of 416 transitions diverged .* more than 10%: mend the task"):
        train(config.load(spoiled(32)))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed" and summary["diverged_episodes"] == 416


def test_one_environment_of_many_is_said_once_counted_and_left_out_of_evaluations(spoiled, tmp_path, capsys):
    summary = train(config.load(spoiled(1)))
    assert summary["status"] == "completed" and summary["diverged_episodes"] == 50 == summary["invalid_transitions"]
    assert capsys.readouterr().out.count("note: 13 of 416 transitions diverged") == 1
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    evaluated = [line for line in lines if "eval_return" in line]
    assert {(line["eval_episodes"], line["eval_diverged"]) for line in evaluated} == {(3, 1)}
    assert all(line["eval_length"] > 1 for line in evaluated)  # the diverged one's would be 1


def test_evaluation_of_which_no_episode_is_left_tells_no_return(spoiled, tmp_path):
    # 4 of the 32 environments diverge, an eighth of the transitions, so that the run itself comes first to that end
    with pytest.raises(RoleFailed, match="mend the task"):
        train(config.load(spoiled(4)))
    with pytest.raises(RoleFailed, match=r"all 2 episodes of the evaluation at 800 env steps diverged"):
        train(config.load(spoiled(2, eval_episodes=2, run_dir=tmp_path / "two")))


def test_report_says_how_many_are_left_out(completed):
    trained = evaluation.load_run(str(completed[2]), 4)
    values = evaluation.report(
        trained, evaluation.Result(np.array([1.0, 2.0]), np.array([5.0, 5.0]), 2, {"at_goal": np.array([0.0, 1.0])})
    )
    assert (values["episodes"], values["diverged"], values["mean"]) == (2, 2, 1.5)
    text = evaluation.report_text(values)
    assert "2 episodes without noise; 2 more diverged" in text
    assert text.splitlines()[-1].split() == ["at_goal", "0.5", "95", "%", "interval", "0", "to", "1"]
    with pytest.raises(UserError, match="all 4 episodes diverged"):
        evaluation.report(trained, evaluation.Result(np.array([]), np.array([]), 4))


def test_one_episode_has_no_interval(completed):
    trained = evaluation.load_run(str(completed[2]), 1)
    values = evaluation.report(trained, evaluation.Result(np.array([3.0]), np.array([5.0])))
    assert values["mean_interval"] is None and values["interquartile_mean_interval"] is None
    assert evaluation.report_text(values).count("no interval: one episode") == 2
