"""What both learners share, the policy's average, and runs with compiled updates."""

from __future__ import annotations

import shutil
import time

import pytest
import torch

from pql import config
from pql.algorithms.base import Adam
from pql.roles.flat import Flat
from pql.roles.learner import Optimizer
from pql.roles.p_learner import average_rate
from pql.run import trainer
from pql.run.metrics import read_metrics
from pql.run.trainer import train
from pql.runtime import checkpoint

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")


def test_average_is_of_the_last_part_of_all_updates_then_exponential():
    rates = average_rate(torch.arange(2000), 0.0).tolist()
    weights, rest = [], 1.0
    for rate in reversed(rates):  # newest first
        weights.append(rate * rest)
        rest *= 1 - rate
    ages = torch.arange(2000.0)
    weights = torch.tensor(weights)
    assert rates[0] == 1.0 and weights.sum() == pytest.approx(1.0)  # the first update replaces what was there before
    assert (weights * ages).sum() == pytest.approx(2000 / 10, rel=0.02)  # polynomial decay: a mean age of n / (eta + 2)
    assert float(average_rate(torch.tensor(10**6), 0.01)) == pytest.approx(0.01)
    assert float(average_rate(torch.tensor(10**6), 1.0)) == 1.0  # no average


@pytest.mark.parametrize("least, same", [(1.0, True), (0.001, False)])
def test_average_is_what_is_deployed(tiny, tmp_path, least, same):
    train(config.load(tiny(**{"algo.policy_average": least})))
    state = checkpoint.load_tensors(checkpoint.newest(tmp_path / "run")[0], "p_learner")
    assert torch.equal(state["weights"], state["average"]) == same


def test_average_is_what_a_run_evaluates(tiny, tmp_path, monkeypatch):
    evaluated, conclude = [], trainer.Monitor.conclude

    def noted(monitor):
        conclude(monitor)
        evaluated.append(monitor.weights.data.clone())
        time.sleep(1.0)  # for the time of what comes after the end: no training

    monkeypatch.setattr(trainer.Monitor, "conclude", noted)
    summary = train(config.load(tiny()))
    state = checkpoint.load_tensors(checkpoint.newest(tmp_path / "run")[0], "p_learner")
    assert torch.equal(evaluated[0], state["average"])
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert summary["wall_time_s"] < last["wall_time_s"] + 0.9


def test_average_follows_the_policy_update_by_update(tiny, tmp_path):
    """The first update's average is its policy; the second's has the share that `average_rate` says."""

    def policies(updates):
        run = tmp_path / str(updates)
        steps = 8 * 2 * updates  # one critic update per vector step, two per policy update, no more warm-up than one
        train(config.load(tiny(run_dir=run, max_env_steps=steps, **{"algo.warmup_steps": 3})))
        state = checkpoint.load_tensors(checkpoint.newest(run)[0], "p_learner")
        return state["weights"], state["average"]

    (first, first_average), (second, second_average) = policies(2), policies(3)
    before = first_average
    rate = average_rate(torch.tensor(2), 0.001)
    torch.testing.assert_close(second_average, before + rate * (second - before))
    assert not torch.equal(first, second)


def test_optimizer_is_torchs_adamw_behind_torchs_clipping():
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(7, 5), torch.nn.Linear(7, 5)
    theirs.load_state_dict(ours.state_dict())
    flat, settings = Flat({"ours": ours}), Adam(3e-3, weight_decay=0.1, max_grad_norm=0.5)
    mine = Optimizer(flat.data, flat.grad, settings)
    adam = torch.optim.AdamW(theirs.parameters(), lr=3e-3, weight_decay=0.1)
    for n in range(30):
        x = torch.randn(16, 7) * (0.01 if n % 3 else 3)  # gradients on both sides of the bound
        flat.grad.zero_()
        ours(x).square().sum().backward()
        norm = mine.step()
        adam.zero_grad()
        theirs(x).square().sum().backward()
        torch.testing.assert_close(norm, torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5), rtol=1e-4, atol=1e-6)
        adam.step()
        if n == 15:  # a restored one goes on as the first would have
            saved = {name: value.clone() for name, value in mine.state_dict().items()}
            mine = Optimizer(flat.data, flat.grad, settings)
            mine.load_state_dict(saved)
    for a, b in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@needs_compiler
@pytest.mark.parametrize("runtime", ["parallel", "sync"])
def test_compiled_training(tiny, tmp_path, runtime):
    changes = {"compile": "true", "matmul_precision": "medium", "runtime": runtime}
    first = train(config.load(tiny(**changes)))
    assert first["status"] == "completed" and first["critic_updates"] == 200
    if runtime == "sync":
        second = train(config.load(tiny(run_dir=tmp_path / "again", **changes)))
        assert second["eval_return"] == first["eval_return"]
    assert torch.get_float32_matmul_precision() == "highest"  # restored for whoever comes next in this process
