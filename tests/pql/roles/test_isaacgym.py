"""IsaacGymEnvs' tasks and the learner: what reaches replay, that Cartpole is learned, and how mistakes are told.

Without Isaac Gym: on the stand-in in tests/isaacgym_standin, with small tasks of our own. IsaacGymEnvs' real code:
test_isaacgymenvs.py.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch

from pql import config
from pql.errors import UserError
from pql.roles.actor import Actor
from pql.roles.build import make_replay, prepare
from pql.run.metrics import read_metrics
from tasks.simulators.isaacgym_env import IsaacGymEnv

ENVS, LIMIT = 9, 12


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("habit", ["ClockPostReset", "ClockPreReset", "ClockSameReset", "ClockNoReset"])
def test_every_row_in_replay_is_what_its_own_observation_says(standin, tiny, plugin, habit, n_step):
    """A row's observation names environment, episode and step; from these the rest of the row follows."""
    clocks, gamma, steps = standin.clocks(), 0.5, 70
    changes = {"num_envs": ENVS, "algo.gamma": gamma, "algo.n_step": n_step, "algo.replay_size": ENVS * 100}
    cfg = config.load(tiny(**changes, **{"algo.warmup_steps": steps}))
    world = {"env": {"numEnvs": ENVS, "episodeLength": LIMIT, "numStates": 3}}
    task = getattr(clocks, habit)(world, "cpu", "cpu", 0, True, False, False)
    env = IsaacGymEnv(habit, task, "cpu")
    algorithm, _, shared = prepare(cfg, env.spaces)
    replay = make_replay(cfg, algorithm, shared)
    actor = Actor(cfg, env, algorithm, replay, shared)
    for _ in range(steps):
        actor.step()
    rows = replay.unpack(replay.rows_at(torch.arange(int(replay.head))))
    assert len(rows.obs) == ENVS * (steps + 1 - n_step)
    learned = terminal = cut = 0
    for row in zip(*rows):
        obs, action, return_n, next_obs, discount, weight, states, next_states = row
        # what the critic is told is the same with the other sign, and belongs to the same moment
        assert torch.equal(states, -obs[:3]) and torch.equal(next_states, -next_obs[:3])
        e, episode, age, _ = (int(v) for v in obs.tolist())
        end, fell = clocks.ends_at(e, episode, LIMIT)
        # the last step before the limit may hide a fall, or has lost its observation
        usable = end if end < LIMIT - 1 else LIMIT - 2
        if habit == "ClockPostReset" and clocks.felt_again(e, episode):
            usable = 0
        assert float(weight) == (1.0 if age < usable else 0.0), (habit, e, episode, age)
        if not float(weight):
            continue
        k = min(n_step, usable - age)
        falls = fell and age + k == end
        rewards = [clocks.reward_of(e, episode, age + 1 + i) for i in range(k)]
        assert float(return_n) == sum(gamma**i * r for i, r in enumerate(rewards))
        assert float(discount) == (0.0 if falls else gamma**k)
        if not falls:
            assert next_obs[:3].tolist() == [e, episode, age + k]
        if k == 1 and not (falls and habit == "ClockSameReset"):
            assert float(next_obs[3]) == pytest.approx(float(action.sum()), abs=1e-5)
        learned, terminal, cut = learned + 1, terminal + falls, cut + (k < n_step and not falls)
    assert learned > 200 and terminal > 15 and (cut > 5 or n_step == 1)
    assert int(shared.invalid) > 30


# --- training ---------------------------------------------------------------------------------------------------


def test_cartpole_is_learned_in_three_processes_and_two_of_simulation(standin, script, tmp_path):
    """As in test_learning.py, on the stand-in: at least 450 of 500 within 50 000 steps; nothing is left behind."""
    run_dir = tmp_path / "run"
    settings = {
        "task": "Cartpole", "sim": "isaacgym", "device": "cpu", "seed": 1, "run_dir": run_dir, "video": "false",
        "max_env_steps": 50_000, "eval_interval": 10_000, "eval_episodes": 16, "checkpoint_interval": 0,
        "task.cfg.env.episodeLength": 501, "runtime": "parallel",
    }  # fmt: skip
    run = script([f"{key}={value}" for key, value in settings.items()], env=standin.environment(), cwd=tmp_path)
    code, out, err = run.end(300)
    assert code == 0, (out, err)
    curve = {x["env_steps"]: x["eval_return"] for x in read_metrics(run_dir / "metrics.jsonl") if "eval_return" in x}
    assert max(curve.values()) >= 450, curve
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["random_return"] < 50
    assert summary["utd"] == pytest.approx(summary["utd_requested"], rel=0.01)
    assert 0 < summary["invalid_transitions"] < 0.2 * summary["env_steps"]
    assert [p.name for p in tmp_path.iterdir()] == ["run"]  # the task's file was written elsewhere
    assert config.read(run_dir / "config.yaml").task.cfg == {"env": {"episodeLength": 501}}


def test_fields_of_the_tasks_own_file_are_part_of_a_runs_identity(tiny, standin, monkeypatch):
    cfg = config.load(tiny(sim="isaacgym", task="Anything", **{"task.cfg.env.learn.episodeLength_s": 2}))
    assert cfg.task.name == "Anything" and cfg.sim.name == "isaacgym"
    assert cfg.task.cfg == {"env": {"learn": {"episodeLength_s": 2}}}
    Path(cfg.run_dir).mkdir()
    config.save(cfg, Path(cfg.run_dir) / "config.yaml")
    with pytest.raises(UserError, match=r"task\.cfg"):
        config.load([f"run_dir={cfg.run_dir}", "resume=true", "task.cfg.env.learn.episodeLength_s=3"])


@pytest.mark.parametrize(
    "name, scale",
    [("Ant", 0.01), ("Humanoid", 0.01), ("AllegroHand", 0.01), ("ShadowHand", 0.01), ("FrankaCubeStack", 0.1),
     ("BallBalance", 0.1), ("Anymal", 1.0)],
)  # fmt: skip
def test_presets_are_the_papers_reward_scales_and_numbers_of_environments(tmp_path, name, scale):
    given = ["sim=isaacgym", "device=cpu", "preset=gpu", f"task={name}", f"run_dir={tmp_path / 'run'}"]
    cfg = config.load(given)
    assert (cfg.algo.reward_scale, cfg.num_envs, cfg.task.name) == (scale, 4096, name)
    assert config.load([*given, "algo.reward_scale=2", "num_envs=64"]).algo.reward_scale == 2


@pytest.mark.parametrize(
    "words, envs, said",
    [
        (["task=Cartpole"], False, "sim=isaacgym needs Python 3.8|sim=isaacgym is not installed"),
        (["task=Cartpol"], True, "IsaacGymEnvs has no task 'Cartpol'; did you mean Cartpole"),
        (["task=Cartpole", "task.cfg.env.episodeLenght=9"], True, "did you mean task.cfg.env.episodeLength"),
    ],
)
@pytest.mark.skipif(importlib.util.find_spec("isaacgym") is not None, reason="Isaac Gym is installed here")
def test_mistakes_are_one_line_with_the_remedy_and_exit_code_2(standin, script, tmp_path, words, envs, said):
    settings = ["sim=isaacgym", "device=cpu", f"run_dir={tmp_path / 'run'}", "video=false", *words]
    run = script(settings, env=standin.environment() if envs else {"PYTHONPATH": str(standin.ROOT)}, cwd=tmp_path)
    code, out, err = run.end(120)
    assert code == 2, (out, err)
    assert len(err.splitlines()) == 1 and err.startswith("error: "), err
    assert re.search(said, err), err
