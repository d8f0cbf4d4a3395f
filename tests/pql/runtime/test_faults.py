"""runtime=parallel when something dies, raises, hangs or is told to stop: the real script, its real processes.

Every test but the first few lines is the same story: train until there is a checkpoint, do harm, and demand that
within ten seconds no process is left, that the exit code and one line of stderr say what happened, and that the last
checkpoint loads and training goes on from it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from pql import config
from pql.errors import RoleFailed
from pql.memory.shared import ROLES
from pql.run.trainer import train
from pql.runtime import checkpoint

ENDLESS = {"runtime": "parallel", "max_env_steps": 10**9, "checkpoint_interval": 800, "log_interval": 800,
           "eval_interval": 0}  # fmt: skip
LIMIT = 10.0 * float(os.environ.get("TEST_PATIENCE", 1))  # seconds; on a machine busy with other work, give more


def summary_of(run):
    return json.loads((run.run_dir / "summary.json").read_text())


def assert_resumes(run):
    """The last checkpoint loads and learning goes on from it, in this process for speed."""
    _, manifest = checkpoint.newest(run.run_dir)
    target = manifest["env_steps"] + 400
    summary = train(config.load([f"run_dir={run.run_dir}", "resume=true", "runtime=sync", f"max_env_steps={target}"]))
    assert summary["status"] == "completed" and summary["env_steps"] == target
    assert summary["critic_updates"] > manifest["critic_updates"] > 0
    assert summary["policy_updates"] > manifest["policy_updates"] > 0


def end_within_limit(run, began):
    code, out, err = run.end(LIMIT)
    assert time.monotonic() - began < LIMIT
    return code, out, err


@pytest.mark.parametrize("role", ROLES)
def test_killed_role_ends_the_run_naming_it(tiny, script, role):
    run = script(tiny(**ENDLESS)).until_checkpoint()
    pids = run.roles()
    run.seen |= set(pids.values())
    began = time.monotonic()
    os.kill(pids[role], signal.SIGKILL)
    code, _, err = end_within_limit(run, began)
    assert code == 1
    assert re.search(rf"^error: the {role} process was killed by SIGKILL", err, re.M)
    assert summary_of(run)["status"] == "failed" and role in summary_of(run)["reason"]
    assert_resumes(run)


@pytest.mark.parametrize("role", ["v_learner", "p_learner"])
def test_exception_in_a_learner_ends_the_run_with_its_traceback(tiny, script, role):
    run = script(tiny(**ENDLESS, algo="pql_faulty"), env={"POINT_FAULT": f"{role}:raise:300"})
    code, _, err = run.end(120)
    assert code == 1
    assert re.search(rf"^error: the {role} process raised RuntimeError: a fault in the {role}$", err, re.M)
    assert "Traceback (most recent call last)" in err and "point_mass.py" in err
    assert_resumes(run)


def test_learner_without_enough_memory_ends_the_run_with_the_remedy_in_one_line(tiny, script):
    run = script(tiny(**ENDLESS, algo="pql_faulty"), env={"POINT_FAULT": "v_learner:oom:300"})
    code, _, err = run.end(120)
    assert code == 2
    assert err == (
        "error: the GPU's memory is too small (CUDA out of memory. Tried to allocate 9.00 GiB): try a smaller num_envs,"
        " algo.replay_size or algo.batch_size, or algo.replay_device=cpu\n"
    )
    assert summary_of(run)["status"] == "failed"


@pytest.mark.parametrize(
    "option, words",
    [
        ("raise_at", "the actor process raised RuntimeError: the point has gone missing"),
        ("nan_at", "the actor process raised FloatingPointError: the simulator returned NaN or infinity in 1 of 8"),
    ],
)
def test_exception_and_nan_from_the_simulator_end_the_run_naming_the_actor(tiny, script, option, words):
    options = {f"task.options.{option}": 300, "task.options.only": 8}
    run = script(tiny(**ENDLESS, **options))
    code, _, err = run.end(120)
    assert code == 1 and f"error: {words}" in err
    folder, _ = checkpoint.newest(run.run_dir)
    for role in ROLES:  # nothing that is not a number got into what is kept
        for name, value in checkpoint.load_tensors(folder, role).items():
            assert not value.is_floating_point() or value.isfinite().all(), name
    assert_resumes(run)


def test_signal_ends_the_run_cleanly_with_a_checkpoint(tiny, script):
    """SIGINT, then on the resumed run SIGHUP, then SIGUSR2 (a batch system's): the exit codes that shells expect."""
    overrides = tiny(**{**ENDLESS, "checkpoint_interval": 0})
    before = 0
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        run = script(overrides)
        run.until(lambda run=run, before=before: run.env_steps() > before, what="training to go on")
        run.seen |= set(run.roles().values())
        began = time.monotonic()
        os.killpg(run.process.pid, number)  # to the whole group, as a terminal's Ctrl-C goes
        code, out, err = end_within_limit(run, began)
        assert code == 128 + number and err == ""
        assert f"stopped by {number.name} with a checkpoint" in out
        summary = summary_of(run)
        assert summary["status"] == "interrupted" and summary["reason"] == number.name
        newest = checkpoint.newest(run.run_dir)[1]["env_steps"]
        assert newest == summary["env_steps"] > before
        before = newest
        overrides = [f"run_dir={run.run_dir}", "resume=true"]
    assert_resumes(run)


def test_ctrl_c_while_the_processes_start_is_a_clean_stop_too(tiny, script):
    run = script(tiny(**ENDLESS))
    run.until(lambda: any(name.startswith("pql-") for name in run.children().values()), what="a child process")
    began = time.monotonic()
    os.killpg(run.process.pid, signal.SIGINT)
    code, out, err = run.end(60)  # the processes finish importing first
    assert code == 130 and err == "" and "stopped by SIGINT with a checkpoint" in out
    assert began and checkpoint.newest(run.run_dir)[1]["env_steps"] <= 800


def test_second_sigint_ends_the_run_at_once(tiny, script):
    """The V-learner stands still, so that the clean stop which the first SIGINT asks for cannot come about."""
    run = script(tiny(**ENDLESS)).until_checkpoint()
    pids = run.roles()
    run.seen |= set(pids.values())
    os.kill(pids["v_learner"], signal.SIGSTOP)
    began = time.monotonic()
    run.process.send_signal(signal.SIGINT)
    run.until(lambda: (run.run_dir / "checkpoints" / ".part").exists(), what="the clean stop's checkpoint to begin")
    run.process.send_signal(signal.SIGINT)
    code, _, err = end_within_limit(run, began)
    assert code == 130 and "stopped at once" in err
    assert summary_of(run)["status"] == "failed"
    assert_resumes(run)


def test_killed_parent_leaves_no_orphan(tiny, script):
    run = script(tiny(**ENDLESS)).until_checkpoint()
    run.seen |= set(run.roles().values())
    run.process.kill()
    run.process.communicate(timeout=LIMIT)
    run.none_left(LIMIT)
    shared = [path.name for path in Path("/dev/shm").glob("torch_*")]
    assert not [name for name in shared if any(f"_{pid}_" in name for pid in (run.process.pid, *run.seen))]
    assert_resumes(run)


@pytest.mark.parametrize("role", ["actor", "p_learner"])
def test_hung_role_is_noticed_and_killed(tiny, script, role):
    run = script(tiny(**ENDLESS, heartbeat_timeout=4)).until_checkpoint()
    pids = run.roles()
    run.seen |= set(pids.values())
    os.kill(pids[role], signal.SIGSTOP)
    code, _, err = run.end(4 + LIMIT)
    assert code == 1 and f"error: the {role} process gave no sign of life for" in err
    assert_resumes(run)


def test_time_for_which_the_whole_run_was_stopped_is_no_hang(tiny, script):
    """Ctrl-Z, and fg after longer than the heartbeat's limit."""
    run = script(tiny(**ENDLESS, heartbeat_timeout=2)).until_checkpoint()
    os.killpg(run.process.pid, signal.SIGSTOP)
    time.sleep(3)  # the clock itself is what is tested
    steps = checkpoint.found(run.run_dir)[-1].name
    os.killpg(run.process.pid, signal.SIGCONT)
    run.until(lambda: checkpoint.found(run.run_dir)[-1].name > steps, what="training to go on")
    run.process.terminate()
    assert run.end(LIMIT)[0] == 143


def test_a_role_has_the_environment_of_its_run_and_not_of_the_first_in_its_process(tiny, plugin, monkeypatch, tmp_path):
    train(config.load(tiny(runtime="parallel", run_dir=tmp_path / "first")))
    monkeypatch.setenv("POINT_FAULT", "v_learner:raise:50")
    with pytest.raises(RoleFailed, match="a fault in the v_learner"):
        train(config.load(tiny(runtime="parallel", run_dir=tmp_path / "second", algo="pql_faulty")))
