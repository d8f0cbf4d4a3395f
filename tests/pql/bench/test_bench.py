"""scripts/bench.py learner: what it compares is the same work, what bounds it, and its mistakes are named."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pql.bench import learner as bench
from pql.bench import roofline
from pql.errors import UserError


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(roofline.MATMUL, "cpu", 64)
    monkeypatch.setitem(roofline.COPY, "cpu", 1 << 16)


def flops_of(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


@pytest.mark.parametrize("algo", ["pql", "pql_d"])
def test_both_sides_do_the_same_products_and_the_roofline_counts_them(algo):
    cfg = bench.settings(algo, "relu+norm", [16, 8], 32, torch.device("cpu"))
    v_learner, p_learner, textbook = bench.learners(cfg)
    critic = roofline.critic_update(cfg.algo, bench.OBS_DIM, bench.ACTION_DIM).flops
    policy = roofline.policy_update(cfg.algo, bench.OBS_DIM, bench.ACTION_DIM).flops
    assert critic == flops_of(v_learner.update) == flops_of(textbook.update_critic)
    # a textbook's policy update finds the critics' gradients as well, which nobody asks for
    assert policy == flops_of(p_learner.update) < flops_of(textbook.update_policy)


def test_work_of_two_layers_counted_by_hand():
    """Five rows through 3-4-2, two networks: inputs are read once for both, everything else once for each."""
    stack = roofline.Stack([3, 4, 2], rows=5, count=2, size=2)
    weights = 4 * 2 * (3 * 4 + 4 * 2)
    assert stack.parameters == 2 * (3 * 4 + 4 + 4 * 2 + 2)
    assert stack.forward() == roofline.Work(2 * 5 * 2 * (12 + 8), weights + 2 * 5 * (3 + 2 * 4 + 2 * 4 + 2 * 2))
    assert stack.weight_gradient() == roofline.Work(400, weights + 2 * 5 * 2 * (3 + 4 + 4 + 2))
    # of the second layer alone: its gradient, the hidden activations and their gradient
    assert stack.input_gradient(of_first=False) == roofline.Work(160, 4 * 2 * 8 + 2 * 5 * 2 * (2 + 4 + 4))


def test_the_larger_share_of_the_work_bounds_it():
    work = roofline.Work(flops=600, bytes=40)
    assert work.seconds(flops_per_s=100, bytes_per_s=10) == 6
    assert work.seconds(flops_per_s=1000, bytes_per_s=10) == 4


def test_a_row_says_how_it_ran_and_how_far_from_the_roofline(small):
    cfg = bench.settings("pql_d", "relu+norm", [16, 8], 32, torch.device("cpu"), "eager+bf16")
    rows = bench.compare(cfg, 0.05)
    assert [row["update"] for row in rows] == ["critic", "policy"]
    for row in rows:
        assert row["mode"] == "eager+bf16" and row["batch_size"] == 32 and row["turns"] >= 5
        least = max(row["flops"] / row["matmul_flops_per_s"], row["bytes"] / row["copy_bytes_per_s"])
        assert row["share_of_roofline"] == pytest.approx(least * row["updates_per_s"])
        assert row["bound_by"] in ("products", "memory")
        assert 0 < row["share_of_roofline"] < 1.2 and 0 < row["textbook_share_of_roofline"] < 1.2
        assert len(bench.line(row)) <= 80 and len(bench.HEADER) <= 80
    exact = bench.settings("pql_d", "relu+norm", [16, 8], 32, torch.device("cpu"))
    assert rows[0]["bytes"] < roofline.critic_update(exact.algo, bench.OBS_DIM, bench.ACTION_DIM).bytes


@pytest.mark.parametrize(
    ("how", "compile", "cuda_graphs", "matmul_precision", "autocast"),
    [
        ("eager", False, False, "highest", False),
        ("eager+bf16", False, False, "highest", True),
        ("graph+tf32", False, True, "high", False),
        ("compile+medium", True, True, "medium", False),
    ],
)
def test_each_mode_is_what_its_settings_say(how, compile, cuda_graphs, matmul_precision, autocast):
    cfg = bench.settings("pql", "elu", [8], 32, torch.device("cpu"), how)
    assert bench.mode(cfg) == how
    assert (cfg.compile, cfg.cuda_graphs) == (compile, cuda_graphs)
    assert (cfg.matmul_precision, cfg.autocast) == (matmul_precision, autocast)


def test_precision_is_put_back():
    with bench.precision("medium"):
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("word", ["modes=[fast]", "modes=[eager+]", "modes=[eager+int8]", "seconds=0", "clock=sun"])
def test_mistakes_are_named(word):
    with pytest.raises(UserError, match=word.partition("=")[0]):
        bench.main([word])
