"""Costs in both currencies, measured from logs, and the cheapest ratio by brute force."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scaling.laws.cost import CostModel, measure
from scaling.laws.frontier import Frontier


def windows(overlapped: bool) -> pd.DataFrame:
    rows = []
    for utd in (1 / 1024, 1 / 256, 1 / 32, 1 / 8):
        for batch in (256, 1024, 4096):
            steps, updates = 1e5, 1e5 * utd
            simulate, learn = 2e-5 * steps, updates * (1e-3 + 2e-6 * batch)
            rows.append((steps, updates, max(simulate, learn) if overlapped else simulate + learn, batch, overlapped))
    return pd.DataFrame(rows, columns=["transitions", "updates", "seconds", "batch_size", "overlapped"])


@pytest.mark.parametrize("overlapped", [False, True])
def test_seconds_per_transition_and_per_update_are_measured(overlapped):
    t, u0, u1, table = measure(windows(overlapped))
    assert (t, u0, u1) == pytest.approx((2e-5, 1e-3, 2e-6), rel=1e-6)
    assert np.allclose(table["predicted"], table["seconds"])


def test_published_and_counted_flops_and_delta_from_seconds():
    assert CostModel(model_size=100, delta=7).per_transition(2.0, 3.0) == 10 * 100 * 3 * 2 + 7
    model = CostModel(model_size=100, flops_per_sample=50, seconds_per_transition=0.2, seconds_per_update=0.1,
                      seconds_per_update_sample=0.0)  # fmt: skip
    assert model.flops_per_update(4.0) == 200
    assert model.measured_delta(4.0) == pytest.approx(400)  # two updates' worth of time, 200 FLOPs each


def test_cheapest_ratio_equals_brute_force_and_an_open_end_is_flagged():
    cost = CostModel(model_size=1.0, delta=1000.0)
    data = lambda u, k: (1e5 * (0.6 + (1.5 / u) ** 0.8) * (k + 1))[None]  # noqa: E731
    frontier = Frontier().fit(data, lambda u: np.full((1, len(u)), 10.0), cost, 2, np.array([1.0, 16.0]))
    fine = np.geomspace(0.25, 64, 200001)
    best = fine[np.argmin(data(fine, 0)[0] * (10 * 10 * fine + 1000))]
    assert np.exp(frontier.log_utd_[0, 0]) == pytest.approx(best, rel=1e-3)
    assert not frontier.at_bound_.any()
    free = Frontier().fit(data, lambda u: np.full((1, len(u)), 10.0), CostModel(model_size=1.0, delta=1e9), 1,
                          np.array([1.0, 16.0]))  # fmt: skip
    assert free.at_bound_.all()


def test_overlapped_optimum_balances_both_sides():
    cost = CostModel(currency="seconds", seconds_per_transition=1.0, seconds_per_update=0.25,
                     seconds_per_update_sample=0.0, overlapped=True)  # fmt: skip
    frontier = Frontier().fit(lambda u, k: (1e5 / u**0.5)[None], lambda u: np.ones((1, len(u))), cost, 1,
                              np.array([1.0, 16.0]))  # fmt: skip
    assert np.exp(frontier.log_utd_[0, 0]) == pytest.approx(4.0, rel=0.05)  # updates take as long as simulation
