"""Crossings agree with scikit-learn's isotonic regression, and what never crosses stays in as censored."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.isotonic import IsotonicRegression

from scaling.curves.crossings import Crossings, drop_recovery, isotonic_crossing, resampling_weights, seed_matrix


def reference(steps: np.ndarray, returns: np.ndarray, threshold: float) -> tuple[float, float]:
    """Interpolated and logged crossing of scikit-learn's fit, found point by point."""
    fitted = IsotonicRegression().fit(steps, returns).predict(steps)
    for k, value in enumerate(fitted):
        if value >= threshold - 1e-12:
            if k == 0:
                return steps[0], steps[0]
            share = (threshold - fitted[k - 1]) / (value - fitted[k - 1])
            return steps[k - 1] + share * (steps[k] - steps[k - 1]), steps[k]
    return np.inf, np.inf


def test_crossing_equals_scikit_learns_isotonic_regression():
    rng = np.random.default_rng(0)
    for trial in range(200):
        steps = np.cumsum(rng.uniform(0.1, 2, rng.integers(2, 60)))
        noise = rng.normal(0, 1, len(steps))
        returns = np.cumsum(0.3 + noise) if trial % 2 else noise + np.linspace(0, 2, len(steps))
        threshold = rng.uniform(-1, 3)
        interpolated, logged = reference(steps, returns, threshold)
        sums = np.cumsum(returns)[None]
        assert isotonic_crossing(steps, sums, threshold)[0] == pytest.approx(interpolated)
        assert isotonic_crossing(steps, sums, threshold, interpolate=False)[0] == logged


def test_known_crossing_is_interpolated():
    steps, sums = np.array([10.0, 20.0, 30.0]), np.cumsum([0.0, 1.0, 5.0])[None]
    assert isotonic_crossing(steps, sums, 3.0)[0] == pytest.approx(25)


def test_bootstrap_weights_have_the_unbiased_variance():
    weights = resampling_weights(4, 20000, np.random.default_rng(0))
    assert np.allclose(weights.sum(axis=1), 1)
    values = np.array([1.0, 2.0, 4.0, 9.0])
    # 20000 draws: the standard error of a variance is 1 %, so 5 % never fails by chance
    assert (weights[1:] @ values).var() == pytest.approx(values.var(ddof=1) / 4, rel=0.05)


def test_seeds_with_different_logs_share_a_grid_and_a_short_one_is_left_out_and_named():
    frame = pd.concat([
        pd.DataFrame({"seed": 0, "env_steps": np.arange(0, 101, 10), "episode_return": np.arange(0, 101, 10)}),
        pd.DataFrame({"seed": 1, "env_steps": np.arange(3, 104, 10), "episode_return": np.arange(3, 104, 10)}),
        pd.DataFrame({"seed": 2, "env_steps": [0, 10], "episode_return": [0, 10]}),
    ])  # fmt: skip
    steps, returns, notes = seed_matrix(frame)
    assert returns.shape[0] == 2
    assert np.allclose(returns.mean(axis=0), steps)  # each seed's return equals its steps, so must their mean
    assert "seed 2" in notes[0]


def test_the_dip_after_a_marked_reset_is_dropped_until_recovery():
    steps, returns = drop_recovery(np.arange(6.0), np.array([1.0, 5, 0, 2, 6, 7]), np.array([0, 0, 1, 0, 0, 0]) > 0)
    assert steps.tolist() == [0, 1, 4, 5]
    assert returns.tolist() == [1, 5, 6, 7]


def test_a_run_that_never_reaches_the_threshold_is_censored_at_its_horizon():
    frame = pd.DataFrame({"task": "A", "seed": [0] * 3 + [1] * 3, "env_steps": [1, 2, 3] * 2,
                          "episode_return": [0.0, 1, 2] * 2})  # fmt: skip
    row = Crossings(["task"], samples=10).fit(frame, [5.0]).table_.iloc[0]
    assert row["censored"]
    assert row["env_steps"] == 3
