"""metrics.jsonl and the progress line."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pql.algorithms import make
from pql.algorithms.survey import survey
from pql.roles.diagnosis import names_of
from pql.run.metrics import GROUPS, MetricsWriter, Progress, read_metrics
from tasks.base import Spaces


def test_a_line_cut_short_by_a_crash_is_dropped(tmp_path):
    writer = MetricsWriter(tmp_path)
    for step in (8, 16):
        writer.write({"env_steps": step, "q": 0.5})
    writer.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"env_steps": 24, "q"')
    assert [line["env_steps"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [8, 16]


def test_resumed_run_keeps_the_lines_up_to_its_checkpoint_and_starts_a_new_one(tmp_path):
    writer = MetricsWriter(tmp_path)
    for step in (8, 16, 24):
        writer.write({"env_steps": step})
    writer.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"env_st')
    writer = MetricsWriter(tmp_path, keep_until=16)
    writer.write({"env_steps": 20})
    writer.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["env_steps"] for line in lines] == [8, 16, 20]


def test_every_line_is_json_even_where_a_value_is_not_a_number(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write({"env_steps": 8, "train_return": math.nan, "q": math.inf, "utd": 0.25, "updates": 2})
    writer.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"env_steps": 8, "utd": 0.25, "updates": 2}


def test_lines_are_on_disk_as_soon_as_they_are_written(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.write({"env_steps": 8})
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 1
    writer.close()


def test_tensorboard_shows_the_same_numbers_in_groups(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = MetricsWriter(tmp_path, diagnostics=["replay_age"])
    writer.write({"env_steps": 8, "eval_return": 1.5})
    writer.write({"env_steps": 16, "eval_return": 2.5})
    more = {"q": 0, "wait_actor": 0, "wall_time_s": 0, "critic_grad_norm": 0, "replay_age": 0, "task/speed": 0}
    writer.write({"env_steps": 24, **more, "train_return": 0})
    writer.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("eval/return")] == [(8, 1.5), (16, 2.5)]
    others = {"train/return", "train/q", "time/wait_actor", "time/wall_time_s", "task/speed"}
    others |= {"diagnostics/critic_grad_norm", "diagnostics/replay_age"}
    assert set(events.Tags()["scalars"]) == {"eval/return", *others}


def test_tensorboard_of_a_run_holds_its_configuration_and_is_taken_for_no_other_librarys(completed):
    from scaling.curves.readers.base import EventReader, Files
    from scaling.curves.readers.registry import READERS

    run_dir = completed[2]
    log = Files(run_dir).events(run_dir / "tensorboard")
    assert "    seed: 3\n" in log.text("config/text_summary")
    matching = [r.library for r in READERS if isinstance(r, EventReader) and r.matches(log.tags)]
    assert matching == ["TensorBoard"]
    returns = [line["eval_return"] for line in read_metrics(run_dir / "metrics.jsonl") if "eval_return" in line]
    assert log.curve("eval/return")[1].tolist() == pytest.approx(returns)


def test_every_metric_of_a_run_is_documented_in_one_place(completed):
    documented = (Path(__file__).resolve().parents[3] / "docs" / "metrics.md").read_text()
    told = re.findall(r"`([^` ]+)`", documented)
    patterns = [re.compile(re.escape(name).replace("<group>", r"\w+")) for name in told]
    names = {name for line in read_metrics(completed[2] / "metrics.jsonl") for name in line}
    names |= set(GROUPS)
    algorithm = make(completed[0].algo, Spaces(2, 2))
    names |= {name for role, seen in survey(algorithm).diagnostics.items() for name in names_of(algorithm, role, seen)}
    assert [name for name in sorted(names) if not any(pattern.fullmatch(name) for pattern in patterns)] == []


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_line_fits_110_columns_and_says_what_it_should(monkeypatch, capsys, terminal):
    clock = [100.0]
    monkeypatch.setattr("pql.run.metrics.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    progress = Progress(2_000_000_000, max_time=None)
    progress.show(0, 0, 0.0, math.nan, None)
    clock[0] += 20
    progress.show(1_000_000, 4000, 20.0, 2345.6, 2999.4)
    line = capsys.readouterr().out.replace("\x1b[K", "").replace("\r", "\n").rstrip("\n").split("\n")[-1]
    for words in ("1M steps", "return   2346", "eval   2999", "50k steps/s", "200 updates/s", "utd 4.00e-03"):
        assert words in line
    assert "left 11:06:20" in line  # 1999 M steps at 50 000 a second
    clock[0] += 20
    progress.show(1_999_999_999, 10**12, 1e7, -123456789.0, -1e-7)
    for text in capsys.readouterr().out.replace("\x1b[K", "").replace("\r", "\n").split("\n"):
        assert len(text) <= 110


def test_progress_is_shown_at_most_once_a_second_on_a_terminal_and_every_ten_elsewhere(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr("pql.run.metrics.time.monotonic", lambda: clock[0])
    for terminal, expected in ((True, 30), (False, 3)):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal, raising=False)
        progress = Progress(10**6, None)
        for _ in range(300):
            clock[0] += 0.1
            progress.show(100, 1, 1.0, 0.0, None)
        assert capsys.readouterr().out.count("steps |") == pytest.approx(expected, abs=1)


def test_time_left_is_the_sooner_of_both_limits(monkeypatch, capsys):
    clock = [0.0]
    monkeypatch.setattr("pql.run.metrics.time.monotonic", lambda: clock[0])
    progress = Progress(1_000_000, max_time=90)
    progress.show(0, 0, 0.0, 0.0, None)
    clock[0] += 20
    progress.show(1000, 0, 20.0, 0.0, None)
    assert "left 0:01:10" in capsys.readouterr().out


def test_wandb_plots_over_env_steps_and_keeps_its_run_when_this_one_is_resumed(tmp_path, monkeypatch):
    """Its own step only rises: an evaluation that is written after later lines would be dropped."""
    runs = []

    class Run:
        def __init__(self, **asked):
            self.asked, self.defined, self.logged = asked, [], []
            runs.append(self)

        def define_metric(self, name, step_metric=None):
            self.defined.append((name, step_metric))

        def log(self, values, **more):
            self.logged.append((values["env_steps"], more))

        def finish(self):
            pass

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=Run))
    for keep_until in (None, 24):
        writer = MetricsWriter(tmp_path, {"seed": 1}, True, keep_until)
        for step in (16, 24, 8):
            writer.write({"env_steps": step})
        writer.close()
    assert [run.logged for run in runs] == [[(16, {}), (24, {}), (8, {})]] * 2
    assert runs[0].defined == [("env_steps", None), ("*", "env_steps")]
    assert runs[0].asked["id"] == runs[1].asked["id"] and runs[1].asked["resume"] == "allow"
    MetricsWriter(tmp_path, {"seed": 1}, True, None).close()  # begun anew
    assert runs[2].asked["id"] != runs[0].asked["id"]
