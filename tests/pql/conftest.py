"""Shared by the tests of learning: a tiny run on a task without a simulator, the real script, its processes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pql import config
from pql.run import trainer
from pql.run.metrics import read_metrics
from pql.runtime import checkpoint

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = Path(__file__).with_name("point_mass.py")


@pytest.fixture(autouse=True)
def one_torch_thread():
    """Small tensors gain nothing from more; restored for the tests of other packages."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def mujoco():
    """For tests on a task of our own: skips where MuJoCo's batch interface is missing (Python below 3.11)."""
    if sys.version_info < (3, 11):
        pytest.skip("the MuJoCo simulator needs Python 3.11")
    return pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4")


def overrides(**changes):
    """Of a run that takes a second."""
    values = {
        "task": "Point",
        "plugins": f"[{PLUGIN}]",
        "device": "cpu",
        "runtime": "sync",
        "seed": 3,
        "num_envs": 8,
        "max_env_steps": 1600,
        "log_interval": 400,
        "eval_interval": 800,
        "eval_episodes": 4,
        "checkpoint_interval": 0,
        "video": "false",
        "compile": "false",
        "algo.batch_size": 32,
        "algo.hidden": "[16]",
        "algo.replay_size": 1200,
        "algo.warmup_steps": 8,
        "algo.critic_updates_per_step": 1,
    }
    values.update(changes)
    return [f"{key}={value}" for key, value in values.items() if value is not None]


@pytest.fixture
def tiny(tmp_path):
    """Overrides of a run that takes a second: `tiny(key=value, **{"algo.n_step": 1})`; a later value wins."""
    return lambda **changes: overrides(**{"run_dir": tmp_path / "run", **changes})


@pytest.fixture(scope="session")
def completed(tmp_path_factory):
    """(configuration, summary, folder) of a `tiny` run with two checkpoints, to look at; copy it to change it."""
    run_dir = tmp_path_factory.mktemp("completed") / "run"
    cfg = config.load(overrides(run_dir=run_dir, checkpoint_interval=800))
    return cfg, trainer.train(cfg), run_dir


@pytest.fixture
def plugin():
    """The point mass and the faulty algorithms, registered in this process too."""
    config.import_plugins([str(PLUGIN)])


def alive(pid):
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants_of(pid):
    """pids of its children, theirs, and so on, with the names that ps has for them."""
    names, parents = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            head, _, facts = (path / "stat").read_text().rpartition(")")
            names[int(path.name)] = head.partition("(")[2]
            parents[int(path.name)] = int(facts.split()[1])
    found, new = {}, {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new}
        found.update((child, names[child]) for child in new)
    return found


class Run:
    """`scripts/train.py` as its user starts it, in a process group of its own."""

    def __init__(self, overrides, env=None, cwd=ROOT):
        self.run_dir = Path(next(o.partition("=")[2] for o in overrides if o.startswith("run_dir=")))
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "scripts" / "train.py"), *overrides],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=str(cwd),
            env={**os.environ, **(env or {})}, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # these tests may run under nohup
        )  # fmt: skip
        self.seen = set()

    def until(self, condition, seconds=120, what="what the test waits for"):
        """Wait for a condition on the files or processes of the run; fails if the run ends first."""
        end = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None:
                code, output = self.process.returncode, self.process.communicate()
                raise AssertionError(f"ended with exit code {code} before {what}: {output}")
            assert time.monotonic() < end, f"no sign of {what} in {seconds} s"
            time.sleep(0.01)
        return self

    def children(self):
        """pid -> name of the processes that the run has now, beside the first."""
        return descendants_of(self.process.pid)

    def env_steps(self):
        """Env steps in the last whole line of metrics; 0 if there is none."""
        path = self.run_dir / "metrics.jsonl"
        lines = read_metrics(path) if path.is_file() else []
        return lines[-1]["env_steps"] if lines else 0

    def until_checkpoint(self):
        return self.until(lambda: checkpoint.found(self.run_dir), what="a checkpoint")

    def roles(self):
        """role -> pid of the process that plays it."""
        pids = {name[4:]: pid for pid, name in self.children().items() if name.startswith("pql-")}
        assert pids.keys() == {"actor", "v_learner", "p_learner"}, self.children()
        return pids

    def end(self, seconds):
        """(exit code, stdout, stderr) of the run, which must end by itself within this time, all processes with it."""
        self.seen |= set(self.children())
        out, err = self.process.communicate(timeout=seconds)
        self.none_left(seconds)
        return self.process.returncode, out, err

    def none_left(self, seconds=10):
        end = time.monotonic() + seconds
        while any(alive(pid) for pid in self.seen):
            assert time.monotonic() < end, f"left behind: {[pid for pid in self.seen if alive(pid)]}"
            time.sleep(0.01)

    def clean_up(self):
        for pid in {self.process.pid, *self.seen, *self.children()}:
            if alive(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def script():
    """Starts `scripts/train.py`; what a failing test leaves is killed."""
    runs = []

    def start(overrides, **more):
        runs.append(Run(overrides, **more))
        return runs[-1]

    yield start
    for run in runs:
        run.clean_up()
