"""Every algorithm in whole runs: repeatable and resumable to the bit, in three processes, told more, exported."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch

from pql import config
from pql.run import evaluation, export
from pql.run.metrics import read_metrics
from pql.run.trainer import train
from pql.runtime import checkpoint

SMALL = {
    "sac": {"algo.critic_updates_per_policy_update": 1},
    "bro_fast": {"algo.critic_width": 8, "algo.critic_blocks": 1, "algo.actor_width": 8, "algo.num_quantiles": 5,
                 "algo.reset_updates": "[60]", "algo.reset_env_steps": "[]"},
    "flash_sac": {"algo.critic_width": 8, "algo.critic_blocks": 1, "algo.actor_width": 8, "algo.num_atoms": 11},
}  # fmt: skip


@pytest.fixture(params=SMALL)
def small(request, tiny, plugin):
    """`small(key=value)`: overrides of a run of one algorithm."""
    hidden = {} if request.param == "sac" else {"algo.hidden": None}
    return lambda **changes: tiny(algo=request.param, **hidden, **{**SMALL[request.param], **changes})


def parts(run_dir):
    folder, _ = checkpoint.newest(run_dir)
    return {role: checkpoint.load_tensors(folder, role) for role in ("actor", "v_learner", "p_learner", "replay")}


def test_run_repeats_itself_and_a_resumed_one_is_the_uninterrupted_one(small, tmp_path):
    for name in ("one", "two"):
        train(config.load(small(run_dir=tmp_path / name)))
    train(config.load(small(run_dir=tmp_path / "cut", max_env_steps=640)))
    train(config.load([f"run_dir={tmp_path / 'cut'}", "resume=true", "max_env_steps=1600"]))
    one = parts(tmp_path / "one")
    for other in (parts(tmp_path / "two"), parts(tmp_path / "cut")):
        for role, tensors in one.items():
            assert tensors.keys() == other[role].keys()
            for name, value in tensors.items():
                assert torch.equal(value, other[role][name]), (role, name)


def test_three_processes_with_a_critic_that_is_told_more(small, tmp_path):
    summary = train(config.load(small(runtime="parallel", **{"task.options.told": "true", "algo.n_step": 3})))
    assert (summary["status"], summary["critic_updates"]) == ("completed", 200)
    said = {name for line in read_metrics(tmp_path / "run" / "metrics.jsonl") for name in line}
    assert {"temperature", "entropy", "temperature_grad_norm", "policy_loss", "critic_loss"} <= said
    assert evaluation.load_run(str(tmp_path / "run"), 2).act.mean.numel() == 2
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["critic_flops_per_update"] > 0


@pytest.mark.skipif(not importlib.util.find_spec("onnxruntime"), reason="onnxruntime is not installed")
def test_deployed_mean_action_is_exported(small, tmp_path):
    train(config.load(small()))
    trained = evaluation.load_run(str(tmp_path / "run"), 4)
    parity = export.export(trained, tmp_path / "policy.onnx", steps=20)
    assert parity.holds and parity.observations > 5000 and (tmp_path / "policy.onnx").exists()
