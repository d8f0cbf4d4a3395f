"""The README's sweep, fit and plan: the planned run reaches its target."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from scaling.report.plan import Options, command, make_plan
from scaling.sweep.plan_file import load_group

ROOT = Path(__file__).resolve().parents[3]
TARGET = 400
FULL = bool(os.environ.get("SCALING_FULL"))


def run_plan(laws: Path, settings: dict, run_dir: Path) -> float:
    """The last evaluation of what the plan tells to run."""
    plan = make_plan(Options(laws=str(laws), target=TARGET))[0]
    words = shlex.split(" ".join(command(plan, settings)))[2:]
    done = subprocess.run([sys.executable, "scripts/train.py", *words, f"run_dir={run_dir}", "seed=0"], cwd=ROOT,
                          capture_output=True, text=True, timeout=300, check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [line["eval_return"] for line in lines if "eval_return" in line][-1]


def test_the_run_planned_from_a_quick_sweep_reaches_its_target(tmp_path, script):
    """cartpole_quick.csv: the cells of `sweep=quick task=Cartpole`; at 1/8 and 1/4 shorter, 30,000 and 20,000."""
    pytest.importorskip("mujoco", reason="trains on MuJoCo, which needs Python 3.11")
    curves = Path(__file__).with_name("cartpole_quick.csv")
    assert script("fit", f"curves={curves}", f"out={tmp_path / 'laws'}", "samples=200", "delta=1.7e5", "report=false",
                  "model_size=9218") == 0  # fmt: skip
    plan = make_plan(Options(laws=str(tmp_path / "laws"), target=TARGET))[0]
    assert not plan.undetermined and 32 * 64 < plan.env_steps[0] < 50000
    fixed = {k: v for k, v in load_group("sweep", "quick")["fixed"].items() if k not in ("max_env_steps",
             "algo.batch_size")}  # fmt: skip
    assert run_plan(tmp_path / "laws", {"fixed": fixed}, tmp_path / "run") >= TARGET


@pytest.mark.skipif(not FULL, reason="minutes; set SCALING_FULL=1")
def test_the_whole_chain_of_the_readme_comes_true(tmp_path, script):
    done = subprocess.run([sys.executable, "scripts/sweep.py", "sweep=quick", "task=Cartpole", f"out={tmp_path / 's'}"],
                          cwd=ROOT, check=False)  # fmt: skip
    assert done.returncode == 0
    assert script("fit", f"curves={tmp_path / 's'}", f"out={tmp_path / 'laws'}") == 0
    settings = json.loads((tmp_path / "laws" / "laws.json").read_text())["settings"]
    assert run_plan(tmp_path / "laws", settings, tmp_path / "run") >= TARGET
