"""Flights replayed from recorded runs: what is scored, on runs that follow a law."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scaling.errors import InputError
from scaling.study.flights import Options, least, run, score


def flight(**changed):
    """Ratios 1, 2, 4 of prices 2, 3, 5 with two runs each; the middle one is predicted to cost 300."""
    rows = [{"utd": utd, "predicted": predicted, "low": predicted / 2, "high": predicted * 2, "came": came,
             "end": 1000.0, "price": utd + 1, "sure": True, "seed": seed}
            for utd, predicted in ((1.0, 120.0), (2.0, 100.0), (4.0, 90.0))
            for seed, came in enumerate((predicted * 1.5, predicted * 3))]  # fmt: skip
    return pd.DataFrame(rows).assign(**changed)


def test_runs_are_scored_against_predictions_and_ratios_against_the_middle_one():
    # 240, 300, 450: the lowest ratio is chosen, and is the faster in both runs, 180 * 2 to 150 * 3 and so on
    assert score([flight(), None]) == ["2", "1", "6", "125%", "+112%", "50%", "1", "100%", "0.80"]
    assert least([flight(), None]) == pytest.approx(1 / 3)  # 1.5 and 3 about 2.25
    none_sure = flight(sure=[False, False, True, True, True, True])
    assert score([none_sure])[-3:] == ["0", "-", "-"]
    unfinished = flight(came=np.inf, end=[1000, 1000, 150, 150, 150, 150])  # of four it is not known
    assert score([flight(), unfinished])[5] == "38%"  # three of six and none of two


def test_a_study_of_recorded_runs_predicts_those_that_were_no_pilots(tmp_path, capsys):
    rng, rows = np.random.default_rng(0), []
    for utd in (0.5, 1.0, 2.0, 4.0):
        for seed in range(5):
            there = 20_000 * (1 + utd**-0.8) * np.exp(0.05 * rng.standard_normal())
            rows += [{"task": "T", "utd": utd, "batch_size": 64, "learning_rate": 1e-3, "seed": seed,
                      "env_steps": step, "episode_return": 100 * step / (step + there / 4)}
                     for step in range(4000, 140_001, 4000)]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "curves.csv", index=False)
    options = Options(curves=str(tmp_path / "curves.csv"), targets=[80.0], flights=1, samples=100, update=0.5)
    assert run(options) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    (found,) = (row for row in rows if row and row[0] == "median_seed")
    assert found[1:4] == ["1", "0", "12"] and int(found[4].rstrip("%")) <= 10
    with pytest.raises(InputError, match="each setting needs 3 ratios or more"):
        run(Options(curves=str(tmp_path / "curves.csv"), seeds=5))
