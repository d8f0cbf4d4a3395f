"""Other people's environments and the learner: what reaches replay, that a run trains, and how mistakes are told."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from pql import config
from pql.roles.actor import Actor
from pql.roles.build import make_replay, prepare
from pql.run.metrics import read_metrics

ENVS = 9
FOREIGN = Path(__file__).resolve().parents[2] / "foreign"
LABS = FOREIGN.with_name("labs") / "standin"
GYM = ["single", "NextStep", "SameStep", "Disabled", "lost", "batched"]
DM = ["dict", "soft", "our limit"]


@pytest.mark.parametrize("world, n_step", [*((world, 3) for world in GYM + DM), ("single", 1), ("NextStep", 1)])
def test_every_row_in_replay_is_what_its_own_observation_says(foreign, tiny, plugin, monkeypatch, world, n_step):
    """A row's observation names environment, episode and step; from these the rest of the row follows."""
    if world in DM:
        pytest.importorskip("dm_env", reason="needs dm-control: pip install .[dmc]")
        monkeypatch.syspath_prepend(str(FOREIGN))
    truth, gamma, steps = foreign.truth(), 0.5, 70
    changes = {"num_envs": ENVS, "algo.gamma": gamma, "algo.n_step": n_step, "algo.replay_size": ENVS * 100}
    cfg = config.load(tiny(**changes, **{"algo.warmup_steps": steps}))
    if world in GYM:
        module, name, options = foreign.WORLDS[world]
    else:
        module, name, options = "dm_share", "foreign_envs:dm_clock", {"max_episode_steps": truth.LIMIT}
        options.update(foreign.DM_WORLDS[world])
    env = foreign.share(module, name, ENVS, **options)
    algorithm, _, shared = prepare(cfg, env.spaces)
    replay = make_replay(cfg, algorithm, shared)
    actor = Actor(cfg, env, algorithm, replay, shared)
    for _ in range(steps):
        actor.step()
    rows = replay.unpack(replay.rows_at(torch.arange(int(replay.head))))
    assert len(rows.obs) == ENVS * (steps + 1 - n_step)
    learned = terminal = cut = 0
    for obs, action, return_n, next_obs, discount, weight, *_ in zip(*rows):
        who, episode, age, _ = (int(v) for v in obs.tolist())
        end, fell, _ = truth.ends_at(who, episode)
        usable = end - 1 if world == "lost" else end  # the step that loses its terminal observation is not learned from
        assert float(weight) == (1.0 if age < usable else 0.0), (world, who, episode, age)
        if not float(weight):
            continue
        k = min(n_step, usable - age)
        falls = fell and age + k == end
        rewards = [truth.reward_of(who, episode, age + 1 + i) for i in range(k)]
        assert float(return_n) == sum(gamma**i * r for i, r in enumerate(rewards))
        assert float(discount) == (0.0 if falls else gamma**k)
        assert next_obs[:3].tolist() == [who, episode, age + k]
        if k == 1:
            assert float(next_obs[3]) == pytest.approx(truth.done_by(action), abs=1e-4)
        learned, terminal, cut = learned + 1, terminal + falls, cut + (k < n_step and not falls)
    assert learned > 200 and (terminal > 15 or world == "lost") and (cut > 5 or n_step == 1)
    assert (int(shared.invalid) > 30) == (world in ("NextStep", "lost"))


