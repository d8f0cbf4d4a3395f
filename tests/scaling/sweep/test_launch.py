"""Running a sweep on this machine: crashes, stops, kills, rivals and edits leave every cell done exactly once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scaling.sweep import locks
from scaling.sweep.cell import describe_exit, is_done, last_metrics, lock_path, read_record, record_path
from scaling.sweep.launch import load_launcher, local_slots
from scaling.sweep.locks import CellLock, holder
from scaling.sweep.plan_file import Plan, lay_out, load_plan, make_request, save_plan
from scaling.sweep.slurm import queue
from scaling.sweep.status import survey

ROOT = Path(__file__).resolve().parents[3]
FAKE = f"{sys.executable} {Path(__file__).resolve().parents[1] / 'fake_trainer.py'}"
SLOW = ["max_env_steps=4000", "fake.tick_s=0.04", "checkpoint_interval=500"]  # under two seconds


class Sweep:
    """scripts/sweep.py on one folder, started as a user would."""

    def __init__(self, out: Path):
        self.out, self.processes = out, []

    def start(self, *arguments: str) -> subprocess.Popen:
        known = [] if any(word.startswith("trainer=") for word in arguments) else ["trust=true"]
        command = [sys.executable, "scripts/sweep.py", f"out={self.out}", "launcher.workers=2", *known, *arguments]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True, start_new_session=True)
        self.processes.append(process)
        return process

    def run(self, *arguments: str, code: int = 0) -> str:
        process = self.start(*arguments)
        shown, errors = process.communicate(timeout=90)
        assert process.returncode == code, shown + errors
        return " ".join((shown + errors).split())

    def plan(self, *arguments: str) -> list[str]:
        return [f"trainer={FAKE}", *arguments]

    @property
    def cells(self) -> list:
        return load_plan(self.out).cells

    def run_dirs(self) -> list[Path]:
        return [self.out / cell.run_dir for cell in self.cells]

    def starts(self, run_dir: Path) -> list[int]:
        log = run_dir / "starts.jsonl"
        return [json.loads(line)["from"] for line in log.read_text().splitlines()] if log.exists() else []

    def trainers(self) -> list[int]:
        """Process ids of this sweep's trainers and their children that are alive."""
        alive = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and str(self.out).encode() in (entry / "environ").read_bytes() + (
                        entry / "cmdline").read_bytes() and b"fake_trainer" in (entry / "cmdline").read_bytes():
                    alive.append(int(entry.name))
            except OSError:
                continue
        return alive

    def until(self, condition, limit_s: float = 60.0) -> None:
        limit = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < limit, "waited in vain"
            time.sleep(0.02)

    def until_training(self, steps: int = 1000) -> None:
        """Two cells are past `steps`."""
        self.until(lambda: (self.out / "plan.json").exists() and sum(
            (last_metrics(run).get("env_steps") or 0) >= steps for run in self.run_dirs()) >= 2)

    def assert_each_done_once(self) -> None:
        for run_dir in self.run_dirs():
            assert is_done(run_dir) and (run_dir / "completions").read_text() == "x\n"


@pytest.fixture
def sweep(tmp_path):
    sweep = Sweep(tmp_path / "sweep")
    yield sweep
    for process in sweep.processes:
        process.kill()
        process.communicate()
    sweep.until(lambda: not sweep.trainers())  # no test leaves an orphan


def test_runs_every_cell_once_and_a_second_start_runs_nothing(sweep):
    shown = sweep.run(*sweep.plan("seed=0,1,2", "algo.utd=1", "max_env_steps=300"))
    assert "cost: 3 cells, 900 env steps, 900 critic updates" in shown and "3 cells: 3 done" in shown
    assert "none needs a run" in sweep.run()
    sweep.assert_each_done_once()
    assert [sweep.starts(run) for run in sweep.run_dirs()] == [[0], [0], [0]]


