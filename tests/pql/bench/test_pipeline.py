"""scripts/bench.py pipeline: when it reads the counters, what it makes of them, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pql.bench import pipeline
from pql.errors import UserError

PLUGIN = Path(__file__).resolve().parents[1] / "point_mass.py"
POINT = [
    "task=Point", f"plugins=[{PLUGIN}]", "device=cpu", "num_envs=8", "algo.batch_size=16", "algo.hidden=[8]",
    "algo.replay_size=4000", "algo.warmup_steps=40", "algo.critic_updates_per_step=2",
]  # fmt: skip


def turn(side, rate):
    return {"side": side, "transitions_per_s": rate, "seconds": 1.0, "device_memory_bytes": None}


def test_ratios_are_of_neighbours_in_time_and_medians_over_rounds():
    """The machine was twice as slow in the second round, and in the third while one side ran."""
    rates = {"sync": (100.0, 50.0, 50.0), "parallel": (150.0, 75.0, 200.0), "actor": (300.0, 150.0, 250.0)}
    rounds = [turn(side, rates[side][i]) for i in range(3) for side in rates]
    found = pipeline.summary(rounds)
    assert found["overlap_gain"] == 1.5  # of 1.5, 1.5, 4
    assert found["actor_share_beside_learners"] == 0.5  # of .5, .5, .8
    assert found["sides"]["sync"]["transitions_per_s"] == 50.0
    assert pipeline.summary(rounds[::3])["overlap_gain"] is None


def test_first_reading_comes_when_the_learners_have_made_up_for_the_warm_up(monkeypatch, tmp_path):
    readings = []
    read = pipeline.Stopwatch.read
    monkeypatch.setattr(pipeline.Stopwatch, "read", lambda self: readings.append(read(self)) or readings[-1])
    found = pipeline.measure(POINT, pipeline.Options(seconds=0.3, settle=0.0), "sync")
    first, last = readings
    assert first["transitions"] >= (40 + 2) * 8 and first["critic_updates"] == 2 * first["transitions"] / 8
    assert found["seconds"] == pytest.approx(last["time"] - first["time"]) and found["seconds"] >= 0.3
    change = last["transitions"] - first["transitions"]
    assert found["transitions_per_s"] == pytest.approx(change / found["seconds"])
    assert found["utd"] == 2 / 8 and found["device_memory_bytes"] is None


def test_actor_alone_acts_with_the_policy_and_leaves_the_threads_as_they_were():
    torch.set_num_threads(2)
    found = pipeline.measure(POINT, pipeline.Options(seconds=0.1, settle=0.05), "actor")
    assert found["transitions_per_s"] > 0 and found["critic_updates_per_s"] == 0
    assert torch.get_num_threads() == 2


def test_its_file_holds_every_round(tmp_path, capsys):
    out = tmp_path / "pipeline.json"
    words = ["seconds=0.1", "settle=0", "rounds=2", "sides=[sync]", "sync=[algo.batch_size=8]", f"out={out}"]
    assert pipeline.main([*POINT, *words]) == 0
    found = json.loads(out.read_text())
    assert [x["side"] for x in found["rounds"]] == ["sync", "sync"]
    assert found["utd_requested"] == 2 / 8 and found["num_envs"] == 8
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines() if not line.startswith("written"))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("sides=[both]", "sides"),
        ("seconds=0", "seconds"),
        ("rounds=0", "rounds"),
        ("runtime=sync", "runtime"),
        ("eval_interval=5", "eval_interval"),
        ("num_evns=3", "num_envs"),
    ],
)
def test_mistakes_are_named_before_anything_runs(word, said):
    with pytest.raises(UserError, match=said):
        pipeline.main([*POINT, word])
