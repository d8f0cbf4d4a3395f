"""runtime=sync: one seed, one run, to the bit, whatever interrupts it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pql import config
from pql.run.trainer import train
from pql.runtime import checkpoint

TIMES = ("wall_time_s", "wait_actor", "wait_v_learner", "wait_p_learner")


def run(overrides):
    cfg = config.load(overrides)
    return Path(cfg.run_dir), train(cfg)


def lines_of(run_dir):
    lines = [json.loads(text) for text in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def state_of(run_dir):
    """Every tensor of the newest checkpoint, and its counters."""
    folder, manifest = checkpoint.newest(run_dir)
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors.update({f"{path.stem}/{k}": v for k, v in checkpoint.load_tensors(folder, path.stem).items()})
    counters = {k: v for k, v in manifest.items() if k not in ("files", "wall_time_s")}
    return tensors, counters


def assert_same(a, b):
    (tensors_a, counters_a), (tensors_b, counters_b) = a, b
    assert counters_a == counters_b
    assert tensors_a.keys() == tensors_b.keys()
    bits = lambda tensor: tensor.numpy().tobytes()  # noqa: E731 (two bfloat16 side by side may look like a NaN)
    different = [name for name in tensors_a if bits(tensors_a[name]) != bits(tensors_b[name])]
    assert different == []
    # the comparison is worth something: it saw networks, optimizers, replay, windows and generators
    seen = {"v_learner/optimizer.critic.exp_avg", "p_learner/weights", "replay/rows", "actor/windows.after"}
    assert seen <= set(tensors_a)


@pytest.mark.parametrize("algo", ["pql", "pql_d"])
def test_two_runs_with_one_seed_are_the_same_to_the_bit(tiny, tmp_path, algo):
    one, _ = run(tiny(algo=algo))
    two, _ = run(tiny(algo=algo, run_dir=tmp_path / "two"))
    assert lines_of(one) == lines_of(two)
    assert sum("critic_loss" in line for line in lines_of(one)) == 4
    assert sum("eval_return" in line for line in lines_of(one)) == 2
    assert_same(state_of(one), state_of(two))


def test_another_seed_gives_another_run(tiny, tmp_path):
    one, _ = run(tiny())
    two, _ = run(tiny(seed=4, run_dir=tmp_path / "two"))
    tensors_one, tensors_two = state_of(one)[0], state_of(two)[0]
    for name in ("actor/obs", "p_learner/weights", "v_learner/weights"):
        assert not torch.equal(tensors_one[name], tensors_two[name])


# The nth loss sends the signal. With ratio 3 and a warm-up of 8 steps there are 24 critic updates to catch up with:
# the 10th is in the middle of that, the 301st in the middle of a later vector step's three.
@pytest.mark.parametrize(("algo", "dtype"), [("pql_faulty", "float32"), ("pql_d_faulty", "bfloat16")])
def test_interrupted_and_resumed_equals_uninterrupted(tiny, tmp_path, monkeypatch, algo, dtype):
    settings = {"algo": algo, "algo.critic_updates_per_step": 3, "algo.n_step": 3, "algo.replay_dtype": dtype}
    whole, _ = run(tiny(**settings))
    for fault, updates in (("v_learner:SIGINT:10", 10), ("v_learner:SIGTERM:301", 301), ("p_learner:SIGUSR2:77", 154)):
        monkeypatch.setenv("POINT_FAULT", fault)
        parts = tmp_path / str(updates)
        _, summary = run(tiny(**settings, run_dir=parts))
        assert summary["status"] == "interrupted" and summary["reason"] == fault.split(":")[1]
        assert summary["critic_updates"] == updates
        monkeypatch.delenv("POINT_FAULT")
        _, summary = run([f"run_dir={parts}", "resume=true"])
        assert summary["status"] == "completed"
        assert lines_of(parts) == lines_of(whole)
        assert_same(state_of(parts), state_of(whole))


def test_run_extended_past_its_end_equals_one_that_was_longer_from_the_start(tiny, tmp_path):
    """The ring has wrapped around by then (1200 rows); 1600 steps are a multiple of both intervals."""
    whole, _ = run(tiny(max_env_steps=3200))
    parts, summary = run(tiny(run_dir=tmp_path / "parts"))
    assert summary["env_steps"] == 1600
    _, summary = run([f"run_dir={parts}", "resume=true", "max_env_steps=3200"])
    assert summary["env_steps"] == 3200
    assert lines_of(parts) == lines_of(whole)
    assert_same(state_of(parts), state_of(whole))


def test_run_extended_from_between_two_lines_keeps_the_closing_line_it_wrote(tiny, tmp_path):
    whole, _ = run(tiny())
    parts, _ = run(tiny(run_dir=tmp_path / "parts", max_env_steps=1000))
    run([f"run_dir={parts}", "resume=true", "max_env_steps=1600"])
    extra = [line for line in lines_of(parts) if line["env_steps"] == 1000]
    assert len(extra) == 2  # a line of metrics and an evaluation, of the end at 1000
    assert [line for line in lines_of(parts) if line not in extra] == lines_of(whole)
    assert_same(state_of(parts), state_of(whole))


def test_resumed_after_a_crash_repeats_what_came_after_the_checkpoint(tiny, tmp_path, monkeypatch):
    settings = {"algo": "pql_faulty", "checkpoint_interval": 600}
    whole, _ = run(tiny(**settings))
    parts = tmp_path / "parts"
    monkeypatch.setenv("POINT_FAULT", "v_learner:raise:131")
    with pytest.raises(RuntimeError, match="a fault in the v_learner"):
        run(tiny(**settings, run_dir=parts))
    assert [line["env_steps"] for line in lines_of(parts)][-1] > 600  # lines that the checkpoint knows nothing of
    assert json.loads((parts / "summary.json").read_text())["status"] == "failed"
    with open(parts / "metrics.jsonl", "a") as file:
        file.write('{"env_steps": 1040, "trai')  # a line cut short
    monkeypatch.delenv("POINT_FAULT")
    run([f"run_dir={parts}", "resume=true"])
    assert lines_of(parts) == lines_of(whole)
    assert_same(state_of(parts), state_of(whole))


def test_checkpoint_without_replay_warms_up_again_and_goes_on(tiny, capsys):
    run_dir, _ = run(tiny(checkpoint_replay="false", max_env_steps=800))
    run([f"run_dir={run_dir}", "resume=true", "max_env_steps=1600", "log_interval=8"])
    assert "holds no replay ring" in capsys.readouterr().out
    updates = {line["env_steps"]: line["critic_updates"] for line in lines_of(run_dir) if "critic_loss" in line}
    # eight vector steps of eight environments without an update, then what is owed is made up for
    assert updates[800 + 7 * 8 if 800 + 7 * 8 in updates else 800] == 100
    assert updates[800 + 8 * 8] == 108
    assert updates[1600] == 200


def test_environment_that_cannot_restore_its_state_is_resumed_with_new_episodes(tiny, plugin, monkeypatch):
    import sys

    env_class = next(m for name, m in sys.modules.items() if name.endswith("point_mass.py")).PointEnv

    def refuse(*_):
        raise NotImplementedError("a simulator that cannot")

    monkeypatch.setattr(env_class, "state_dict", refuse)
    monkeypatch.setattr(env_class, "load_state_dict", refuse)
    run_dir, _ = run(tiny(max_env_steps=800))
    _, summary = run([f"run_dir={run_dir}", "resume=true", "max_env_steps=1600"])
    assert summary["status"] == "completed" and summary["critic_updates"] == 200
