"""Runs side by side in one process: each is the run that it is alone."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from pql import algorithms, config
from pql.algorithms.pql import PQL
from pql.errors import UserError
from pql.roles import recorded
from pql.roles.pack import Learners
from pql.run import trainer
from pql.run.curve import as_csv, as_text, mean_curve
from pql.run.metrics import read_metrics
from pql.run.monitor import Monitor
from pql.run.pack import train_together
from pql.run.trainer import train
from pql.runtime import checkpoint
from tasks.graphs import WARM_UP

UNLIKE = ("runs_side_by_side", "wall_time_s", "time_alone_s", "wait_actor", "wait_v_learner", "wait_p_learner")


@pytest.fixture
def cartpole(mujoco, tmp_path):
    """A configuration of a run of a second or two: 60 vector steps."""

    def made(name, seed, **changes):
        values = {
            "task": "Cartpole", "runtime": "sync", "device": "cpu", "num_envs": 8, "max_env_steps": 480, "seed": seed,
            "eval_interval": 240, "eval_episodes": 2, "log_interval": 80, "checkpoint_interval": 0, "video": "false",
            "compile": "false", "algo.hidden": "[16,16]", "algo.batch_size": 32, "algo.replay_size": 400,
            "algo.warmup_steps": 10, "algo.critic_updates_per_step": 0.5, "run_dir": tmp_path / name, **changes,
        }  # fmt: skip
        return config.load([f"{key}={value}" for key, value in values.items()])

    return made


def lines_of(cfg):
    lines = read_metrics(Path(cfg.run_dir) / "metrics.jsonl")
    return [{k: v for k, v in line.items() if k not in UNLIKE} for line in lines]


def state_of(cfg):
    folder, manifest = checkpoint.newest(Path(cfg.run_dir))
    files = [path.stem for path in folder.glob("*.safetensors")]
    tensors = {f"{name}/{k}": v for name in files for k, v in checkpoint.load_tensors(folder, name).items()}
    return tensors, {k: v for k, v in manifest.items() if k not in ("files", *UNLIKE)}


def assert_near(cfg, other):
    """What training measures to 1e-5; what falling poles make of the same policy to 1e-4."""
    assert len(lines_of(cfg)) == len(lines_of(other)) > 6
    for line, theirs in zip(lines_of(cfg), lines_of(other)):
        rel, least = (1e-4, 1e-5) if "eval_return" in line else (1e-5, 1e-6)
        assert line == pytest.approx(theirs, rel=rel, abs=least)


def assert_same(cfg, other):
    (mine, my_facts), (theirs, their_facts) = state_of(cfg), state_of(other)
    assert (my_facts, mine.keys()) == (their_facts, theirs.keys())
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert lines_of(cfg) == lines_of(other)


OWN = {
    "pql": [{}, {"algo.critic_lr": 3e-3, "algo.target_noise": 0.4}, {"algo.tau": 0.2, "algo.noise_high": 0.3}],
    "sac": [{}, {"algo.actor_lr": 3e-3, "algo.target_entropy": -2}, {"algo.target_entropy": -0.5, "algo.tau": 0.02}],
}


@pytest.mark.parametrize("algo", ["pql", "sac"])
def test_a_replica_is_the_run_that_it_is_alone(cartpole, algo):
    """Over its first 200 critic updates."""
    changes = [{"algo.critic_updates_per_step": 4, "max_env_steps": 400, **own} for own in OWN[algo]]
    if algo == "sac":  # a number and none are two laws, not two numbers
        changes[0]["algo.target_entropy"] = -1
    packed = [cartpole(f"pack{k}", 5 + k, algo=algo, **own) for k, own in enumerate(changes)]
    alone = [cartpole(f"alone{k}", 5 + k, algo=algo, **own) for k, own in enumerate(changes)]
    summaries = train_together(packed)
    for cfg, other, summary in zip(packed, alone, summaries):
        expected = train(other)
        assert summary["runs_side_by_side"] == 3 and expected["runs_side_by_side"] == 1
        assert (summary["status"], summary["critic_updates"]) == ("completed", 200)
        assert summary["time_alone_s"] > 0 and "time_alone_s" not in expected
        for line in read_metrics(Path(cfg.run_dir) / "metrics.jsonl"):  # no line's seconds pass for the run's own
            assert line["runs_side_by_side"] == 3 and line["time_alone_s"] <= summary["time_alone_s"]
        assert summary["random_return"] == expected["random_return"]
        assert_near(cfg, other)
        (mine, facts), (theirs, their_facts) = state_of(cfg), state_of(other)
        assert facts == their_facts
        assert mine.keys() == theirs.keys()
        for name in mine:  # as many draws, from the same generators
            if name.endswith("generator"):
                assert torch.equal(mine[name], theirs[name]), name
        assert torch.allclose(mine["replay/rows"], theirs["replay/rows"], rtol=1e-4, atol=1e-5)


def test_a_pack_asked_to_compiles_the_gradients_of_all_and_of_no_replica(cartpole, monkeypatch, capsys):
    graphs = []
    monkeypatch.setattr(recorded, "compiled", lambda graph, tensors: graphs.append(len(tensors)) or graph)
    train_together([cartpole(f"c{k}", k, compile="true") for k in (0, 1)])
    assert len(graphs) == 2 and min(graphs) > 10  # the critics' and the policy's, with all that they hold
    assert capsys.readouterr().out.count("compiling the gradients of all") == 1


def test_replicas_go_on_alone_and_in_another_pack(cartpole, monkeypatch):
    """Stopped after 320 steps and gone on with as two and one, a pack ends where one that was not stopped ends."""
    whole = [cartpole(f"whole{k}", k) for k in range(3)]
    train_together(whole)
    limited = [cartpole(f"parts{k}", k, max_env_steps=320) for k in range(3)]
    train_together(limited)
    parts = [cartpole(f"parts{k}", k, max_env_steps=480, resume="true") for k in range(3)]
    assert [summary["env_steps"] for summary in [*train_together(parts[:2]), train(parts[2])]] == [480] * 3
    for cfg, other in zip(parts, whole):
        (mine, facts), (theirs, their_facts) = state_of(cfg), state_of(other)
        assert facts == their_facts
        for name in mine:
            close = torch.allclose(mine[name].double(), theirs[name].double(), rtol=1e-4, atol=1e-4)
            assert close and (torch.equal(mine[name], theirs[name]) or not name.endswith("generator")), name


def test_a_resumed_pack_is_one_that_was_not_stopped_to_the_bit(cartpole, monkeypatch):
    whole = [cartpole(f"whole{k}", k) for k in range(2)]
    train_together(whole)
    tick = Monitor.go_on

    def stop_at_240(monitor):
        tick(monitor)
        if monitor.env_steps == 240:
            monitor.interrupt.name = "SIGTERM"

    parts = [cartpole(f"parts{k}", k) for k in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(Monitor, "go_on", stop_at_240)
        assert [s["status"] for s in train_together(parts)] == ["interrupted"] * 2
    train_together([cartpole(f"parts{k}", k, resume="true") for k in range(2)])
    for cfg, other in zip(parts, whole):
        assert_same(cfg, other)


def test_a_replica_that_diverges_fails_alone(cartpole, capsys):
    sound = [cartpole(f"sound{k}", k) for k in range(3)]
    train_together(sound)
    mixed = [cartpole(f"mixed{k}", k, **({"algo.critic_lr": 1e30} if k == 1 else {})) for k in range(3)]
    summaries = train_together(mixed)
    assert [summary["status"] for summary in summaries] == ["completed", "failed", "completed"]
    said = capsys.readouterr().out
    assert said.startswith("Cartpole: sim=mujoco device=cpu\n")
    assert "diverged" in summaries[1]["reason"] and "diverged" in said
    for k in (0, 2):
        assert_same(mixed[k], sound[k])


class Asking(PQL):
    """A loss that looks at a value on the host, which can't be done for several at once."""

    def policy_loss(self, nets, batch, noise):
        assert float(batch.weight.sum()) >= 0
        return super().policy_loss(nets, batch, noise)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"algo.batch_size": 16}, "they differ in algo.batch_size (32 and 16)"),
        ({"algo.gamma": 0.9}, "they differ in algo.gamma"),
        ({"algo": "asking"}, "algo=asking can't be computed for several runs at once"),
        ({"runtime": "parallel"}, "runtime=parallel trains one run at a time"),
        ({"max_time": 60}, "max_time=60 is each run's own time"),
    ],
)
def test_what_cannot_be_packed_is_trained_one_after_the_other_with_a_line(cartpole, monkeypatch, changes, why):
    algorithms.register("asking", Asking)
    of_all = {k: v for k, v in changes.items() if k in ("algo", "runtime", "max_time")}
    short = {"max_env_steps": 160, "eval_interval": 0, "algo.warmup_steps": 19}
    cfgs = [cartpole("a", 0, **short, **of_all), cartpole("b", 1, **short, **changes)]
    if "runtime" in changes:  # three processes are started elsewhere
        monkeypatch.setattr(trainer, "go_on", lambda *_: {"status": "completed", "runs_side_by_side": 1})
    said = []
    summaries = train_together(cfgs, said.append)
    assert [(s["status"], s["runs_side_by_side"]) for s in summaries] == [("completed", 1)] * 2
    (line,) = said
    assert why in line and line.endswith("so these 2 runs are trained one after the other")


