"""A user's mistake: one line on stderr that says what is wrong and what to do, exit code 2, nothing overwritten."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pql import config
from pql.errors import user_errors
from pql.runtime import checkpoint

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def main():
    """`main` of scripts/train.py."""
    spec = importlib.util.spec_from_file_location("train_script", ROOT / "scripts" / "train.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def tree(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def refused(main, tmp_path, capsys):
    """`refused(overrides, *words)`: the script refuses in one line that holds these words, and touches nothing."""

    def demand(overrides, *words):
        before = tree(tmp_path)
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main(overrides)
        err = capsys.readouterr().err
        assert caught.value.code == 2
        assert err.startswith("error: ") and err.count("\n") == 1, err
        for word in words:
            assert word in err
        assert tree(tmp_path) == before
        return err

    return demand


@pytest.fixture
def trained(completed, tmp_path):
    """A completed run with two checkpoints, to do harm to."""
    return Path(shutil.copytree(completed[2], tmp_path / "run"))


@pytest.mark.parametrize(
    "override, words",
    [
        ("algo.bacth_size=4", ["unknown key 'algo.bacth_size'", "did you mean algo.batch_size?"]),
        ("nmu_envs=4", ["did you mean num_envs?"]),
        ("batch_size=4", ["unknown key 'batch_size'", "algo.batch_size"]),
        ("task=Antt", ["unknown task 'Antt'", "did you mean Ant?", "sim=isaacgym"]),
        ("task=Zzz", ["unknown task 'Zzz'", "Cartpole"]),
        ("algo=pgl", ["unknown algo 'pgl'", "did you mean pql?", "pql_d"]),
        ("sim=mujco", ["unknown sim 'mujco'", "did you mean mujoco?"]),
        ("preset=cpuu", ["unknown preset 'cpuu'", "did you mean cpu?"]),
        ("num_envs=many", ["num_envs", "many"]),
        ("num_envs=2.5", ["num_envs", "2.5"]),
        ("resume=perhaps", ["resume", "perhaps"]),
        ("algo.hidden=256", ["algo.hidden", "256"]),
        ("algo.hidden=[]", ["algo.hidden", "positive widths"]),
        ("algo.hidden=[64,0]", ["algo.hidden", "positive widths"]),
        ("algo.batch_size=[1,2]", ["algo.batch_size"]),
        ("algo=[pql]", ["unknown algo"]),
        ("runtime=threads", ["runtime=threads", "parallel, sync or auto"]),
        ("num_envs=0", ["num_envs=0", "at least 1"]),
        ("algo.n_step=0", ["algo.n_step=0", "at least 1"]),
        ("algo.gamma=1", ["algo.gamma=1", "in [0, 1)"]),
        ("algo.tau=0", ["algo.tau=0", "in (0, 1]"]),
        ("algo.critic_lr=-1e-3", ["algo.critic_lr", "greater than 0"]),
        ("algo.critic_lr=nan", ["algo.critic_lr", "finite"]),
        ("algo.critic_lr=inf", ["algo.critic_lr", "finite"]),
        ("algo.critic_updates_per_step=0", ["algo.critic_updates_per_step=0", "greater than 0"]),
        ("max_time=0", ["max_time=0", "greater than 0"]),
        ("seed=-1", ["seed=-1", "0 or more"]),
        ("algo.activation=gelu", ["algo.activation=gelu", "relu"]),
        ("algo.warmup_steps=1", ["algo.warmup_steps=1", "algo.n_step (3)"]),
        ("algo.batch_size=2000", ["algo.batch_size=2000", "larger than algo.replay_size=1200"]),
        ("algo.replay_size=100", ["algo.replay_size=100", "needs at least"]),
        ("device=gpu", ["device=gpu", "cpu"]),
        ("device=cuda:99", ["device=cuda:99 is not there", "device=cpu"]),
        ("device=mps", ["device=mps", "not supported"]),
        ("seed", ["'seed' is not of the form key=value"]),
        ("=5", ["not of the form key=value"]),
        ("seed=", ["'seed=' gives no value"]),
        ("run_dir=", ["'run_dir=' gives no value"]),
        ("seed=1,2", ["one value"]),
        ("run_dir=[a", ["run_dir=[a", "cannot be read"]),
        ("plugins=[nowhere.py]", ["plugin 'nowhere.py' cannot be imported"]),
        ("plugins=[no.such.module]", ["plugin 'no.such.module' cannot be imported"]),
        ("plugins=nowhere.py", ["must be a list", "plugins=[nowhere.py]"]),
        ("task.options.colour=red", ["task Point can't take the options", "colour"]),
    ],
)
def test_bad_value_is_refused_in_one_line(tiny, refused, override, words):
    name = override.partition("=")[0]
    refused([*(o for o in tiny() if o.partition("=")[0] != name), override], *words)


def test_plugin_that_another_interpreter_may_have_is_named_with_the_remedy(tiny, refused):
    words = "cannot be imported", "what mw/bin/python is to import instead, name by task=<module>:<id>"
    refused([*tiny(), "plugins=[no.such.module]", "sim.python=mw/bin/python"], *words)


def test_both_ratios_at_once_are_refused(tiny, refused):
    refused([*tiny(), "algo.utd=0.5"], "algo.utd and algo.critic_updates_per_step", "one of them")


def test_task_on_a_simulator_it_does_not_know_is_refused(tiny, refused):
    refused(tiny(sim="mujoco"), "Point")


def test_existing_run_is_not_touched_without_resume(trained, tiny, refused):
    refused(tiny(), f"run_dir={trained} exists", "resume=true")
    quoted = [o if not o.startswith("run_dir=") else f"run_dir='{trained}'" for o in tiny()]
    refused(quoted, f"run_dir={trained} exists")


@pytest.mark.parametrize(
    "change, words",
    [
        ("task=Ant", ["was trained with task.name=Point, not Ant"]),
        ("algo=pql_d", ["was trained with algo=pql, not pql_d"]),
        ("algo.hidden=[32]", ["was trained with algo.hidden=[16], not [32]"]),
        ("num_envs=16", ["was trained with num_envs=8, not 16"]),
        ("algo.n_step=1", ["algo.n_step=3, not 1"]),
        ("algo.replay_size=2400", ["algo.replay_size=1200, not 2400"]),
        ("algo.utd=0.5", ["algo.critic_updates_per_step=1.0, not 4.0"]),
        ("max_env_steps=none_at_all", ["max_env_steps", "none_at_all"]),
    ],
)
def test_resuming_as_something_else_is_refused(trained, refused, change, words):
    refused([f"run_dir={trained}", "resume=true", change], *words)


def test_run_of_another_kind_of_device_is_not_gone_on_with_here(trained, refused):
    path = trained / "config.yaml"
    path.write_text(path.read_text().replace("\ndevice: cpu\n", "\ndevice: cuda\n"))
    refused([f"run_dir={trained}", "resume=true", "device=cpu"], "trained with device=cuda, not cpu", "init_from=")


def test_folder_that_holds_no_run_cannot_be_resumed(tmp_path, tiny, refused):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    refused(tiny(), "exists")
    refused(tiny(resume="true"), "holds no config.yaml")


def test_damaged_configuration_is_refused(trained, refused):
    (trained / "config.yaml").write_text("{algo: [")
    refused([f"run_dir={trained}", "resume=true"], "cannot read", "config.yaml", "copy it anew")


def test_learning_that_diverges_in_this_process_is_one_line(main, tiny, capsys):
    assert main(tiny(**{"algo.critic_lr": 1e30})) == 1
    assert "error: " in (err := capsys.readouterr().err) and "lower algo.critic_lr" in err and err.count("\n") == 1


def test_run_dir_that_is_a_file_or_below_one_is_refused(tmp_path, tiny, refused):
    (tmp_path / "file").write_text("x")
    refused(tiny(run_dir=tmp_path / "file"), "is a file", "name a folder")
    refused(tiny(run_dir=tmp_path / "file" / "run"), "cannot be written", "name another folder")


def test_folder_that_cannot_be_written_is_refused(tmp_path, tiny, refused):
    refused(tiny(run_dir="/proc/run"), "run_dir=/proc/run cannot be written")
    if os.getuid() != 0:  # root may write anywhere
        tmp_path.chmod(0o555)
        refused(tiny(), "cannot be written (Permission denied)")
        tmp_path.chmod(0o755)


def test_run_in_use_by_another_process_is_refused(trained, refused):
    hold = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(trained)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        other.stdout.readline()
        refused([f"run_dir={trained}", "resume=true", "max_env_steps=2400"], "in use", "another process")
        other.communicate("\n")


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["p_learner.safetensors", "replay.safetensors", "actor.safetensors"])
def test_flipped_byte_falls_back_to_the_checkpoint_before_and_says_so(trained, main, capsys, file):
    older, newer = checkpoint.found(trained)
    flip_a_byte(newer / file)
    assert main([f"run_dir={trained}", "resume=true", "max_env_steps=2400"]) == 0
    captured = capsys.readouterr()
    assert f"checkpoint {newer.name}: {file} is damaged" in captured.err and "falling back" in captured.err
    assert f"resuming {trained} at {int(older.name)} env steps" in captured.out
    assert json.loads((trained / "summary.json").read_text())["env_steps"] == 2400


@pytest.mark.parametrize("harm", ["missing file", "manifest cut short", "manifest without files"])
def test_incomplete_checkpoint_falls_back_too(trained, main, capsys, harm):
    older, newer = checkpoint.found(trained)
    manifest = newer / "manifest.json"
    if harm == "missing file":
        (newer / "boards.safetensors").unlink()
    elif harm == "manifest cut short":
        manifest.write_text(manifest.read_text()[:60])
    else:
        manifest.write_text("[]")
    assert main([f"run_dir={trained}", "resume=true", "max_env_steps=2400"]) == 0
    assert f"at {int(older.name)} env steps" in capsys.readouterr().out


def test_run_whose_checkpoints_are_all_damaged_is_refused(trained, tmp_path, main, capsys):
    for folder in checkpoint.found(trained):
        flip_a_byte(folder / "v_learner.safetensors")
    before = tree(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main([f"run_dir={trained}", "resume=true", "max_env_steps=2400"])
    err = capsys.readouterr().err
    assert caught.value.code == 2 and err.count("warning: checkpoint") == 2
    assert "none of its checkpoints can be read" in err.splitlines()[-1] and "another folder" in err.splitlines()[-1]
    assert tree(tmp_path) == before


def test_completed_run_is_left_alone(trained, main, tmp_path, capsys):
    before = tree(tmp_path)
    assert main([f"run_dir={trained}", "resume=true"]) == 0
    assert "is complete" in capsys.readouterr().out
    assert tree(tmp_path) == before


def test_completed_run_without_its_checkpoints_is_still_complete_but_cannot_be_continued(trained, refused, main):
    for folder in checkpoint.found(trained):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    assert main([f"run_dir={trained}", "resume=true"]) == 0
    refused([f"run_dir={trained}", "resume=true", "max_env_steps=2400"], "checkpoints are gone")


def test_resume_starts_a_run_that_is_not_there(tiny, main, tmp_path):
    assert main(tiny(resume="true")) == 0
    (tmp_path / "empty").mkdir()
    assert main(tiny(resume="true", run_dir=tmp_path / "empty")) == 0
    for name in ("run", "empty"):
        assert json.loads((tmp_path / name / "summary.json").read_text())["env_steps"] == 1600


def test_completed_run_goes_on_with_a_larger_goal(trained, main):
    assert main([f"run_dir={trained}", "resume=true", "max_env_steps=2400"]) == 0
    assert json.loads((trained / "summary.json").read_text())["env_steps"] == 2400


def test_plugins_of_a_run_are_found_from_another_folder(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), "run_dir=run", "resume=true", "max_env_steps=2400"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr


def test_the_script_itself_exits_with_2_and_one_line(tmp_path):
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), "algo.bacth_size=4", f"run_dir={tmp_path / 'run'}"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr.startswith("error: unknown key") and result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_help_names_tasks_algorithms_and_every_key_within_eighty_columns(main, capsys, monkeypatch):
    from pql import algorithms, config

    monkeypatch.setenv("COLUMNS", "80")
    for algo in algorithms.names():
        assert main(["--help", f"algo={algo}"]) == 0
        text = capsys.readouterr().out
        keys = text[text.index("Keys of") :]  # other tests register tasks of any name
        assert [line for line in keys.splitlines() if len(line) > 80] == []
        for name, about in config.known_keys(algo).items():
            assert f"  {name}=" in text
            assert about.get("help"), f"{name} says nothing of itself"
    for name in ("Ant", "Cartpole", "pql_d", "mujoco"):
        assert name in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_device_cuda_without_one_is_refused(tiny, refused):
    refused(tiny(device="cuda"), "device=cuda is not there (no CUDA device found)", "device=cpu")


def test_whole_number_may_be_written_as_people_write_it(tiny):
    cfg = config.load(tiny(max_env_steps="1e5", **{"algo.hidden": "[1.6e1,16]", "algo.batch_size": "3.2e1"}))
    assert (cfg.max_env_steps, cfg.algo.hidden, cfg.algo.batch_size) == (100_000, [16, 16], 32)
    assert all(type(n) is int for n in (cfg.max_env_steps, *cfg.algo.hidden, cfg.algo.batch_size))


def test_part_of_a_step_is_no_whole_number(tiny, refused):
    refused(tiny(max_env_steps="1.5"), "max_env_steps=1.5", "Integer")


@pytest.mark.parametrize("name", ["L\u00e4ufe \u6f22", "lr=1e-3 (a)", "it's", "a:b,c", "[x]", "back\\slash", "1e5"])
def test_folder_may_have_any_name(tiny, tmp_path, name):
    assert config.load(tiny(run_dir=tmp_path / name)).run_dir == str(tmp_path / name)
    assert config.load(tiny(run_dir=f"'{tmp_path}/quoted'")).run_dir == f"{tmp_path}/quoted"
    assert config.load([*tiny(), f"run_dir={tmp_path}/crlf\r"]).run_dir == f"{tmp_path}/crlf"


def test_name_that_no_disk_takes_is_one_line(tiny, refused, tmp_path):
    refused(tiny(run_dir=tmp_path / ("x" * 300)), "File name too long")


def test_full_disk_is_one_line_and_worth_another_try(capsys):
    with pytest.raises(SystemExit) as end, user_errors():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x")
    assert end.value.code == 1 and capsys.readouterr().err == "error: No space left on device: runs/x\n"


def test_reader_who_has_seen_enough_ends_no_run_and_gets_no_traceback(main, tiny, tmp_path):
    """As `train.py ... | true` does."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", closed)
        assert main(tiny()) == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "completed"
