"""The data law: exact on exact data at any scale of sigma, honest about what it cannot know."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

from scaling.laws.data_law import DataLaw
from scaling.laws.model_size import ModelSizeLaw
from scaling.laws.published import PublishedDataLaw


def law_table(utds, alpha=0.8, d0=0.6, b0=1.5, unit=1.0, noise=0.0, seed=0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [(t, u * unit, 1.0, s * (d0 + (b0 / u) ** alpha) * np.exp(noise * rng.normal()), False)
            for t, s in (("A", 1e5), ("B", 3e5)) for u in utds]  # fmt: skip
    return pd.DataFrame(rows, columns=["task", "utd", "threshold", "env_steps", "censored"])


@pytest.mark.parametrize("unit", [1.0, 1e-4])
def test_noise_free_law_is_recovered_at_any_scale_of_sigma(unit):
    law = DataLaw().fit(law_table([0.25, 0.5, 1, 2, 4, 8, 16], unit=unit))
    typical = np.sqrt(3) * 1e5
    assert law.alpha_[0] == pytest.approx(0.8, rel=1e-4)
    assert law.d_min_[0, 0] == pytest.approx(0.6 * typical, rel=1e-4)
    assert law.beta_[0, 0] == pytest.approx(1.5 * unit * typical ** (1 / 0.8), rel=1e-3)
    ahead = pd.DataFrame({"task": ["B"], "utd": [64 * unit], "threshold": [1.0]})
    assert law.predict(ahead)[0] == pytest.approx(3e5 * (0.6 + (1.5 / 64) ** 0.8), rel=1e-4)
    assert all(known.all() for known in law.determined_.values())


def test_a_pure_power_law_has_no_determined_plateau_and_a_flat_one_no_exponent():
    power = DataLaw().fit(law_table([1, 2, 4, 8], d0=0.0))
    assert not power.determined_["d_min"][0]
    flat = DataLaw().fit(law_table([1, 2, 4, 8], b0=1e-6))
    assert not flat.determined_["alpha"][0]


def test_two_ratios_determine_nothing():
    law = DataLaw().fit(law_table([1, 4]))
    assert not law.determined_["alpha"][0]
    assert np.isfinite(law.predict(law_table([1, 4]))).all()


def test_a_censored_point_counts():
    table = law_table([1, 2, 4, 8, 16], d0=0.1)
    lowest = (table["task"] == "A") & (table["utd"] == 1)
    cut = table.assign(censored=lowest, env_steps=np.where(lowest, 1.2 * table["env_steps"], table["env_steps"]))
    with_it = DataLaw().fit(cut).predict(table[lowest])[0]
    without = DataLaw().fit(cut[~lowest]).predict(table[lowest])[0]
    assert with_it > without  # the run outlived what the others promise, so the law must rise there


def test_weak_prior_yields_to_data_and_bounds_extrapolation_without_them():
    # 4 ratios and 30 % noise: alone they put alpha anywhere; with the prior it stays between its 1 % quantiles.
    alphas = [DataLaw().fit(law_table([1, 2, 4, 8], noise=0.3, seed=s)).alpha_[0] for s in range(20)]
    assert min(alphas) > 0.35
    assert max(alphas) < 2.7


def size_table(noise=0.0) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [("A", u, n, 0.0, 2e5 * (1 + (1.2 / u) ** 0.9 + (6e5 / n) ** 0.7) * np.exp(noise * rng.normal()), False)
            for u in (1, 2, 4, 8, 16) for n in (2e5, 1e6, 5e6, 2.5e7)]  # fmt: skip
    return pd.DataFrame(rows, columns=["task", "utd", "model_size", "threshold", "env_steps", "censored"])


def test_model_size_law_is_recovered():
    law = ModelSizeLaw().fit(size_table())
    assert law.alpha_[0, 0] == pytest.approx(0.9, rel=1e-3)
    assert law.beta_exponent_[0, 0] == pytest.approx(0.7, rel=1e-3)
    assert law.d_min_[0, 0] == pytest.approx(2e5, rel=1e-3)


def test_authors_model_size_predictions_are_reproduced(public_data):
    table = pd.read_csv(public_data / "model_scaling_dmc_fits.csv")
    table = table.rename(columns={"critic_params": "model_size", "time": "env_steps"})
    law = ModelSizeLaw().fit(table)
    worst = np.abs(law.predict(table) / table["time_sum_powerlaw"] - 1).max()
    print(f"largest relative difference to the authors' predictions: {worst:.1e}")
    assert worst < 1e-3
    assert np.sqrt(np.mean(np.log(law.predict(table) / table["env_steps"]) ** 2)) == pytest.approx(0.107, abs=1e-3)


def test_published_law_of_steps_that_do_not_fall_is_their_constant_without_a_warning():
    law, utds = PublishedDataLaw(), np.array([0.1, 0.2, 0.4, 0.8])
    law.fit(utds, np.array([[[1.0], [1.1], [1.2], [1.3]]]))
    law.parameters_[:, :2] = [0.02, 0.0]  # as a slope of nearly nothing gives in float64
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert law.predict(utds).ravel() == pytest.approx(law.parameters_[0, 2])
