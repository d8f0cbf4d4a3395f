"""The law with a reset interval: exact where it is true, the plain law where no run meets a reset."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scaling.laws.data_law import DataLaw
from scaling.laws.resets import ResetLaw

INTERVAL = 1e6


def truth(utd: np.ndarray, rho: float) -> np.ndarray:
    """The first step count with as many resets before it as it pays for, found one reset at a time."""
    free = 2e5 * (1 + 1.5 / utd)
    out = np.empty_like(free)
    for i, (sigma, start) in enumerate(zip(utd, free)):
        count = 0
        while sigma * start * (1 + rho * count) >= (count + 1) * INTERVAL:
            count += 1
        out[i] = start * (1 + rho * count)
    return out


def fit(law, rho: float, utds=(1.0, 2.0, 4.0, 8.0, 16.0)):
    cells = pd.DataFrame({"task": "A", "utd": utds, "horizon": 1e7, "first": 1e3})
    values = np.log(truth(cells["utd"].to_numpy(), rho))[None, :, None]
    return law.fit_samples(cells, values, np.full(values.shape[1:], 1e-3), np.array([1.0]))


def test_resets_that_cost_are_found_and_predicted():
    assert truth(np.array([4.0, 8.0]), 0.2) == pytest.approx([275000 * 1.2, 237500 * 1.4])  # one reset, two
    law, plain = fit(ResetLaw(INTERVAL), 0.1), fit(DataLaw(), 0.1)
    assert law.rho_ == pytest.approx(0.1)
    held_out = np.array([24.0, 32.0])
    np.testing.assert_allclose(law.predict_samples(held_out, 0, "A")[0], truth(held_out, 0.1), rtol=0.02)
    assert (plain.predict_samples(held_out, 0, "A")[0] < 0.8 * truth(held_out, 0.1)).all()


def test_without_a_reset_on_the_way_it_is_the_plain_law():
    law, plain = fit(ResetLaw(1e9), 0.0), fit(DataLaw(), 0.0)
    assert law.rho_ == 0
    np.testing.assert_array_equal(law.predict_samples([2.0, 32.0], 0), plain.predict_samples([2.0, 32.0], 0))
