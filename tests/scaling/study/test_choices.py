"""The comparisons on public sweeps, on small stand-ins for them; the figures are docs/results/scaling's."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scaling.study.choices import Options, common, run
from scaling.study.public import REACH, _apart, score, windows
from scaling.study.synthetic import LOW, Truth, data_runs


def test_windows_are_three_ratios_and_those_above_up_to_the_reach():
    found = [(list(train), list(above)) for train, above in windows(np.array([1.0, 2, 4, 8, 16, 100]))]
    assert REACH == 4
    assert found == [([1, 2, 4], [8, 16]), ([2, 4, 8], [16]), ([4, 8, 16], [])]


def test_runs_that_share_a_seed_are_told_apart_and_copies_dropped():
    table = pd.DataFrame({"env_steps": [0, 1, 2] * 3, "episode_return": [0, 1, 2, 0, 1, 3, 0, 1, 2], "seed": 7})
    apart = _apart(table)
    assert apart.groupby("seed")["episode_return"].agg(list).tolist() == [[0, 1, 2], [0, 1, 3]]


def test_a_task_counts_once_however_many_predictions_it_has():
    rows = [("s", "A", np.log(1.1), 0.0)] * 9 + [("s", "B", np.log(1.3), 0.0)]
    table = pd.DataFrame(rows, columns=["source", "task", "predicted", "observed"]).assign(low=-0.1, high=0.1)
    assert score(table)[["tasks", "error"]].tolist() == pytest.approx([2, 0.2])


def test_only_what_every_choice_predicted_is_compared():
    row = dict.fromkeys(["source", "task", "train", "utd", "threshold"], 1)
    one, two = pd.DataFrame([row, {**row, "utd": 2}]), pd.DataFrame([{**row, "utd": 2}, {**row, "utd": 3}])
    assert [found["utd"].tolist() for found in common({"a": one, "b": two}).values()] == [[2], [2]]


@pytest.mark.parametrize("compare", ["crossing", "pooling"])
def test_a_comparison_says_what_each_choice_errs(tmp_path, capsys, compare):
    truth = Truth(tasks={"A": (1e5, 410.0, 2e-4), "B": (2e5, 360.0, 1e-3)})
    curves = data_runs(truth, LOW, np.random.default_rng(0), None, (1.0, 2.0, 4.0, 8.0), seeds=3, points=40)
    curves.assign(set="gym_ours").to_csv(tmp_path / "gym_sac_curves.csv.gz", index=False)
    pd.DataFrame({"task": ["A", "B"], "max_return": 1000.0}).to_csv(tmp_path / "gym_sac_scales.csv", index=False)
    plain = curves[["task", "utd", "seed", "env_steps", "episode_return"]]
    plain.to_csv(tmp_path / "flashsac_utd_curves.csv", index=False)
    plain.assign(reset=0).to_csv(tmp_path / "simba_utd_reset_curves.csv.gz", index=False)
    results = run(Options(compare=compare, data=str(tmp_path), samples=30))
    assert {"mean", "full"} & set(results)
    for found in results.values():
        assert found["source"].nunique() == 3 and score(found)["error"] < 0.25  # three seeds of 10 % noise
    assert "90% covers" in capsys.readouterr().out
