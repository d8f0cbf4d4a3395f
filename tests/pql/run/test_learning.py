"""Cartpole is learned: every seed, both algorithms, both runtimes, in a bounded number of env steps.

The ceiling is 500 (1 per step for 500 steps); demanded is 450. The settings are those that users get by
`task=Cartpole` (cfg/task_preset/Cartpole_cpu.yaml), and the bound is 50 000 env steps, 3 100 critic updates. What
counts is the best of the evaluations on the way, every 10 000 steps: a policy may dip once it is there. So a run is
over with the first that reaches it, as what would come after could not change the verdict.

False alarms: of 57 runs of only 38 000 to 40 000 steps with three or four evaluations one was below 450 in all of them
(PQL-D, 445; 15 runs of PQL-D, 42 of PQL, whose worst was 466). Those evaluated the newest policy; what is evaluated now
is an average, over a quarter more steps. Its rate of false alarms is not known: all of 20 runs passed.
Three of their five seeds run here in three processes. With runtime=sync the seed decides everything: one is enough, as
what passes once passes again.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pql import config
from pql.run import trainer
from pql.run.metrics import read_metrics
from pql.run.trainer import train

BOUND, CEILING = 50_000, 500
DEMANDED = 0.9 * CEILING


@pytest.fixture
def until_learned(monkeypatch):
    """Training ends, as at a time limit, with the first evaluation that reaches what is demanded."""
    tick = trainer.Monitor.tick

    def tick_until_learned(monitor):
        tick(monitor)
        if (monitor.last_return or 0.0) >= DEMANDED:
            monitor.shared.step_limit.fill_(0)

    monkeypatch.setattr(trainer.Monitor, "tick", tick_until_learned)


@pytest.mark.parametrize("runtime, seed", [("sync", 0), ("parallel", 0), ("parallel", 1), ("parallel", 2)])
@pytest.mark.parametrize("algo", ["pql", "pql_d"])
def test_cartpole_reaches_90_percent_of_its_ceiling_in_every_seed(mujoco, until_learned, tmp_path, algo, runtime, seed):
    learns_cartpole(tmp_path / "run", algo, runtime, seed)


@pytest.mark.skipif(
    not re.search("avx512_bf16|amx_bf16", Path("/proc/cpuinfo").read_text()),
    reason="minutes where the processor has no products of bfloat16; that they are taken is tested on any",
)
def test_cartpole_is_learned_with_layers_in_bfloat16(mujoco, until_learned, tmp_path):
    """Best evaluations of seeds 100 to 104, bfloat16 beside float32: no loss that these could show.

    PQL 495, 489, 499, 497, 463 beside 497, 489, 499, 499, 488;
    PQL-D 499, 498, 497, 495, 498 beside 500, 495, 497, 493, 495.
    """
    learns_cartpole(tmp_path / "run", "pql_d", "sync", 0, autocast="true")


def learns_cartpole(run_dir, algo, runtime, seed, **changes):
    settings = {
        "task": "Cartpole", "algo": algo, "runtime": runtime, "seed": seed, "run_dir": run_dir, "max_env_steps": BOUND,
        "eval_interval": 10_000, "eval_episodes": 16, "checkpoint_interval": 0, "device": "cpu", "video": "false",
        **changes,
    }  # fmt: skip
    summary = train(config.load([f"{key}={value}" for key, value in settings.items()]))
    lines = read_metrics(run_dir / "metrics.jsonl")
    curve = {line["env_steps"]: line["eval_return"] for line in lines if "eval_return" in line}
    assert summary["env_steps"] < BOUND + 64 and max(curve) == summary["env_steps"]
    assert summary["random_return"] < 50
    assert max(curve.values()) >= DEMANDED, curve
