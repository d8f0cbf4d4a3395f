"""scripts/bench.py learner: what it compares is the same work, and its mistakes are named."""

from __future__ import annotations

import pytest
import torch

from pql import bench
from pql.errors import UserError


@pytest.mark.parametrize("algo", ["pql", "pql_d"])
def test_both_sides_do_the_same_products_and_the_row_says_how(algo, monkeypatch):
    monkeypatch.setattr(bench, "MATMUL", 64)
    cfg = bench.settings(algo, "relu+norm", [16, 8], 32, torch.device("cpu"), "eager+medium")
    rows = bench.compare(cfg, 0.05)
    assert [row["update"] for row in rows] == ["critic", "policy"]
    for row in rows:
        assert row["mode"] == "eager+medium" and row["batch_size"] == 32
        # ours has no gradient for what it does not train; a textbook's policy update has the critics' as well
        assert row["flops"] <= row["textbook_flops"]
        assert row["updates_per_s"] > 0 and row["textbook_updates_per_s"] > 0 and row["turns"] >= 5
        assert len(bench.line(row)) <= 80 and len(bench.HEADER) <= 80
    assert rows[0]["flops"] == rows[0]["textbook_flops"]
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("word", ["modes=[fast]", "seconds=0", "clock=sun"])
def test_mistakes_are_named(word):
    with pytest.raises(UserError, match=word.partition("=")[0]):
        bench.main([word])
