"""What a run writes, when, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pql import config
from pql.errors import RoleFailed, UserError
from pql.run import trainer
from pql.run.metrics import read_metrics
from pql.run.trainer import train
from pql.runtime import checkpoint


@pytest.fixture
def finished(tiny, tmp_path):
    def run(**changes):
        cfg = config.load(tiny(**changes))
        return cfg, train(cfg), read_metrics(tmp_path / "run" / "metrics.jsonl")

    return run


def steps_of(lines, key):
    return [line["env_steps"] for line in lines if key in line]


@pytest.fixture
def saved(monkeypatch):
    """The env steps of every checkpoint, in the order in which they are written."""
    steps, finish = [], checkpoint.finish

    def noted(folder, env_steps, facts):
        steps.append(env_steps)
        return finish(folder, env_steps, facts)

    monkeypatch.setattr(checkpoint, "finish", noted)
    return steps


def test_lines_evaluations_and_checkpoints_come_when_they_are_due(finished, saved):
    _, summary, lines = finished(max_env_steps=2000, log_interval=300, eval_interval=700, checkpoint_interval=900)
    # vector steps are of 8: the first multiple of 8 at or past each multiple of the interval, and the end
    assert steps_of(lines, "critic_loss") == [304, 600, 904, 1200, 1504, 1800, 2000]
    assert steps_of(lines, "eval_return") == [704, 1400, 2000]
    assert saved == [904, 1800, 2000]
    assert summary["env_steps"] == 2000


def test_end_is_written_once_where_it_is_due_anyway(finished, saved):
    _, _, lines = finished(max_env_steps=1600, checkpoint_interval=800)
    assert steps_of(lines, "critic_loss") == [400, 800, 1200, 1600]
    assert steps_of(lines, "eval_return") == [800, 1600]
    assert saved == [800, 1600]


def test_zero_intervals_mean_only_at_the_end(finished, tmp_path):
    _, _, lines = finished(eval_interval=0, checkpoint_interval=0)
    assert steps_of(lines, "eval_return") == [1600]
    assert len(checkpoint.found(tmp_path / "run")) == 1


def test_number_of_steps_is_rounded_up_to_whole_vector_steps(finished):
    assert finished(max_env_steps=1601)[1]["env_steps"] == 1608


def test_line_holds_the_metrics_that_others_rely_on(completed):
    lines = read_metrics(completed[2] / "metrics.jsonl")
    first = next(line for line in lines if "critic_loss" in line)
    always = "env_steps wall_time_s critic_updates policy_updates utd critic_flops train_return train_length"
    more = "train_episodes invalid_transitions critic_loss q policy_loss critic_grad_norm policy_grad_norm policy_age "
    more += "clipped_actions replay_conflicts"
    waits = {"wait_actor", "wait_v_learner", "wait_p_learner"}
    assert set(first) == {*always.split(), *more.split(), "diverged_episodes", "contact_overflows", *waits}
    assert first["critic_updates"] == 50 and first["policy_updates"] == 25 and first["utd"] == 50 / 400
    # 50 steps of 8 environments, episodes of at most 25 steps: the window of 100 is partly filled and says so
    assert 16 <= first["train_episodes"] < 100 and 0 < first["train_length"] <= 25


def test_first_line_before_any_episode_has_ended_has_no_return(finished):
    lines = finished(log_interval=8, max_env_steps=80)[2]
    first = lines[0]
    assert first["env_steps"] == 8 and first["train_episodes"] == 0
    assert "train_return" not in first and "critic_loss" not in first


def test_summary_says_what_was_trained_and_how_well(completed):
    _, summary, run_dir = completed
    lines = read_metrics(run_dir / "metrics.jsonl")
    assert summary == json.loads((run_dir / "summary.json").read_text())
    assert summary["status"] == "completed" and summary["task"] == "Point" and summary["algo"] == "pql"
    assert summary["seed"] == 3 and summary["env_steps"] == 1600 and summary["critic_updates"] == 200
    assert summary["policy_updates"] == 100 and summary["utd"] == summary["utd_requested"] == 0.125
    assert summary["invalid_transitions"] == 0 and summary["device"] == "cpu"
    assert summary["eval_return"] == lines[-1]["eval_return"]
    low, high = summary["eval_return_interval"]
    assert low <= summary["eval_return"] <= high
    assert isinstance(summary["random_return"], float)
    # two critics, 2 + 2 -> 16 -> 1, without and with biases
    weights, biases = 2 * (4 * 16 + 16), 2 * (16 + 1)
    assert summary["critic_parameters"] == weights + biases
    assert summary["agent_parameters"] == 2 * (weights + biases) + (2 * 16 + 16 * 2) + (16 + 2)  # targets, policy
    # a multiply and an add per weight and row; the target: forward once; the critic: forward, weights' gradients, and
    # inputs' gradients in all but the first layer; the policy 2 -> 16 -> 2: forward once
    forward = 2 * 32 * weights
    policy = 2 * 32 * (2 * 16 + 16 * 2)
    inputs = 2 * 32 * 2 * 16
    assert summary["critic_flops_per_update"] == 3 * forward + inputs + policy
    assert summary["critic_flops"] == 200 * summary["critic_flops_per_update"]


def test_compiler_that_nobody_asked_for_is_not_imported(tiny):
    """torch imports it lazily from many places; it would take a second of every start."""
    code = (
        "import sys; from pql import config; from pql.run.trainer import train; train(config.load(sys.argv[1:]))\n"
        "assert 'pql.roles.v_learner' in sys.modules and 'torch._dynamo' not in sys.modules"
    )
    command = [sys.executable, "-c", code, *tiny(max_env_steps=160)]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_configuration_in_the_folder_is_the_resolved_one(completed):
    cfg, _, run_dir = completed
    assert config.read(run_dir / "config.yaml") == cfg
    assert cfg.algo.utd == 0.125 and cfg.device == "cpu" and os.path.isabs(cfg.plugins[0])


def test_max_time_ends_a_run_completely_and_is_counted_over_all_its_parts(finished, tmp_path):
    _, summary, _ = finished(max_env_steps=10**9, max_time=1.0, eval_interval=0)
    assert summary["status"] == "completed" and summary["env_steps"] < 10**9
    assert 1.0 <= summary["wall_time_s"] < 3.0
    assert summary["critic_updates"] == summary["env_steps"] // 8
    run_dir = tmp_path / "run"
    began = time.monotonic()
    again = train(config.load([f"run_dir={run_dir}", "resume=true"]))  # no time is left
    assert again == summary
    longer = train(config.load([f"run_dir={run_dir}", "resume=true", "max_time=2"]))
    assert longer["env_steps"] > summary["env_steps"] and 2.0 <= longer["wall_time_s"] < 4.0
    assert time.monotonic() - began < 30


def test_interrupt_during_the_last_evaluation_still_ends_with_a_checkpoint_to_resume_from(tiny, tmp_path, monkeypatch):
    import signal

    conclude = trainer.Monitor.conclude

    def interrupted(self):
        os.kill(os.getpid(), signal.SIGTERM)
        conclude(self)

    monkeypatch.setattr(trainer.Monitor, "conclude", interrupted)
    summary = train(config.load(tiny(eval_interval=0)))
    assert summary["status"] == "interrupted" and summary["env_steps"] == 1600
    monkeypatch.undo()
    summary = train(config.load([f"run_dir={tmp_path / 'run'}", "resume=true"]))
    assert summary["status"] == "completed" and summary["env_steps"] == 1600 and "eval_return" in summary


def test_failed_run_says_so_in_its_summary(tiny, tmp_path):
    cfg = config.load(tiny(**{"task.options.nan_at": 20, "task.options.only": 8}))
    with pytest.raises(FloatingPointError):
        train(cfg)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed" and "NaN or infinity" in summary["reason"]


@pytest.mark.parametrize("role, metric", [("v_learner", "critic_loss"), ("p_learner", "policy_loss")])
def test_diverged_learner_ends_the_run_before_it_can_spoil_a_checkpoint(tiny, tmp_path, monkeypatch, role, metric):
    monkeypatch.setenv("POINT_FAULT", f"{role}:nan:70")
    with pytest.raises(RoleFailed, match=rf"the {role} diverged: {metric} is no finite number after \d+ critic up"):
        train(config.load(tiny(algo="pql_faulty", log_interval=8, checkpoint_interval=8)))
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"
    folder, _ = checkpoint.newest(tmp_path / "run")
    assert all(torch.isfinite(value).all() for value in checkpoint.load_tensors(folder, role).values())


def test_roles_draw_from_generators_of_their_own():
    from pql.roles.learner import seed_of

    seeds = {seed_of(seed, role) for seed in range(50) for role in ("actor", "v_learner", "p_learner", "networks")}
    assert len(seeds) == 200


def test_simulator_of_a_plugin_is_named_like_any_other(tiny):
    assert config.load(tiny(sim="plane")).sim.name == "plane"
    with pytest.raises(UserError, match=r"unknown sim 'plan' \(did you mean plane\?\)"):
        config.load(tiny(sim="plan"))


def test_clock_counts_training_alone_and_no_share_of_waiting_is_above_one(tiny, tmp_path, monkeypatch):
    """Neither the last checkpoint nor the final evaluation; the two are made slow here."""
    at, clock = {}, trainer.Monitor
    for name in ("start_clock", "stop_clock"):
        original = getattr(clock, name)

        def noted(self, name=name, original=original):
            original(self)
            at[name] = time.monotonic()

        monkeypatch.setattr(clock, name, noted)
    finish, episodes = checkpoint.finish, trainer.evaluation.episodes

    def slow_finish(*args):
        time.sleep(0.5)
        return finish(*args)

    def slow_episodes(*args):
        time.sleep(0.5)
        yield from episodes(*args)

    monkeypatch.setattr(checkpoint, "finish", slow_finish)
    monkeypatch.setattr(trainer.evaluation, "episodes", slow_episodes)
    summary = train(config.load(tiny(eval_interval=0, max_env_steps=400, log_interval=150)))
    assert summary["wall_time_s"] == pytest.approx(at["stop_clock"] - at["start_clock"], abs=0.02)
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert {line["wall_time_s"] for line in lines if line["env_steps"] == 400} == {summary["wall_time_s"]}
    assert all(0 <= line[f"wait_{role}"] <= 1 for line in lines for role in ("actor", "v_learner") if "utd" in line)


def test_what_takes_long_after_training_says_what_it_is(tiny, capsys):
    train(config.load(tiny(eval_interval=800, max_env_steps=1200)))
    assert "evaluating the final policy: 4 episodes, about 0 s as the last one took" in capsys.readouterr().out


def test_two_runs_started_in_one_second_have_folders_of_their_own(tiny):
    one, two = (config.load(tiny(run_dir=None)).run_dir for _ in range(2))
    assert one != two and one.startswith("runs/Point_pql_s3_")
