"""What both learners share, the policy's average, and losses through torch.compile."""

from __future__ import annotations

import copy
import shutil
import time

import pytest
import torch

from pql import config
from pql.algorithms import get, make
from pql.algorithms.base import Adam, Nets
from pql.memory.replay import Batch
from pql.roles.flat import Flat
from pql.roles.learner import Optimizer, fuse
from pql.roles.p_learner import average_rate
from pql.run import trainer
from pql.run.metrics import read_metrics
from pql.run.trainer import train
from pql.runtime import checkpoint
from tasks.base import Spaces

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


def losses(name):
    """An algorithm's two losses with their arguments, on networks whose gradients are views of one vector."""
    options = get(name).Options(name=name, hidden=[16, 16])
    if name == "pql_d":
        options.num_atoms = 11
    algorithm = make(options, Spaces(5, 2))
    torch.manual_seed(0)
    groups = {group.name: group.make() for group in algorithm.groups()}
    fixed = {key: copy.deepcopy(module).requires_grad_(False) for key, module in groups.items()}
    rows = torch.randn(32, 15).split([5, 2, 1, 5, 1, 1], 1)
    obs, action, return_n, next_obs, discount, weight = rows
    discount, weight = discount.squeeze(1).sigmoid(), weight.squeeze(1).sigmoid()
    batch = Batch(obs, action.tanh(), return_n.squeeze(1), next_obs, discount, weight, obs, next_obs)
    noise = torch.randn(32, 2)
    found = []
    for key, loss in (("critic", algorithm.critic_loss), ("policy", algorithm.policy_loss)):
        nets = Nets(**{**fixed, "critic_target": fixed["critic"], key: groups[key]})
        found.append((lambda batch, noise, nets=nets, loss=loss: loss(nets, batch, noise), groups[key], (batch, noise)))
    return found


@needs_compiler
@pytest.mark.parametrize("name", ["pql", "pql_d"])
def test_compiled_losses_and_gradients_are_the_plain_ones(name):
    for loss, module, arguments in losses(name):
        flat = Flat({"trained": module})
        found = []
        for function in (loss, fuse(loss, *arguments)):
            flat.grad.zero_()
            value, metrics = function(*arguments)
            value.backward()
            found.append([value.detach(), flat.grad.clone(), *metrics.values()])
        assert function is not loss  # it was compiled
        assert found[0][1].abs().max() > 1e-3
        torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_what_cannot_be_compiled_runs_as_it_is(monkeypatch, capsys):
    def broken(loss, **_):
        def call(*_):
            raise RuntimeError("no C++ compiler\nand a long story")

        return call

    loss, _, arguments = losses("pql")[1]
    monkeypatch.setattr(torch, "compile", broken)
    assert fuse(loss, *arguments) == loss
    said = capsys.readouterr().err
    assert said.startswith("note: not compiled (no C++ compiler)") and "compile=false" in said and said.count("\n") == 1


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