def test_crash_is_retried_from_the_last_checkpoint(sweep):
    sweep.run(*sweep.plan("seed=0", "max_env_steps=2000", "checkpoint_interval=500", "fake.crash_at=1300"))
    assert sweep.starts(sweep.run_dirs()[0]) == [0, 1000]
    assert [a["outcome"] for a in read_record(sweep.out, sweep.cells[0].hash)["attempts"]] == ["failed", "done"]


def test_crashes_are_bounded_and_bad_input_is_never_retried(sweep):
    crash = sweep.run(*sweep.plan("seed=0", "max_env_steps=900", "fake.crash_always=1", "launcher.retries=1"), code=1)
    assert "RuntimeError: lost the simulator" in crash and "2 attempts" in crash and "continue with" in crash
    bad = sweep.run(*sweep.plan("seed=0", "max_env_steps=900", "algo.lr=1", "extend=true", "launcher.retries=0"),
                    code=1)
    assert "error: unknown key algo.lr (exit code 2); never retried" in bad
    sweep.run("launcher.retries=0", code=1)
    attempts = [len(read_record(sweep.out, cell.hash)["attempts"]) for cell in sweep.cells]
    assert attempts == [4, 1]  # the crash gets another chance with each start of the sweep, bad input none
    sweep.run("launcher.retries=0", "retry_failed=true", code=1)
    assert len(read_record(sweep.out, sweep.cells[1].hash)["attempts"]) == 2
    table = subprocess.run([sys.executable, "scripts/sweep.py", "status", f"out={sweep.out}"], cwd=ROOT,
                           stdout=subprocess.PIPE, text=True, check=True).stdout
    assert table.count("failed") == 3 and max(map(len, table.splitlines())) <= 80
    assert "lost the simulator" in " ".join(table.split()) and "error: unknown key algo.lr" in " ".join(table.split())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_checkpoints_all_cells_leaves_no_orphan_and_continues(sweep, number):
    process = sweep.start(*sweep.plan("seed=0,1,2", *SLOW))
    sweep.until_training()
    process.send_signal(number)
    shown, _ = process.communicate(timeout=90)
    assert process.returncode == 128 + number
    assert f"continue with: scripts/sweep.py out={sweep.out}" in shown
    assert not sweep.trainers()
    reached = [last_metrics(run).get("env_steps", 0) for run in sweep.run_dirs()]
    sweep.run()
    sweep.assert_each_done_once()
    assert [sweep.starts(run)[-1] for run in sweep.run_dirs()] == reached  # a stop loses nothing


def test_killed_sweep_takes_its_cells_along_and_a_restart_finishes_them(sweep):
    process = sweep.start(*sweep.plan("seed=0,1,2", *SLOW))
    sweep.until_training()
    process.kill()
    sweep.until(lambda: not sweep.trainers())
    sweep.run()
    sweep.assert_each_done_once()


