"""What a run's settings were when: written at every start, and read by those who fit laws to its curve."""

from __future__ import annotations

import json

from pql import config
from pql.run.trainer import train
from scaling.curves.read import read_curves


def test_settings_changed_on_a_resume_stand_beside_the_step_from_which_they_hold(tiny, plugin, tmp_path):
    run_dir = tmp_path / "run"
    train(config.load(tiny()))
    train(config.load([f"run_dir={run_dir}", "resume=true", "max_env_steps=2400", "algo.batch_size=16"]))
    lines = [json.loads(line) for line in (run_dir / "settings.jsonl").read_text().splitlines()]
    assert [line["env_steps"] for line in lines] == [0, 1600]
    assert [line["algo"]["batch_size"] for line in lines] == [32, 16]
    curves = read_curves(run_dir)
    assert set(curves.table["batch_size"]) == {32} and curves.table["env_steps"].max() == 1600
    assert any("algo.batch_size" in note for note in curves.notes)


def test_a_run_gone_on_with_as_it_was_counts_whole(tiny, plugin, tmp_path):
    run_dir = tmp_path / "run"
    train(config.load(tiny()))
    train(config.load([f"run_dir={run_dir}", "resume=true", "max_env_steps=2400"]))
    assert read_curves(run_dir).table["env_steps"].max() == 2400
