"""What is there stays: failed resumes, damaged files beside good checkpoints, a full disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from safetensors import SafetensorError

from pql import config, files
from pql.errors import RoleFailed, UserError
from pql.run import directory, monitor
from pql.run.metrics import MetricsWriter, read_metrics
from pql.run.pack import train_together
from pql.run.trainer import train
from pql.runtime import checkpoint
from tasks.errors import TaskError


def tree(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def trained(completed, tmp_path):
    """A completed run of 1600 env steps with two checkpoints, to do harm to."""
    return Path(shutil.copytree(completed[2], tmp_path / "run"))


@pytest.fixture
def longer(trained):
    """Resumes it to 2400 env steps, with other settings."""
    return lambda *words: train(config.load([f"run_dir={trained}", "resume=true", "max_env_steps=2400", *words]))


def test_resume_that_fails_before_its_first_step_changes_no_file(trained, longer, monkeypatch):
    point = next(module for name, module in sys.modules.items() if name.endswith("point_mass.py")).PointEnv

    def broken(self, action):
        raise RuntimeError("the point has gone missing")

    monkeypatch.setattr(point, "step", broken)
    before = tree(trained)
    with pytest.raises(RuntimeError, match="gone missing"):
        longer("algo.batch_size=16")
    assert tree(trained) == before


def test_resume_that_is_stopped_before_its_first_step_changes_no_file(trained, longer, monkeypatch, capsys):
    monkeypatch.setattr(monitor.Monitor, "start_clock", lambda self: os.kill(os.getpid(), signal.SIGTERM))
    before = tree(trained)
    assert longer("algo.batch_size=16") == {"status": "interrupted", "reason": "SIGTERM"}
    assert tree(trained) == before and "before the first step: nothing was changed" in capsys.readouterr().out


def test_start_that_fails_before_its_first_step_leaves_a_folder_to_start_in(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(monitor.Monitor, "start_clock", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(config.load(tiny()))
    assert list((tmp_path / "run").iterdir()) == []


def test_start_that_was_cut_off_in_its_first_file_is_started(tiny, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.yaml.123").touch()
    assert train(config.load(tiny(resume="true", max_env_steps=80)))["status"] == "completed"


@pytest.mark.parametrize("larger", [True, False])
def test_ring_laid_out_otherwise_is_not_taken_for_ours(trained, longer, monkeypatch, larger):
    from pql.roles import build

    guard = build.replay_guard
    monkeypatch.setattr(build, "replay_guard", lambda cfg: guard(cfg) + (8 if larger else -8))
    before = tree(trained)
    with pytest.raises(UserError, match=r"not of this run's sizes: its ring's (rows|offsets) are"):
        longer()
    assert tree(trained) == before


def test_networks_of_other_sizes_are_refused_in_one_line(trained, longer):
    path = trained / "config.yaml"
    path.write_text(path.read_text().replace("  hidden:\n  - 16\n", "  hidden:\n  - 24\n"))
    before = tree(trained)
    with pytest.raises(UserError, match="its p_learner's weights are"):
        longer()
    assert tree(trained) == before


@pytest.mark.parametrize("harm", ["emptied", "cut short", "of another task", "of other environments"])
def test_configuration_that_is_not_the_runs_own_is_refused(trained, longer, harm):
    path = trained / "config.yaml"
    text = path.read_text()
    changed = {
        "emptied": "",
        "cut short": text[: text.index("\ndevice:")],
        "of another task": text.replace("name: Point", "name: Ant"),
        "of other environments": text.replace("num_envs: 8", "num_envs: 16"),
    }[harm]
    assert changed != text
    path.write_text(changed)
    before = tree(trained)
    refusals = "names no algorithm|is cut short|Ant doesn.t run on sim=plane|not of this run: it holds 1600 env steps"
    with pytest.raises((UserError, TaskError), match=refusals):
        longer()
    assert tree(trained) == before


@pytest.mark.parametrize("change", [{"critic_updates": 201}, {"wall_time_s": 0.0}, {"seen": 1}])
def test_manifest_has_a_checksum_of_its_own(trained, change):
    older, newer = checkpoint.found(trained)
    path = newer / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    said = []
    assert checkpoint.newest(trained, said.append)[0] == older
    assert len(said) == 1 and "its manifest is damaged (its checksum differs)" in said[0]


@pytest.mark.parametrize(
    ("counter", "told"), [("critic_updates", "v_learner"), ("policy_updates", "p_learner"), ("env_steps", "replay")]
)
def test_counters_are_compared_with_what_ring_and_learners_know(trained, counter, told):
    older, newer = checkpoint.found(trained)
    path = newer / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["crc32"]
    manifest[counter] = 99
    path.write_text(json.dumps({**manifest, "crc32": checkpoint._crc32_of(manifest)}))
    said = []
    assert checkpoint.newest(trained, said.append)[0] == older
    assert f"says {counter} 99, {told}.safetensors knows of" in said[0]


def test_checkpoint_of_a_format_before_is_still_read_but_not_its_ring(trained, longer, capsys):
    newer = checkpoint.found(trained)[-1]
    path = newer / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["crc32"]
    path.write_text(json.dumps({**manifest, "format": 3}))
    assert checkpoint.newest(trained)[0] == newer
    longer()
    assert "no replay ring of this version's form (3)" in capsys.readouterr().out


ODD = [b"\xc3\n", b"\0\0\0\0\0\0", b"5\n", b"null\n", b'{"step": 3}\n', b'{"env_steps": null}\n', b'{"env_st']


def test_odd_bytes_in_the_log_end_no_resume_and_no_whole_line_is_lost(trained, longer, capsys):
    path = trained / "metrics.jsonl"
    lines = read_metrics(path)
    path.write_bytes(b"".join([b"\xff\n", path.read_bytes(), *ODD]))
    longer()
    assert read_metrics(path)[: len(lines)] == lines
    assert "note: 7 lines of" in capsys.readouterr().out
    text = path.read_bytes()
    assert all(json.loads(line)["env_steps"] for line in text.splitlines())
    settings = [json.loads(line) for line in (trained / "settings.jsonl").read_text().splitlines()]
    assert [line["env_steps"] for line in settings] == [0, 1600]


@pytest.mark.parametrize("text", [b"", b"5", b"\xc3"])
def test_damaged_summary_ends_no_resume(trained, longer, text, capsys):
    (trained / "summary.json").write_bytes(text)
    assert longer()["env_steps"] == 2400
    assert "cannot be read, so the run counts as unfinished" in capsys.readouterr().out


def test_line_is_added_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "lines"
    path.write_text('{"a": 1}\n{"b')
    files.append_line(path, '{"c": 2}')
    assert path.read_text() == '{"a": 1}\n{"b\n{"c": 2}\n'
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:3]))  # what a full disk takes
    with pytest.raises(OSError, match="No space left"):
        files.append_line(path, '{"d": 3}')
    assert path.read_text() == '{"a": 1}\n{"b\n{"c": 2}\n'


def test_file_that_finds_no_room_leaves_the_one_before_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    files.write_atomically(path, "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_atomically(path, "new")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_lines_that_find_no_room_are_lost_with_one_line_and_go_on_when_there_is(tmp_path, monkeypatch):
    said = []
    writer = MetricsWriter(tmp_path, say=said.append)
    writer.write({"env_steps": 8})
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for step in (16, 24):
            writer.write({"env_steps": step})
    writer.write({"env_steps": 32})
    writer.close()
    assert [line["env_steps"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [8, 32]
    assert len(said) == 2 and "No space left" in said[0] and "2 lines were not written" in said[1]


def no_room(*_):
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_checkpoint_that_finds_no_room_stops_nothing_and_is_tried_again(tiny, tmp_path, monkeypatch, capsys):
    save, calls = checkpoint.save_file, []

    def sometimes(tensors, path):
        calls.append(path)
        (no_room if len(calls) in (1, 7) else save)(tensors, path)  # the first checkpoint, and in the midst of another

    monkeypatch.setattr(checkpoint, "save_file", sometimes)
    summary = train(config.load(tiny(checkpoint_interval=400, eval_interval=0)))
    assert summary["status"] == "completed"
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["000000000800", "000000001600"]
    out = capsys.readouterr().out
    assert out.count("warning: no checkpoint at ") == 2 and "No space left" in out


def test_last_checkpoint_without_room_is_one_line_and_the_one_before_stays(tiny, tmp_path, monkeypatch):
    save = checkpoint.save_file

    def until_the_end(tensors, path):
        (save if len(checkpoint.found(tmp_path / "run")) < 1 else no_room)(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", until_the_end)
    with pytest.raises(RoleFailed, match=r"No space left on device; the newest good checkpoint stays: make room") as e:
        train(config.load(tiny(checkpoint_interval=1000)))
    assert "\n" not in str(e.value)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["000000001000"]
    monkeypatch.undo()
    assert train(config.load([f"run_dir={tmp_path / 'run'}", "resume=true"]))["status"] == "completed"


def test_role_of_its_own_process_that_finds_no_room_goes_on_too(tiny, tmp_path, capsys):
    plugin = tmp_path / "no_room.py"
    plugin.write_text(
        "from safetensors import SafetensorError\n"
        "from pql.runtime import checkpoint\n"
        "save, done = checkpoint.save_file, []\n"
        "def first_not(tensors, path):\n"
        "    done.append(path)\n"
        "    if len(done) == 1 and path.name == 'v_learner.safetensors':\n"
        "        raise SafetensorError('I/O error: No space left on device (os error 28)')\n"
        "    save(tensors, path)\n"
        "checkpoint.save_file = first_not\n"
    )
    settings = tiny(runtime="parallel", checkpoint_interval=400, eval_interval=0)
    cfg = config.load(settings)
    cfg.plugins.append(str(plugin))
    assert train(cfg)["status"] == "completed"
    out = capsys.readouterr().out
    assert out.count("warning: no checkpoint at ") == 1 and "No space left" in out
    assert len(checkpoint.found(tmp_path / "run")) == 2 and not (tmp_path / "run" / "checkpoints" / ".part").exists()


def test_start_that_a_full_disk_cut_off_is_begun_again_by_the_same_words(tiny, tmp_path, monkeypatch):
    """settings.jsonl is written first, config.yaml then: the folder was refused with resume=true and without."""
    monkeypatch.setattr(directory, "save", full)
    with pytest.raises(RoleFailed, match=r"No space left on device; make room, then start again"):
        train(config.load(tiny()))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["settings.jsonl"]
    config.load(tiny())
    config.load(tiny(resume="true"))


def test_full_disk_ends_runs_side_by_side_in_one_line_too(mujoco, tmp_path, monkeypatch):
    words = ["task=Cartpole", "num_envs=8", "max_env_steps=160", "runtime=sync", "video=false", "compile=false",
             "algo.batch_size=16", "algo.hidden=[8]", "eval_episodes=2", f"run_dir={tmp_path / 'run'}"]  # fmt: skip
    monkeypatch.setattr(checkpoint, "save_file", no_room)
    with pytest.raises(RoleFailed, match=r"No space left on device; .*go on with the same words and resume=true"):
        train_together(config.load_each([*words, "seeds=[0,1]"]))


def test_seeds_of_an_environment_of_its_own_are_trained_one_after_the_other(tiny, capsys):
    words = [word for word in tiny(max_env_steps=400) if not word.startswith("seed=")]
    summaries = train_together(config.load_each([*words, "seeds=[0,1]"]))
    assert [summary["status"] for summary in summaries] == ["completed"] * 2
    assert "so these 2 runs are trained one after the other" in capsys.readouterr().out
