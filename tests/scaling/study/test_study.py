"""The simulation study in small: the full table is `python -m scaling.study` (50 replicates)."""

from __future__ import annotations

import os
import time

import numpy as np
import pandas as pd
import pytest

from scaling.study.replicate import replicate
from scaling.study.synthetic import NOISE_FREE, REALISTIC, Truth

FULL = bool(os.environ.get("SCALING_FULL"))


def test_noise_free_chain_is_exact():
    result = replicate(Truth(), NOISE_FREE, 0, samples=0, law_alone=False)
    assert result["B exponent"] == pytest.approx(0.45, abs=0.005)
    assert result["eta exponent"] == pytest.approx(0.30, abs=0.005)
    assert result["D at sigma 64"] == pytest.approx(result["D at sigma 64 true"], rel=0.01)
    assert result["penalty"] < 1.001


@pytest.mark.skipif(not FULL, reason="about 90 s; set SCALING_FULL=1, or run python -m scaling.study")
def test_realistic_noise_leaves_exponents_unbiased_and_intervals_honest():
    table = pd.DataFrame([replicate(Truth(), REALISTIC, s, samples=300, law_alone=False) for s in range(50)])
    assert abs(table["B exponent"].mean() - 0.45) < 0.03
    assert abs(table["eta exponent"].mean() - 0.30) < 0.03
    assert table["penalty"].median() <= 1.02
    covered = table[[c for c in table if c.endswith("covered")]].mean()
    # nominal 90 %; over 50 replicates 85-97 % is the target and 1.3 standard errors of the binomial, so pool them
    assert 0.85 <= covered.mean() <= 0.97


def test_a_few_noisy_replicates_stay_near_the_truth():
    table = pd.DataFrame([replicate(Truth(), REALISTIC, s, samples=0, law_alone=False) for s in range(6)])
    # standard error over 6 replicates: 0.045 and 0.035; four of them never fail by chance
    assert abs(table["B exponent"].mean() - 0.45) < 0.18
    assert abs(table["eta exponent"].mean() - 0.30) < 0.14
    assert (table["D at sigma 64"] / table["D at sigma 64 true"] - 1).abs().median() < 0.15


@pytest.mark.skipif(not FULL, reason="a timing; set SCALING_FULL=1 on an idle machine")
def test_whole_chain_with_1000_samples_on_144_cells_takes_under_ten_seconds(public_data, tmp_path):
    from scaling.report.fit import Options, fit

    thresholds = list(1000 - np.geomspace(700, 200, 10))
    start = time.monotonic()
    fit(Options(curves=str(public_data / "gym_sac_curves.csv.gz"), scales=str(public_data / "gym_sac_scales.csv"),
                hparams_from=["gym_sweep"], data_from=["gym_ours"], thresholds=thresholds, model_size=1.5e5, delta=4e9,
                samples=1000))  # fmt: skip
    seconds = time.monotonic() - start
    print(f"144 + 28 cells, 1000 samples: {seconds:.1f} s")
    assert seconds < 10
