"""What N counts is said and chosen, and a table tells how its exponent moves."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from scaling.curves.read import read_curves
from scaling.report.fit import Options, fit

# BRO's sizes: the labels count the whole agent; its two online critics alone, in millions
CRITICS = {1.05e6: 0.37e6, 2.83e6: 1.26e6, 4.92e6: 2.32e6, 26.31e6: 13.0e6}


@pytest.fixture
def sizes(public_data, tmp_path):
    """The authors' data to threshold over ratio and size, with both counts of N."""
    table = pd.read_csv(public_data / "model_scaling_dmc_fits.csv")
    table = table.rename(columns={"critic_params": "agent_size", "time": "env_steps"})
    table = table[["utd", "agent_size", "env_steps"]]
    table["model_size"] = table["agent_size"].map(CRITICS)
    table.to_csv(tmp_path / "crossings.csv", index=False)
    return tmp_path / "crossings.csv"


def test_the_exponent_of_size_moves_with_what_is_counted(sizes):
    """Published .890 with the labels, .698 with critics alone (here rounded counts), at one misfit."""
    for count in ("critics", "agent"):
        result = fit(Options(crossings=str(sizes), count=count, delta=1e10))
        table = result.counts.set_index("count")
        print(table[["lowest", "highest", "beta_exponent", "residual_sd"]])
        assert table.index[0] == count
        assert table.loc["agent", "beta_exponent"] == pytest.approx(0.890, abs=2e-3)
        assert table.loc["critics", "beta_exponent"] == pytest.approx(0.698, abs=0.01)
        assert result.law.beta_exponent_[0, -1] == table.loc[count, "beta_exponent"]
        counted = np.array(sorted(CRITICS.keys() if count == "agent" else CRITICS.values()))
        assert result.cost.model_size == pytest.approx(np.exp(np.log(counted).mean()))


def test_the_report_and_the_plan_say_what_they_count(sizes, tmp_path, script, capsys):
    pd.read_csv(sizes).assign(batch_size=256).to_csv(sizes, index=False)
    assert script("fit", f"crossings={sizes}", f"out={tmp_path}", "count=agent", "delta=1e10") == 0
    assert "What N counts" in (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "laws.json").read_text())["model_size"]["counted"] == "agent"
    assert script("plan", f"laws={tmp_path}", "target=0", "currency=flops") == 0
    assert "agent parameters" in capsys.readouterr().out


def test_runs_tell_both_counts_and_a_table_without_one_is_refused(tmp_path, script, capsys, small_curves):
    for seed in range(2):
        folder = tmp_path / "sweep" / str(seed)
        folder.mkdir(parents=True)
        config = {"task": {"name": "A"}, "algo": {"utd": 1.0, "batch_size": 64, "critic_lr": 1e-3}, "seed": seed}
        (folder / "config.yaml").write_text(json.dumps(config))
        (folder / "metrics.jsonl").write_text('{"env_steps": 10, "eval_return": 1}\n')
        summary = {"status": "completed", "critic_parameters": 100, "agent_parameters": 250}
        (folder / "summary.json").write_text(json.dumps(summary))
    curves = read_curves(tmp_path / "sweep")
    assert curves.table[["model_size", "agent_size"]].drop_duplicates().to_numpy().tolist() == [[100, 250]]
    small_curves.to_csv(tmp_path / "c.csv", index=False)
    assert script("fit", f"curves={tmp_path / 'c.csv'}", "count=agent", f"out={tmp_path}") == 2
    assert "no column agent_size" in capsys.readouterr().err
