"""docker/run.sh hands docker the right words and explains bad input."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ("python", "scripts/train.py", "task=Ant", "run_dir=runs/ant")


def user_error(done) -> str:
    """The one line of a user's mistake."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def options(words: list, name: str) -> list:
    """The values given to one option."""
    return [words[i + 1] for i, word in enumerate(words) if word == name]


def test_a_run_gets_gpus_shared_memory_user_and_mounts(script, calls, tmp_path):
    done = script("run.sh", *TRAIN)
    assert done.returncode == 0, done.stderr
    words = calls()[-1]
    assert words[:4] == ["run", "--rm", "--init", "--stop-timeout"]
    assert words[-5:] == ["pql:open", *TRAIN]
    assert options(words, "--gpus") == ["all"]
    assert options(words, "--shm-size") == ["16g"]
    assert options(words, "--ipc") == ["private"]
    assert options(words, "--user") == [f"{os.getuid()}:{os.getgid()}"]
    assert options(words, "--volume") == [f"{tmp_path}/runs:/opt/pql/runs", f"{ROOT}/cfg:/opt/pql/cfg:ro"]
    assert (tmp_path / "runs").is_dir(), "docker would make the folder as root's"
    assert "--tty" not in words, "there is no terminal here"


def test_options_reach_docker(script, calls, tmp_path):
    (tmp_path / "my cfg").mkdir()
    (tmp_path / "plugin.py").write_text("")
    done = script(
        "run.sh", "isaacgym", "--gpus", "0,2", "--ipc", "host", "--runs", "out", "--cfg", "my cfg", "--name", "ant",
        "--mount", "plugin.py:/opt/pql/plugin.py", "--env", "A=1 2", "--env", "B=", "--user", "7:8", "--mps", *TRAIN,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    words = calls()[-1]
    assert options(words, "--gpus") == ['"device=0,2"'], "docker splits an unquoted list at the comma"
    assert options(words, "--ipc") == ["host"] and "--shm-size" not in words
    assert options(words, "--env") == ["PQL_MPS=1", "A=1 2", "B="]
    assert options(words, "--name") == ["ant"]
    assert options(words, "--user") == ["7:8"]
    assert options(words, "--volume") == [
        f"{tmp_path}/out:/opt/pql/runs",
        f"{tmp_path}/my cfg:/opt/pql/cfg:ro",
        f"{tmp_path}/plugin.py:/opt/pql/plugin.py",
    ]
    assert words[-5:] == ["pql:isaacgym", *TRAIN]


def test_without_a_gpu_none_is_asked_for(script, calls):
    assert script("run.sh", "--gpus", "none", "--tag", "other:2", "ls", lacks="nvidia").returncode == 0
    assert "--gpus" not in calls()[-1]
    assert calls()[-1][-2:] == ["other:2", "ls"]


def test_the_commands_own_options_are_left_alone(script, calls):
    assert script("run.sh", "--gpus", "0", "--", "isaacgym", "--help", "--gpus").returncode == 0
    assert calls()[-1][-4:] == ["pql:open", "isaacgym", "--help", "--gpus"]


def test_dry_run_checks_and_prints_but_runs_nothing(script, calls):
    done = script("run.sh", "--dry-run", *TRAIN)
    assert done.returncode == 0 and done.stdout.startswith("docker run --rm"), done.stderr
    assert [call[0] for call in calls()] == ["info", "image"]


def test_help_names_every_option(script, calls):
    done = script("run.sh", "--help")
    assert done.returncode == 0 and calls() == []
    known = re.findall(r"^ {8}(--[a-z-]+)\)", (ROOT / "docker/run.sh").read_text(), re.M)
    assert len(known) >= 12
    assert [option for option in known if f"  {option} " not in done.stdout] == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no command given: docker/run.sh python scripts/train.py"),
        (["open", "isaacgym", "ls"], "name one image"),
        (["--gpu", "0", "ls"], "unknown option --gpu"),
        (["--gpus"], "--gpus needs a value"),
        (["--gpus", "first", "ls"], "--gpus first: must be all, none, or numbers"),
        (["--shm-size", "much", "ls"], "--shm-size much: must be a size such as 16g"),
        (["--shm-size", "0", "ls"], "--shm-size 0: must be a size"),
        (["--ipc", "shareable", "ls"], "--ipc shareable: must be private or host"),
        (["--user", "me", "ls"], "--user me: must be two numbers"),
        (["--cfg", "nowhere", "ls"], "--cfg nowhere: there is no such folder"),
        (["--mount", "x", "ls"], "--mount x: must be SRC:DST"),
        (["--mount", "nowhere:/x", "ls"], "--mount nowhere:/x: there is no nowhere"),
        (["--env", "=1", "ls"], "--env =1: must be NAME=VALUE"),
        (["--gpus", "none", "--mps", "ls"], "--mps needs a GPU"),
        (["isaacgym", "--gpus", "none", "ls"], "Isaac Gym needs a GPU"),
    ],
)
def test_wrong_words_are_explained(script, calls, words, says):
    assert says in user_error(script("run.sh", *words))
    assert calls() == [], "docker was called though the words were wrong"


@pytest.mark.parametrize(
    ("lacks", "says"),
    [
        ("engine", "docker's engine does not answer: start it (sudo systemctl start docker)"),
        ("nvidia", "docker cannot pass in a GPU: install nvidia-container-toolkit"),
        ("image", "no image pql:isaacgym here: build it with docker/build.sh isaacgym"),
    ],
)
def test_what_docker_lacks_is_explained(script, calls, lacks, says):
    assert says in user_error(script("run.sh", "isaacgym", *TRAIN, lacks=lacks))
    assert all(call[0] != "run" for call in calls())


def test_missing_docker_is_explained(script, tmp_path):
    tools = tmp_path / "bin"  # what the script needs, without docker
    tools.mkdir()
    for tool in ("dirname", "id"):
        (tools / tool).symlink_to(f"/usr/bin/{tool}")
    assert "docker is not installed: see" in user_error(script("run.sh", *TRAIN, path=str(tools)))


def test_a_runs_folder_that_cannot_be_is_explained(script, tmp_path):
    (tmp_path / "file").write_text("")
    assert "--runs file/runs: cannot make that folder" in user_error(script("run.sh", "--runs", "file/runs", *TRAIN))