@pytest.mark.gpu
@pytest.mark.parametrize("algo", ["pql", "sac"])
def test_replicas_on_a_gpu_are_the_runs_that_they_are_alone(cartpole, capfd, algo):
    """An update of all of them is one graph, each draws as it does alone; stopped, they go on one by one."""
    common = {"device": "cuda", "sim": "mujoco_warp", "algo": algo, "algo.critic_updates_per_step": 2}
    packed = [cartpole(f"pack{k}", 5 + k, **common, **own) for k, own in enumerate(OWN[algo][1:])]
    alone = [cartpole(f"alone{k}", 5 + k, **common, **own) for k, own in enumerate(OWN[algo][1:])]
    recorded, graphs = [], Learners.update

    def noted(learners):
        graphs(learners)
        recorded.append(learners.graphed_step.graph is not None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learners, "update", noted)
        assert [summary["runs_side_by_side"] for summary in train_together(packed)] == [2, 2]
    assert sum(recorded) == len(recorded) - 2 * WARM_UP > 100 and "no CUDA graph" not in capfd.readouterr().err
    for cfg, other in zip(packed, alone):
        train(other)
        assert_near(cfg, other)
        (mine, facts), (theirs, their_facts) = state_of(cfg), state_of(other)
        assert facts == their_facts
        draws = [name for name in mine if name.endswith("generator")]
        assert len(draws) == 4 and all(torch.equal(mine[name], theirs[name]) for name in draws)
    longer = cartpole("pack1", 6, **common, **OWN[algo][2], max_env_steps=560, resume="true")
    assert train(longer)["env_steps"] == 560