def test_killed_trainer_and_killed_worker_cost_no_more_than_a_checkpoint_interval(sweep):
    process = sweep.start(*sweep.plan("seed=0,1", *SLOW))
    sweep.until_training(1200)
    trainer = json.loads((sweep.run_dirs()[0] / "starts.jsonl").read_text())["pid"]
    worker = holder(lock_path(sweep.out, sweep.cells[1].hash))["pid"]
    os.kill(trainer, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    process.communicate(timeout=90)
    assert process.returncode == 0
    sweep.assert_each_done_once()
    first, second = (sweep.starts(run) for run in sweep.run_dirs())
    assert len(first) == len(second) == 2 and first[1] >= 1000 and second[1] >= 1000
    reasons = [a["outcome"] for a in read_record(sweep.out, sweep.cells[0].hash)["attempts"]]
    assert reasons == ["failed", "done"]


def test_deaf_trainer_is_killed_with_its_children_after_the_grace(sweep):
    process = sweep.start(*sweep.plan("seed=0,1", *SLOW, "fake.deaf=1", "fake.child=1", "launcher.grace_s=1"))
    sweep.until_training()
    children = [int((run / "child").read_text()) for run in sweep.run_dirs()]
    process.terminate()
    process.communicate(timeout=90)
    assert not sweep.trainers()
    sweep.until(lambda: not any(_alive(pid) for pid in children))


@pytest.mark.parametrize(("left", "exit_code", "steps", "says"), [
    ([".part"], -9, 0, "stopped; begins anew, for want of a checkpoint that took longer than launcher.grace_s"),
    ([], 0, 0, "stopped; begins anew, for want of a checkpoint"),
    ([".part", "000000000900", "000000001800"], -9, 1800, "stopped; goes on from its checkpoint"),
    (["last.json"], 0, 2000, "stopped; goes on from its checkpoint"),
])  # fmt: skip
def test_status_says_where_a_stopped_cell_goes_on(tmp_path, left, exit_code, steps, says):
    plan = save_plan(tmp_path, Plan(lay_out(make_request({}, ["seed=0", "max_env_steps=4000"]))))
    run_dir = tmp_path / plan.cells[0].run_dir
    for name in left:
        (run_dir / "checkpoints" / name).mkdir(parents=True)
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "metrics.jsonl").write_text('{"env_steps": 2000}\n')
    path = record_path(tmp_path, plan.cells[0].hash)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"attempts": [{"outcome": "stopped", "exit_code": exit_code}]}))
    (status,) = survey(tmp_path, plan, {})
    assert (status.state, status.env_steps, status.detail) == ("missing", steps, says)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_two_sweeps_on_one_folder_run_no_cell_twice_and_both_end_when_all_is_done(sweep):
    first = sweep.start(*sweep.plan("seed=0,1,2,3", "max_env_steps=2000", "fake.tick_s=0.05"))
    second = sweep.start(*sweep.plan("seed=0,1,2,3", "max_env_steps=2000", "fake.tick_s=0.05"))
    for process in (first, second):
        process.communicate(timeout=90)
        assert process.returncode == 0
    sweep.assert_each_done_once()
    assert [sweep.starts(run) for run in sweep.run_dirs()] == [[0]] * 4


def test_plan_edited_under_a_running_sweep_stops_it_with_one_line(sweep):
    process = sweep.start(*sweep.plan("seed=0,1", *SLOW))
    sweep.until_training()
    path = sweep.out / "plan.json"
    good = path.read_text()
    edited = path.with_suffix(".edited")
    edited.write_text(good.replace('"seed": 1', '"seed": 7'))
    edited.replace(path)  # at once, for the sweep reads it all the time
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 2 and errors.count("\n") == 1 and "was edited" in errors
    assert not sweep.trainers()
    assert "was edited" in sweep.run(code=2)
    path.write_text(good)
    sweep.run()
    sweep.assert_each_done_once()


def test_adding_cells_does_not_disturb_a_running_sweep(sweep):
    process = sweep.start(*sweep.plan("seed=0,1", *SLOW))
    sweep.until_training()
    sweep.run(*sweep.plan("seed=2", *SLOW, "extend=true"))
    process.communicate(timeout=90)
    assert process.returncode == 0 and len(sweep.cells) == 3
    sweep.assert_each_done_once()


# ---- locks


def foreign(path: Path, age_s: float) -> None:
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    os.utime(path, (time.time() - age_s, time.time() - age_s))


def test_another_nodes_lock_counts_while_its_time_stamp_moves_and_no_longer(tmp_path):
    path = tmp_path / "lock"
    foreign(path, 5)
    lock = CellLock(path)
    assert not lock.acquire(0) and holder(path)["host"] == "elsewhere"
    foreign(path, locks.STALE_S + 5)
    assert holder(path) == {} and lock.acquire(0)
    assert holder(path)["pid"] == os.getpid() and lock.beat()
    lock.release()
    assert holder(path) == {}


