"""A curve says between which evaluations it crosses, and no more: crossings, surface and law know that."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import truncnorm

from scaling.curves.crossings import Crossings, within_gap
from scaling.errors import InputError
from scaling.laws.chain import data_points, fit_data_law
from scaling.laws.data_law import DataLaw
from scaling.laws.hyperparameters import ResponseSurface, impute_censored
from scaling.report.fit import Options, fit

EVERY = 20_000
AT_ONE = 200_000 * np.log(2)  # steps until 500 at sigma 1, of 1000 (1 - exp(-t sigma / 200000))


def coarse_curves(utds=(1, 2, 4, 8, 16), noise=8.0, seeds=4) -> pd.DataFrame:
    """Evaluated each 20,000 steps: at sigma 8 and 16 return 500 is passed before the first."""
    rng, t = np.random.default_rng(0), np.arange(EVERY, 400_001, EVERY)
    fixed = {"task": "Walk", "batch_size": 256, "learning_rate": 3e-4, "env_steps": t}
    parts = []
    for utd in utds:
        for seed in range(seeds):
            returns = 1000 * (1 - np.exp(-t * utd / 2e5)) + noise * rng.normal(size=len(t))
            parts.append(pd.DataFrame({**fixed, "utd": utd, "seed": seed, "episode_return": returns}))
    return pd.concat(parts, ignore_index=True)


def test_a_curve_above_the_threshold_at_its_first_evaluation_crosses_somewhere_before_it():
    found = Crossings(["task", "utd"], samples=50).fit(coarse_curves(), [500.0])
    early = found.table_[found.table_["utd"] >= 8]
    assert early["left_censored"].all() and not early["censored"].any()
    assert (found.steps_[:, 3:] == 0).all()  # in no sample is the first evaluation a measurement
    assert early[["after", "by"]].to_numpy().tolist() == [[0, EVERY]] * 2
    late = found.table_[found.table_["utd"] < 8]
    assert (late["by"] - late["after"] == EVERY).all()
    assert late["env_steps"].between(late["after"], late["by"]).all()


def test_resampled_crossings_lie_anywhere_in_their_gap_and_keep_the_order_of_the_thresholds():
    steps = np.array([10.0, 20.0, 40.0])
    quantile = np.random.default_rng(0).random(4000)
    moved = within_gap(steps, np.tile([22.0, 26.0, 8.0, np.inf], (4000, 1)), quantile)
    assert moved[:, 0].min() > 20 and moved[:, 0].max() < 40 and moved[:, 0].max() > 38
    assert moved[:, 0].mean() == pytest.approx((20 + 22 + 40) / 3, abs=0.3)  # a triangle's mean; 4 standard errors
    assert (moved[:, 0] <= moved[:, 1]).all()
    assert (moved[:, 2] == 8).all() and np.isinf(moved[:, 3]).all()


def test_imputed_values_are_the_means_of_truncated_normals():
    mean, sd = np.array([0.5, 0.5]), np.array([2.0, 2.0])
    out = impute_censored(np.array([np.inf, -np.inf]), np.array([[1.0, 1.0], [-0.7, -0.7]]), mean, sd)
    above = truncnorm((1.0 - 0.5) / 2, np.inf, 0.5, 2.0).mean()
    below = truncnorm(-np.inf, (-0.7 - 0.5) / 2, 0.5, 2.0).mean()
    assert out == pytest.approx([above, below], rel=1e-9)


def test_the_law_extrapolates_past_crossings_that_nobody_saw_and_its_interval_holds_the_truth():
    rng = np.random.default_rng(1)
    crossings = Crossings(["task", "utd"], samples=200).fit(coarse_curves(), [500.0])
    law = fit_data_law(data_points(crossings, rng), rng)
    for utd in (1, 4, 8, 16):
        samples = law.predict_samples(utd, 0)[:, 0]
        low, high = np.quantile(samples[1:], [0.05, 0.95])
        assert low < AT_ONE / utd < high
        assert samples[0] == pytest.approx(AT_ONE / utd, rel=0.35)  # the first evaluation is 131 % off at 16


def test_the_supplied_curves_with_a_first_evaluation_above_give_the_known_data():
    table = Path(__file__).resolve().parents[4] / "shared" / "inputs" / "faults" / "first_evaluation_is_above.csv"
    if not table.exists():
        pytest.skip(f"{table} is not here")
    result = fit(Options(curves=str(table), thresholds=[500.0], samples=100))
    assert any("2 of 5 crossings lie before their run's first evaluation" in note for note in result.notes)
    samples = result.law.predict_samples(16, 0)[:, 0]
    low, high = np.quantile(samples[1:], [0.05, 0.95])
    assert low < 138629 / 16 < high and samples[0] == pytest.approx(138629 / 16, rel=0.35)
    assert not result.law.determined_["d_min"][0]


def test_the_best_hyperparameters_are_found_among_runs_that_crossed_before_their_first_evaluation():
    batch = np.array([64.0, 128, 256, 512, 1024])
    rows = [("A", u, b, 1e5 / u * np.exp(0.4 * np.log(b / 256) ** 2)) for u in (1.0, 2.0, 4.0) for b in batch]
    table = pd.DataFrame(rows, columns=["task", "utd", "batch_size", "env_steps"]).assign(censored=False)
    first = 3.5e4  # at sigma 4 the three best batch sizes are there already
    early = table["env_steps"] < first
    assert early.sum() == 3
    seen = table.assign(env_steps=table["env_steps"].clip(lower=first), left_censored=early)
    surface = ResponseSurface().fit(seen)
    assert surface.best_samples("batch_size", "A", 4.0)[0, 0] == pytest.approx(256, rel=0.1)
    assert np.exp(surface.log_data_[0, 2]) == pytest.approx(25000, rel=0.15)
    naive = ResponseSurface().fit(seen.drop(columns="left_censored"))
    assert np.exp(naive.log_data_[0, 2]) > 28000


def test_a_law_of_crossings_tables_takes_both_kinds_of_censoring():
    rows = [(u, 1e5 / u, False, False) for u in (1.0, 2.0, 4.0)] + [(8.0, 2e4, False, True), (0.5, 1.5e5, True, False)]
    table = pd.DataFrame(rows, columns=["utd", "env_steps", "censored", "left_censored"])
    table = table.assign(task="A", threshold=1.0)
    law = DataLaw().fit(table)
    assert law.predict_samples(8.0, 0)[0, 0] == pytest.approx(12500, rel=0.1)
    assert law.predict_samples(0.5, 0)[0, 0] == pytest.approx(2e5, rel=0.1)


def test_a_threshold_that_all_runs_pass_unseen_gives_no_number(tmp_path):
    coarse_curves(utds=(8, 16)).to_csv(tmp_path / "c.csv", index=False)
    with pytest.raises(InputError, match="above it at its first evaluation"):
        fit(Options(curves=str(tmp_path / "c.csv"), thresholds=[300.0], samples=0))
    result = fit(Options(curves=str(tmp_path / "c.csv"), thresholds=[300.0, 700.0, 900.0], samples=0))
    assert result.thresholds.tolist() == [700, 900]
    assert any("reached only before a first evaluation, left out: J = 300" in note for note in result.notes)


@pytest.mark.skipif(not os.environ.get("SCALING_FULL"), reason="30 s; set SCALING_FULL=1")
def test_intervals_hold_the_truth_where_evaluations_are_far_apart():
    """Small: `python -m scaling.study every=8e4` is the figure."""
    from scaling.study.replicate import replicate
    from scaling.study.synthetic import LOW, Truth

    table = pd.DataFrame([replicate(Truth(), LOW, seed, 60, True, every=8e4) for seed in range(3)])
    covered = table[[f"D at sigma {s} covered" for s in ("0.25", "4", "64")]]
    assert covered.to_numpy().mean() >= 7 / 9