def test_mean_curve_has_students_interval_at_the_steps_that_all_runs_share(tmp_path):
    for name, returns in {"a": {100: 1.0, 200: 4.0, 300: 9.0}, "b": {100: 3.0, 200: 4.0}}.items():
        (tmp_path / name).mkdir()
        lines = [{"env_steps": steps, "eval_return": value} for steps, value in returns.items()]
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = mean_curve([tmp_path / "a", tmp_path / "b"]).points
    # two values 1 and 3: deviation sqrt 2, of the mean 1; Student's t with one degree of freedom is 12.706
    assert (first.at, first.mean) == (100, 2.0)
    assert (first.low, first.high) == pytest.approx((2 - 12.7062, 2 + 12.7062), abs=1e-3)
    assert (second.at, second.mean, second.low, second.high) == (200, 4.0, 4.0, 4.0)
    alone = mean_curve([tmp_path / "b"])
    assert math.isnan(alone.points[0].low)
    assert as_text(alone).splitlines()[0].split() == ["100", "env", "steps:", "return", "3.00"]
    assert as_csv(alone).splitlines()[:2] == ["env_steps,mean,low,high", "100,3.0,nan,nan"]


def test_mean_curve_on_a_fixed_dataset_is_over_critic_updates(tmp_path):
    lines = [{"env_steps": 600, "critic_updates": k, "passes": k / 60, "eval_return": k / 10} for k in (10, 20)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    curve = mean_curve([tmp_path, tmp_path])
    assert (curve.axis, curve.points) == ("critic_updates", [(10, 1.0, 1.0, 1.0), (20, 2.0, 2.0, 2.0)])


def test_seeds_give_a_run_each_below_the_folder(tmp_path):
    cfgs = config.load_each(["task=Cartpole", "seeds=[4,2]", f"run_dir={tmp_path}/x"])
    assert [(cfg.seed, cfg.run_dir) for cfg in cfgs] == [(4, f"{tmp_path}/x/s4"), (2, f"{tmp_path}/x/s2")]


def test_a_file_gives_each_run_its_words(tmp_path):
    path = tmp_path / "pack.json"
    runs = [["task=Cartpole", "seed=4", f"run_dir={tmp_path}/a"], ["task=Ant", "seed=2", f"run_dir={tmp_path}/b"]]
    path.write_text(json.dumps({"runs": runs}))
    cfgs = config.load_each([f"pack={path}"])
    assert [(cfg.task.name, cfg.seed) for cfg in cfgs] == [("Cartpole", 4), ("Ant", 2)]
    with pytest.raises(UserError, match="give no other word"):
        config.load_each([f"pack={path}", "seed=1"])
    path.write_text('{"runs": 3}')
    with pytest.raises(UserError, match="must be a file with"):
        config.load_each([f"pack={path}"])


def test_runs_of_a_file_are_configured_as_each_by_itself(tmp_path):
    """Also where they name different keys, or the same with values that decide more than themselves."""
    path, own = tmp_path / "pack.json", [
        ["algo.utd=0.5", "algo.critic_lr=3e-4"], ["algo.utd=0.25", "algo.critic_lr=1e-2"], ["algo.utd=1"],
        ["algo.critic_updates_per_step=2", "algo.hidden=[8]"], ["algo.critic_updates_per_step=4", "algo.hidden=[4,4]"],
        ["num_envs=32", "algo.utd=1"], ["algo=sac", "algo.actor_lr=1e-2"], ["algo=sac", "algo.actor_lr=2"],
    ]  # fmt: skip
    runs = [["task=Cartpole", *more, f"seed={k}", f"run_dir={tmp_path}/{k}"] for k, more in enumerate(own)]
    path.write_text(json.dumps({"runs": runs}))
    assert config.load_each([f"pack={path}"]) == [config.load(run) for run in runs]
    path.write_text(json.dumps({"runs": [runs[0], [*runs[1], "algo.tau=2"]]}))
    with pytest.raises(UserError, match=r"algo\.tau"):
        config.load_each([f"pack={path}"])


def test_too_many_runs_for_the_memory_name_how_many_fit(cartpole, monkeypatch):
    cfgs = [cartpole(name, 0) for name in "ab"]
    # a ring is 400 rows of 2 * 4 + 1 + 3 numbers of 4 bytes: 19200 bytes
    pages = {"SC_AVPHYS_PAGES": 30, "SC_PAGE_SIZE": 1000}
    monkeypatch.setattr("os.sysconf", pages.__getitem__)
    with pytest.raises(UserError, match="take at most 1 runs"):
        train_together(cfgs)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["seeds=[1,1]"], r"seeds=\[1,1\]: must be a list of different whole numbers"),
        (["seeds=3"], "seeds=3: must be a list"),
        (["seeds=[-1]"], "must be a list"),
        (["seeds=[0,1]", "seed=2"], r"seed=2 and seeds=\[0,1\]: give one of them"),
    ],
)
def test_bad_seeds_are_refused_with_the_rule(words, why):
    with pytest.raises(UserError, match=why):
        config.load_each(["task=Cartpole", *words])