def test_holder_that_was_overruled_learns_it(tmp_path):
    first, second = CellLock(tmp_path / "lock"), CellLock(tmp_path / "lock")
    assert first.acquire(0) and not second.acquire(0)
    (tmp_path / "lock").unlink()  # as another node does with a stale lock that the file server still keeps
    assert second.acquire(0) and not first.beat() and second.beat()


def test_lock_lasts_as_long_as_the_process_that_inherited_it(tmp_path):
    lock, rival = CellLock(tmp_path / "lock"), CellLock(tmp_path / "lock")
    assert lock.acquire(0)
    child = subprocess.Popen(["sleep", "60"], pass_fds=(lock.fd,))
    os.close(lock.fd)  # as when the holder is killed
    assert not rival.acquire(0)
    child.kill()
    child.wait()
    assert rival.acquire(1)


# ---- small parts


def test_local_slots_share_the_cores_and_the_gpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)), raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    options = load_launcher("local", {})
    cpu = {"device": "cpu"}
    assert local_slots(options, {**cpu, "runtime": "sync"}).workers == 12
    parallel = local_slots(options, {**cpu, "runtime": "parallel"})
    assert (parallel.workers, parallel.threads, parallel.gpus) == (4, 1, ())
    assert parallel.cores == ((0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11))
    assert local_slots(load_launcher("local", {"workers": 20}), cpu).cores == ()
    assert local_slots(load_launcher("local", {"workers": 2}), {**cpu, "runtime": "parallel"}).threads == 2
    assert local_slots(options, {"device": "cuda", "runtime": "parallel"}).gpus == ("4", "5")
    assert local_slots(options, {"device": "cuda", "runtime": "parallel"}).workers == 2
    assert local_slots(load_launcher("local", {"cells_per_gpu": 2}), {"runtime": "sync"}).workers == 4


@pytest.mark.parametrize(("code", "stderr", "words"), [
    (1, "Traceback\nValueError: no\n\n", "ValueError: no (exit code 1)"),
    (-9, "", "killed by SIGKILL (out of memory?)"),
    (137, "", "killed by SIGKILL (out of memory?)"),
    (-11, "bye", "bye (killed by SIGSEGV)"),
    (0, "", "exited with code 0 before it was complete")])
def test_exit_is_described_in_words(code, stderr, words):
    assert describe_exit(code, stderr) == words


def test_corrupt_files_count_as_not_done_and_not_started(sweep):
    sweep.run(*sweep.plan("seed=0", "max_env_steps=200", "dry_run=true"))
    sweep.run(*sweep.plan("seed=0", "max_env_steps=200"))
    run = sweep.run_dirs()[0]
    (run / "summary.json").write_text('{"status": "compl')
    (run / "metrics.jsonl").write_bytes(b'\xff\n{"env_steps": 100}\n{"env_st')
    assert not is_done(run) and last_metrics(run) == {"env_steps": 100}
    status = survey(sweep.out, load_plan(sweep.out), queue(sweep.out))[0]
    assert (status.state, status.env_steps) == ("missing", 100)


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel has no autogroups")
def test_cells_are_as_urgent_as_their_sweep(tmp_path):
    trainer = tmp_path / "trainer.py"
    trainer.write_text(f"open({str(tmp_path / 'said')!r}, 'w').write(open('/proc/self/autogroup').read())")
    sweep = (f"{sys.executable} scripts/sweep.py out={tmp_path / 'out'} 'trainer={sys.executable} {trainer}' seed=0"
             " max_env_steps=9 launcher.retries=0")  # fmt: skip
    subprocess.run(["bash", "-c", f"echo 7 > /proc/self/autogroup; {sweep}"], cwd=ROOT, start_new_session=True,
                   stdout=subprocess.DEVNULL, timeout=90)  # fmt: skip
    assert (tmp_path / "said").read_text().split()[-1] == "7"
