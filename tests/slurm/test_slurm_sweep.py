"""On a real cluster: preempted, cancelled, killed and timed-out cells all end done, once, and lose little."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scaling.sweep.cell import is_done, last_metrics, lock_path, read_record
from scaling.sweep.locks import holder
from scaling.sweep.plan_file import load_plan

pytestmark = pytest.mark.timeout(1800)  # requeued jobs wait, and the cells must last long enough to be disturbed
ROOT = Path(__file__).resolve().parents[2]
FAKE = f"{sys.executable} {ROOT / 'tests' / 'scaling' / 'fake_trainer.py'}"
INTERVAL = 1000  # env steps between checkpoints
FAKE_CELLS = [f"trainer={FAKE}", "seed=0,1,2,3", "max_env_steps=6000", "fake.tick_s=0.3",
              f"checkpoint_interval={INTERVAL}"]  # 18 seconds each
REAL_INTERVAL = 4096
REAL_CELLS = ["task=Cartpole", "device=cpu", "runtime=sync", "sim.threads=1", "num_envs=64", "seed=0,1,2,3",
              "max_env_steps=32768", f"checkpoint_interval={REAL_INTERVAL}", "log_interval=512", "eval_interval=0",
              "eval_episodes=2", "algo.utd=0.0625", "algo.batch_size=64", "algo.hidden=[32,32]",
              "algo.replay_size=40000", "video=false"]
LOW = ["launcher=slurm", "launcher.partition=low", "launcher.cpus=1", "launcher.grace_s=25",
       "launcher.signal_delay_s=30", "launcher.time_min=30"]


class SlurmSweep:
    """scripts/sweep.py with launcher=slurm on one folder, and what its cells have written."""

    def __init__(self, cluster, out: Path):
        self.cluster, self.out = cluster, out

    def start(self, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "scripts/sweep.py", f"out={self.out}", *LOW, *arguments], cwd=ROOT,
                                env=self.cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                text=True)

    def finish(self, process: subprocess.Popen, code: int) -> str:
        shown, _ = process.communicate(timeout=900)
        assert process.returncode == code, shown
        return " ".join(shown.split())

    def run(self, *arguments: str, code: int = 0) -> str:
        return self.finish(self.start(*arguments), code)

    @property
    def cells(self) -> list:
        return load_plan(self.out).cells if (self.out / "plan.json").exists() else []

    def jobs(self) -> dict[str, str]:
        return json.loads((self.out / "slurm" / "jobs.json").read_text())

    def steps(self, cell) -> int:
        return int(last_metrics(self.out / cell.run_dir).get("env_steps") or 0)

    def outcomes(self, cell) -> list[str]:
        return [a.get("outcome", "open") for a in read_record(self.out, cell.hash).get("attempts", [])]

    def running(self, past: int = 0) -> list:
        """Cells at work that have logged more than `past` steps."""
        return [c for c in self.cells if holder(lock_path(self.out, c.hash)) and self.steps(c) > past
                and self.outcomes(c)[-1:] == ["open"]]

    def lost(self, cell) -> int:
        """The most steps that an attempt had logged and the next one had to do again."""
        run = self.out / cell.run_dir
        if (run / "starts.jsonl").exists():
            resumed = [json.loads(line)["from"] for line in (run / "starts.jsonl").read_text().splitlines()][1:]
        else:
            text = (run / "stdout.log").read_text() + (run / "stderr.log").read_text()
            resumed = [int(steps) for steps in re.findall(r"resuming .* at (\d+) env steps", text)]
        reached = [a["to_env_steps"] for a in read_record(self.out, cell.hash)["attempts"]][:-1]
        assert len(resumed) == len(reached), (resumed, reached)
        return max([before - after for before, after in zip(reached, resumed)] + [0])

    def trainer(self, cell) -> int:
        """The process of the cell's trainer: the one whose arguments name its run directory."""
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            except OSError:
                continue
            if any(word.startswith(b"run_dir=") and str(self.out / cell.run_dir).encode() in word for word in words):
                return int(entry.name)
        raise AssertionError(f"no trainer of {cell.name}")

    def assert_each_done_once(self, lost: int) -> None:
        for cell in self.cells:
            assert is_done(self.out / cell.run_dir), cell
            assert self.outcomes(cell).count("done") == 1 and "open" not in self.outcomes(cell)
            assert self.lost(cell) <= lost, (cell, self.lost(cell))


@pytest.fixture
def sweep(cluster, tmp_path):
    sweep = SlurmSweep(cluster, tmp_path / "sweep")
    yield sweep
    cluster.call("scancel", "--user", os.environ.get("USER", "root"), check=False)
    cluster.until(lambda: not cluster.call("squeue", "--noheader").strip(), "an empty queue", 60)


