"""A run's folder from someone else is safe to look at; one that is read-only can be looked at; its best is there."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from pql import cli, config
from pql.errors import UserError
from pql.run import evaluation
from pql.run.metrics import read_metrics
from pql.run.trainer import train
from pql.runtime import checkpoint

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def stranger(completed, tmp_path):
    """A run's folder with a changed config.yaml, and the file that its import would leave: `stranger(old, new)`."""
    run_dir, mark = Path(shutil.copytree(completed[2], tmp_path / "run")), tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(mark)!r}, 'a').write('x')\n")

    def change(old, new):
        path = run_dir / "config.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
        return run_dir, mark

    return change


def main(name, *words):
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / "scripts" / f"{name}.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main([str(word) for word in words])


@pytest.mark.parametrize("name", ["play", "evaluate", "export"])
def test_plugin_that_a_folder_names_is_not_imported_until_that_is_confirmed(stranger, tmp_path, name, capsys):
    evil = tmp_path / "evil.py"
    run_dir, mark = stranger("plugins:\n", f"plugins:\n- {evil}\n")
    with pytest.raises(SystemExit) as end:
        main(name, f"run_dir={run_dir}")
    err = capsys.readouterr().err
    assert end.value.code == 2 and err.count("\n") == 1
    assert f"names {evil}, whose import runs code: give trust=true" in err and not mark.exists()


def test_confirmed_plugin_is_imported_and_said(stranger, tmp_path, capsys):
    evil = tmp_path / "evil.py"
    run_dir, mark = stranger("plugins:\n", f"plugins:\n- {evil}\n")
    assert main("evaluate", f"run_dir={run_dir}", "episodes=2", "trust=true") == 0
    assert mark.read_text() == "x"
    assert capsys.readouterr().err == f"trust=true: importing {evil}, as {run_dir}/config.yaml says\n"


def test_plugin_of_ones_own_takes_the_place_of_those_that_the_folder_names(stranger, completed, tmp_path):
    run_dir, mark = stranger("plugins:\n", f"plugins:\n- {tmp_path / 'evil.py'}\n")
    (own,) = completed[0].plugins
    assert main("evaluate", f"run_dir={run_dir}", "episodes=2", f"plugins=[{own}]") == 0
    assert not mark.exists()


def test_module_that_a_task_names_is_not_imported_either(stranger, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    run_dir, mark = stranger("name: Point", "name: evil:Point")  # as sim=gymnasium and sim=dm_control take it
    with pytest.raises(UserError, match="names evil, whose import runs code"):
        config.read(run_dir / "config.yaml")
    assert not mark.exists() and "evil" not in sys.modules


def test_interpreter_that_a_folder_names_is_not_run_until_that_is_confirmed(stranger, tmp_path, capsys):
    run_dir, _ = stranger("python: null", f"python: {tmp_path / 'evil'}")
    with pytest.raises(UserError, match=r"names the interpreter .*/evil: give trust=true"):
        config.read(run_dir / "config.yaml", [])
    assert config.read(run_dir / "config.yaml", [], True).sim.python == str(tmp_path / "evil")
    assert f"trust=true: running {tmp_path / 'evil'}, as " in capsys.readouterr().err


def test_environment_variables_are_not_looked_up(stranger, monkeypatch):
    monkeypatch.setenv("SECRET", "told")
    run_dir, _ = stranger("seed: 3", "seed: ${oc.decode:${oc.env:SECRET,3}}")
    with pytest.raises(UserError, match="refers to other values"):
        config.read(run_dir / "config.yaml")
    with pytest.raises(UserError, match="refers to other values"):
        config.load([f"run_dir={run_dir}", "resume=true"])


def test_looking_at_a_run_writes_nothing_into_it(completed, tmp_path, monkeypatch):
    run_dir = Path(shutil.copytree(completed[2], tmp_path / "run"))
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}
    assert main("evaluate", f"run_dir={run_dir}", "episodes=2") == 0
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")} == before
    found = cli.OfRun(run_dir=str(run_dir))
    assert found.beside("video.mp4") == run_dir / "video.mp4"
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert found.beside("video.mp4") == Path("run-video.mp4")


def test_best_policy_is_kept_beside_the_newest_and_can_be_looked_at(tiny, tmp_path, monkeypatch, capsys):
    returns = iter([3.0, 7.0, 5.0, 6.0])
    original = evaluation.episodes

    def told(*args):
        *_, last = original(*args)
        yield last._replace(returns=last.returns * 0 + next(returns))

    monkeypatch.setattr(evaluation, "episodes", told)
    run_dir = tmp_path / "run"
    settings = {"eval_interval": 400, "checkpoint_interval": 400}
    monkeypatch.setattr(evaluation, "play", lambda *_: evaluation.Result(*[evaluation.np.zeros(1)] * 2))
    summary = train(config.load(tiny(max_env_steps=1200, **settings)))
    assert (summary["eval_return"], summary["best_return"], summary["best_env_steps"]) == (5.0, 7.0, 800)
    train(config.load([f"run_dir={run_dir}", "resume=true", "max_env_steps=1600"]))  # 6 is no better than 7
    _, manifest = checkpoint.best(run_dir)
    assert (manifest["env_steps"], manifest["eval_return"]) == (800, 7.0)
    assert [int(path.name) for path in checkpoint.found(run_dir)] == [1200, 1600]
    assert [line["eval_return"] for line in read_metrics(run_dir / "metrics.jsonl") if "eval_return" in line] == [
        3.0, 7.0, 5.0, 6.0,
    ]  # fmt: skip
    monkeypatch.undo()
    assert main("evaluate", f"run_dir={run_dir}", "episodes=2", "checkpoint=best", "json=-") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["env_steps"] == 800
    with pytest.raises(SystemExit):
        main("evaluate", f"run_dir={run_dir}", "checkpoint=worst")
    assert "checkpoint=worst: must be newest or best" in capsys.readouterr().err


def test_best_policy_is_the_one_that_was_evaluated(completed):
    _, summary, run_dir = completed
    folder, manifest = checkpoint.best(run_dir)
    assert manifest["eval_return"] == summary["best_return"]
    newest, last = checkpoint.newest(run_dir)
    same = manifest["env_steps"] == last["env_steps"]
    best, now = (checkpoint.load_tensors(place, "p_learner")["average"] for place in (folder, newest))
    assert bool((best == now).all()) == same
