"""Tasks share what they share: shrunk where they are vague, apart where they differ, with intervals that hold."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scaling.laws.chain import DataPoints, fit_data_law
from scaling.laws.data_law import DataLaw
from scaling.laws.pooled import PooledLaw, _between, _Task

UTDS = (1.0, 2.0, 4.0, 8.0)


def points(alphas, noise: float, seed: int = 0, utds=UTDS, draws: int = 200, **how) -> DataPoints:
    """Tasks with D = 1e5 (0.3 + sigma^-alpha), observed with log-normal noise of known size, two thresholds alike."""
    rng = np.random.default_rng(seed)
    cells = pd.DataFrame([(f"T{i}", u) for i in range(len(alphas)) for u in utds], columns=["task", "utd"])
    cells = cells.assign(model_size=np.nan, horizon=1e7, first=1.0, cells=1)
    alpha = np.repeat(alphas, len(utds))
    true = np.log(1e5 * (0.3 + cells["utd"].to_numpy() ** -alpha))
    values = np.empty((draws + 1, len(cells), 2))
    seen = true + noise * rng.standard_normal(len(cells))
    values[0] = seen[:, None] + [0.0, 0.2]
    values[1:] = values[:1] + noise * rng.standard_normal((draws, len(cells), 1))
    return DataPoints(cells, values, np.array([500.0, 800.0]), **how)


def fit(data: DataPoints) -> DataLaw:
    return fit_data_law(data, np.random.default_rng(0))


def test_tasks_that_differ_keep_their_own_slope_and_a_shared_one_would_not_do():
    alphas = [0.5, 0.5, 1.5, 1.5]
    partial, full = fit(points(alphas, 0.02)), fit(points(alphas, 0.02, pooling="full"))
    assert isinstance(partial, PooledLaw) and not isinstance(full, PooledLaw)
    worst = {}
    for law in (partial, full):
        errors = [law.predict_samples([0.25], 0, f"T{i}")[0, 0] / (1e5 * (0.3 + 0.25**-a)) - 1
                  for i, a in enumerate(alphas)]  # fmt: skip
        worst[type(law)] = np.abs(errors).max()
    assert worst[PooledLaw] < 0.25 < 0.4 < worst[DataLaw]


def test_a_vague_task_leans_on_the_others():
    """Three ratios with 25 % noise say little of one task's slope, so the prior holds it near 1; twelve tasks alike say
    that it is 1.8."""
    together = points([1.8] * 12, 0.25, seed=3, utds=(1.0, 2.0, 4.0))
    truth = np.log(1e5 * (0.3 + 0.25**-1.8))
    gaps = {"together": [], "alone": []}
    law = fit(together)
    for i in range(12):
        own = together.subset((together.cells["task"] == f"T{i}").to_numpy())
        gaps["together"].append(np.log(law.predict_samples([0.25], 0, f"T{i}")[0, 0]) - truth)
        gaps["alone"].append(np.log(fit(own).predict_samples([0.25], 0, f"T{i}")[0, 0]) - truth)
    assert np.square(gaps["together"]).mean() < 0.5 * np.square(gaps["alone"]).mean()


def test_the_misfit_is_as_large_as_the_data_say():
    """Eight ratios of four tasks: on the law it is the least there is, with each point 20 % off beside it is large."""
    clean = points([1.0] * 4, 0.02, utds=tuple(2.0**k for k in range(8)))
    rough = points([1.0] * 4, 0.02, utds=tuple(2.0**k for k in range(8)))
    rough.values += 0.2 * np.random.default_rng(7).standard_normal(32)[None, :, None]
    assert fit(clean).misfit_sd_ < 0.03
    assert fit(rough).misfit_sd_ > 0.15


def test_intervals_of_single_tasks_hold_the_truth():
    """90 % intervals over 40 tasks drawn as the prior has them: 31 or more hold with a chance of 99 % at 85 %."""
    rng = np.random.default_rng(5)
    held = 0
    for seed in range(40):
        alpha = float(np.exp(0.42 * rng.standard_normal()))
        samples = fit(points([alpha], 0.1, seed, utds=(1.0, 2.0, 4.0))).predict_samples([12.0], 1, "T0")[1:, 0]
        low, high = np.quantile(samples, [0.05, 0.95])
        held += low <= 1e5 * np.exp(0.2) * (0.3 + 12.0**-alpha) <= high
    assert held >= 31


def test_the_prior_yields_to_its_weight_and_without_noise_there_is_nothing_to_pool():
    spans = []
    for weight in (0.0, 1.0, 100.0):
        law = fit(points([1.0], 0.2, utds=(1.0, 2.0, 4.0), prior=weight))
        logit = np.log(law.share_[1:, 0] / (1 - law.share_[1:, 0]))
        spans.append(logit.std())
    assert spans[0] > spans[1] > 2 * spans[2]
    assert not isinstance(fit(points([1.0], 0.0)), PooledLaw)


def test_a_censored_point_moves_the_draws_to_its_side():
    data = points([0.8], 0.1, utds=(0.5, 1.0, 2.0, 4.0))
    lost = (data.cells["utd"] == 0.5).to_numpy()
    without = fit(data.subset(~lost)).predict_samples([0.5], 0, "T0")
    data.values[:, lost] = np.inf
    data.cells.loc[lost, "horizon"] = 1.2 * float(np.median(without))
    assert np.median(fit(data).predict_samples([0.5], 0, "T0")) > 1.1 * np.median(without)


def test_saved_and_restored_it_predicts_the_same_and_row_zero_is_the_printed_law():
    law = fit(points([0.6, 1.0], 0.1))
    again = PooledLaw.restore(law.state())
    for task in (None, "T1"):
        found, saved = (each.predict_samples([3.0, 40.0], 1, task) for each in (law, again))
        np.testing.assert_array_equal(found, saved)
    printed = law.d_min_[0, 1] + (law.beta_[0, 1] / 3.0) ** law.alpha_[0, 1]
    assert law.predict_samples([3.0], 1)[0, 0] == pytest.approx(printed, rel=1e-9)


def test_likelihood_is_that_of_the_points_with_the_scale_integrated_out():
    """Against brute force over ln K: two points, g with its own covariance, a flat ln K."""
    x, y, noise = np.array([-0.5, 0.7]), np.array([[1.2], [0.4]]), np.array([[0.04], [0.09]])
    data = _Task(x, y, np.stack([y, y]), noise)
    data.weigh(0.2)
    theta = np.array([[0.0, 0.0], [0.3, -1.0]])
    cov = 0.04 * np.exp(-np.abs(x[:, None] - x) / 2.8) + np.diag(noise[:, 0])
    scales = np.linspace(-3, 5, 4001)
    slow = []
    for log_alpha, logit in theta:
        share = 1 / (1 + np.exp(-logit))
        shape = np.log(1 - share + share * np.exp(-np.exp(log_alpha) * x))
        gap = y[:, 0] - shape - scales[:, None]
        slow.append(np.log(np.exp(-0.5 * np.einsum("gi,ij,gj->g", gap, np.linalg.inv(cov), gap)).sum()))
    fast = data.log_likelihood(theta)[0]
    assert fast[0] - fast[1] == pytest.approx(slow[0] - slow[1], rel=1e-6)


def test_interpolation_weights_are_linear_and_constant_beyond():
    knots = np.linspace(-2, 2, 5)
    found = np.array([0.0, 1, 4, 9, 16]) @ _between(knots, np.array([-9.0, -1.5, 1.0, 7.0]))
    assert found.tolist() == [0.0, 0.5, 9.0, 16.0]