def disturb(sweep: SlurmSweep, cells: list[str], past: int, lost: int) -> None:
    """Preempt one cell, kill one's trainer, cancel one's job; restart; check that all end done, once."""
    cluster = sweep.cluster
    process = sweep.start(*cells)
    cluster.until(lambda: len(sweep.running(past)) == 2, "two cells at work", 300)
    cluster.call("sbatch", "--partition=high", "--ntasks=1", "--output=/dev/null", "--wrap=sleep 1")
    cluster.until(lambda: any("stopped" in sweep.outcomes(c) for c in sweep.cells), "a preempted cell")
    preempted = next(c for c in sweep.cells if "stopped" in sweep.outcomes(c))
    cluster.until(lambda: any(c != preempted for c in sweep.running(past)), "another cell at work", 300)
    killed = next(c for c in sweep.running(past) if c != preempted)
    os.kill(sweep.trainer(killed), signal.SIGKILL)
    cluster.until(lambda: "failed" in sweep.outcomes(killed), "the kill to be noticed", 30)
    cluster.until(lambda: any(c not in (preempted, killed) for c in sweep.running(past)), "a third cell at work", 300)
    cancelled = next(c for c in sweep.running(past) if c not in (preempted, killed))
    cluster.call("scancel", sweep.jobs()[cancelled.hash])
    shown = sweep.finish(process, 1)
    assert f"{len(sweep.cells) - 1} done, 1 missing" in shown and "continue with" in shown
    assert not is_done(sweep.out / cancelled.run_dir)
    assert "1 jobs submitted" in sweep.run("trust=true")  # with the trainer that the plan names
    sweep.assert_each_done_once(lost)
    assert sweep.outcomes(preempted)[0] == "stopped" and sweep.outcomes(killed)[0] == "failed"
    assert "none needs a run" in sweep.run("trust=true")


def test_preempted_killed_and_cancelled_cells_end_done_once_with_little_lost(sweep):
    disturb(sweep, FAKE_CELLS, past=INTERVAL, lost=INTERVAL)


def test_the_same_with_real_training(sweep):
    disturb(sweep, REAL_CELLS, past=REAL_INTERVAL, lost=REAL_INTERVAL)


def test_cell_that_needs_longer_than_its_time_limit_is_checkpointed_and_requeued(sweep):
    shown = sweep.run(f"trainer={FAKE}", "seed=0", "max_env_steps=100000", "checkpoint_interval=100000",
                      "fake.tick_s=0.06", "launcher.time_min=1", "launcher.grace_s=10")  # over a minute
    assert "1 done" in shown
    sweep.assert_each_done_once(0)
    outcomes = sweep.outcomes(sweep.cells[0])
    assert outcomes[:-1] == ["stopped"] * (len(outcomes) - 1) and len(outcomes) >= 3


def test_cell_that_is_preempted_again_and_again_ends_done(sweep):
    """SLURM 22.05 warns a job with SIGUSR2 once; later preemptions come as SIGTERM."""
    process = sweep.start(*FAKE_CELLS, "seed=0")
    for times in (1, 2, 3):
        sweep.cluster.until(lambda: len(sweep.running()) == 1, "the cell at work", 180)
        sweep.cluster.call("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
        sweep.cluster.until(lambda n=times: sweep.outcomes(sweep.cells[0]).count("stopped") == n, "a preemption")
    sweep.finish(process, 0)
    sweep.assert_each_done_once(0)


def test_a_pack_is_one_job_whose_cells_go_on_together_after_a_preemption(sweep):
    process = sweep.start(*REAL_CELLS, "pack=4")
    sweep.cluster.until(lambda: len(sweep.running(REAL_INTERVAL)) == 4, "four cells at work", 300)
    assert len(set(sweep.jobs().values())) == 1
    sweep.cluster.call("sbatch", "--partition=high", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
    sweep.cluster.until(lambda: all("stopped" in sweep.outcomes(c) for c in sweep.cells), "a preemption")
    shown = sweep.finish(process, 0)
    assert "1 jobs submitted" in shown and "4 cells: 4 done" in shown
    for cell in sweep.cells:
        assert is_done(sweep.out / cell.run_dir) and sweep.outcomes(cell) == ["stopped", "done"]
        assert json.loads((sweep.out / cell.run_dir / "summary.json").read_text())["runs_side_by_side"] == 4


def test_killed_sweep_leaves_its_jobs_running_and_a_restart_submits_nothing_twice(sweep):
    process = sweep.start(*FAKE_CELLS)
    sweep.cluster.until(lambda: len(sweep.running()) == 2, "two cells at work")
    process.kill()
    process.communicate()
    shown = sweep.run("trust=true")
    assert "0 jobs submitted, 4 were in the queue" in shown
    sweep.assert_each_done_once(0)
    assert all(sweep.outcomes(cell) == ["done"] for cell in sweep.cells)


def test_refused_options_are_one_line_with_exit_code_2(sweep):
    shown = sweep.run("launcher.partition=gold", *FAKE_CELLS, code=2)
    assert "SLURM refused the jobs" in shown and "invalid partition" in shown and "launcher.*" in shown