def test_a_run_in_three_processes_and_its_workers_trains_and_leaves_none(script, tmp_path):
    pytest.importorskip("gymnasium", reason="needs gymnasium: pip install .[gym]")
    run_dir = tmp_path / "run"
    settings = {
        "task": "DictClock-v0", "sim": "gymnasium", "plugins": f"[{FOREIGN / 'foreign_envs.py'}]", "device": "cpu",
        "run_dir": run_dir, "num_envs": 8, "max_env_steps": 1600, "log_interval": 400, "eval_interval": 800,
        "eval_episodes": 2, "sim.threads": 2, "algo.batch_size": 32, "algo.hidden": "[16]", "algo.replay_size": 1200,
        "algo.warmup_steps": 8, "algo.critic_updates_per_step": 1, "runtime": "parallel",
        "sim.metrics": "[age,age/mean]",
    }  # fmt: skip
    code, out, err = script([f"{key}={value}" for key, value in settings.items()], cwd=tmp_path).end(300)
    assert code == 0, (out, err)
    summary = json.loads((run_dir / "summary.json").read_text())
    assert (summary["status"], summary["invalid_transitions"]) == ("completed", 0)
    assert summary["utd"] == pytest.approx(summary["utd_requested"], rel=0.01)
    assert Path(summary["video"]).stat().st_size > 0  # of its rgb_array
    lines = read_metrics(run_dir / "metrics.jsonl")
    assert lines[-1]["env_steps"] == 1600
    told = [line["task/age"] for line in lines if "task/age" in line]
    assert told and all(1 <= age <= 12 for age in told)  # of the newest episodes
    evaluated = [line for line in lines if "eval_return" in line]
    assert all(line["eval/age"] == line["eval_length"] for line in evaluated)  # how old an episode gets is its length
    assert all(line["eval/age/mean"] == (line["eval_length"] + 1) / 2 for line in evaluated)
    assert summary["metrics"]["age"]["mean"] == evaluated[-1]["eval_length"]
    assert f", age {evaluated[-1]['eval/age']:.4g}" in out
    assert config.read(run_dir / "config.yaml", trust=True).sim.step_timeout == 5.0


def test_a_run_in_three_processes_and_two_of_another_interpreter_trains_and_leaves_none(script, tmp_path):
    """On the stand-in for mjlab in tests/labs/standin."""
    run_dir = tmp_path / "run"
    settings = {
        "task": "Mjlab-Clock", "sim": "mjlab", "sim.python": sys.executable, "device": "cpu", "run_dir": run_dir,
        "num_envs": 8, "max_env_steps": 4800, "log_interval": 400, "eval_interval": 800, "eval_episodes": 2,
        "task.cfg.episode_length_s": 4.0, "task.options.action_scale": 2, "algo.batch_size": 32, "algo.hidden": "[16]",
        "algo.replay_size": 1200, "algo.warmup_steps": 8, "algo.critic_updates_per_step": 1, "runtime": "parallel",
    }  # fmt: skip
    path = {"PYTHONPATH": f"{LABS}{os.pathsep}{FOREIGN.parents[1]}"}
    run = script([f"{key}={value}" for key, value in settings.items()], cwd=tmp_path, env=path)
    code, out, err = run.end(300)
    assert code == 0, (out, err)
    assert out.splitlines()[0] == "Mjlab-Clock: sim=mjlab device=cpu"
    summary = json.loads((run_dir / "summary.json").read_text())
    assert (summary["status"], summary["invalid_transitions"]) == ("completed", 0)
    assert summary["utd"] == pytest.approx(summary["utd_requested"], rel=0.01)
    found = read_metrics(run_dir / "metrics.jsonl")
    assert len([line for line in found if "eval_return" in line]) >= 2
    assert [path.name for path in tmp_path.iterdir()] == ["run"]  # the simulation works in a folder of its own
    assert config.read(run_dir / "config.yaml", trust=True).task.cfg == {"episode_length_s": 4.0}


@pytest.mark.parametrize(
    "words, said",
    [
        (["task=Clok-v0"], "did you mean Clock-v0?"),
        (["task=Clock-v0", "task.options.fault=step", "task.options.at=1"], "raised: ValueError: three is too many"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(script, tmp_path, words, said):
    settings = ["sim=gymnasium", f"plugins=[{FOREIGN / 'foreign_envs.py'}]", "device=cpu", "runtime=sync", "num_envs=4",
                "eval_episodes=2", "sim.threads=1", f"run_dir={tmp_path / 'run'}", "video=false"]  # fmt: skip
    pytest.importorskip("gymnasium", reason="needs gymnasium: pip install .[gym]")
    code, out, err = script([*settings, *words], cwd=tmp_path).end(120)
    assert code == 2, (out, err)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and said in lines[0], err
    assert "Traceback" not in err
