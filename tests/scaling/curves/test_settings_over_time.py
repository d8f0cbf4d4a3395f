"""A run whose settings changed on a resume is never credited to its last settings."""

from __future__ import annotations

import json

import pytest

from scaling.curves.read import read_curves
from scaling.curves.settings import settings_over_time


@pytest.fixture
def write_run(tmp_path):
    """A run of 10 evaluations up to 1000 env steps, its config.yaml as the last resume left it."""

    def call(name: str, batch_size: int, lines: list[dict] | None, seed: int = 0) -> None:
        folder = tmp_path / "sweep" / name
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(
            f"task: {{name: Cartpole}}\nnum_envs: 4\nseed: {seed}\n"
            f"algo: {{utd: 0.5, batch_size: {batch_size}, critic_lr: 0.001}}\n"
        )
        metrics = [{"env_steps": 100 * k, "eval_return": float(k)} for k in range(1, 11)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
        (folder / "summary.json").write_text(json.dumps({"status": "completed", "utd": 0.5}))
        if lines is not None:
            (folder / "settings.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    call.sweep = tmp_path / "sweep"
    return call


START = {"env_steps": 0, "algo": {"batch_size": 64, "critic_lr": 0.001}, "max_env_steps": 400}


def test_changed_run_counts_with_its_first_settings_up_to_the_change(write_run):
    write_run("changed", 256, [START, {"env_steps": 400, "algo.batch_size": 256, "max_env_steps": 1000}])
    write_run("plain", 256, None, seed=1)
    found = read_curves(write_run.sweep)
    changed, plain = (found.table[found.table["run"] == name] for name in ("changed", "plain"))
    assert set(changed["batch_size"]) == {64}
    assert changed["env_steps"].tolist() == [100, 200, 300, 400]
    assert len(plain) == 10
    assert any("resumed at 400 env steps with algo.batch_size 64 -> 256" in note for note in found.notes)


def test_longer_budget_alone_changes_no_law(write_run):
    write_run("longer", 64, [START, {**START, "env_steps": 400, "max_env_steps": 1000}])
    assert len(read_curves(write_run.sweep).table) == 10


def test_run_that_does_not_tell_what_came_before_is_left_out_with_a_note(write_run):
    write_run("unknown", 256, [{"env_steps": 400, "algo.batch_size": 256}])
    write_run("half", 256, [{"env_steps": 0, "seed": 0}, {"env_steps": 400, "algo.batch_size": 256}], seed=2)
    write_run("plain", 256, None, seed=1)
    found = read_curves(write_run.sweep)
    assert set(found.table["run"]) == {"plain"}
    assert any("does not tell the settings before env step 400" in note for note in found.notes)
    assert any("does not tell algo.batch_size before env step 400" in note for note in found.notes)


def test_resume_from_an_earlier_checkpoint_undoes_what_was_recorded_after_it(tmp_path):
    lines = [START, {"env_steps": 600, "algo.batch_size": 512}, {"env_steps": 400, "algo.critic_lr": 0.01}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "settings.jsonl").write_text(text + '{"env_steps": 9')
    (first, _), (second, settings) = settings_over_time(tmp_path)
    assert (first, second) == (0, 400)
    assert (settings["algo.batch_size"], settings["algo.critic_lr"]) == (64, 0.01)
