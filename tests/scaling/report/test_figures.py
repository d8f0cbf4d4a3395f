"""Axes can be read: no two labels alike, fractions and decimals of a ratio never mixed."""

from __future__ import annotations

import numpy as np
import pytest

from scaling.report.figures import _ratios, ticks


@pytest.mark.parametrize(("low", "high"), [(5.6e9, 6.4e9), (6.01e9, 6.04e9), (1e3, 1e12), (0.5, 3), (3e-4, 8e-4),
                                           (9.7e5, 1.03e6), (2.0, 2.0001), (7, 45)])  # fmt: skip
def test_labels_of_a_logarithmic_axis_differ_and_say_where_they_stand(low, high):
    at, labels = ticks(low, high)
    assert len(set(labels)) == len(labels) and 2 <= len(at) <= 5
    assert all(low <= v <= high for v in at)
    np.testing.assert_allclose([float(label) for label in labels], at, rtol=1e-9)


def test_ratios_of_one_axis_are_written_one_way():
    assert _ratios([1 / 64, 1 / 16, 0.125, 0.25, 0.5, 1, 4]) == ["1/64", "1/16", "1/8", "1/4", "1/2", "1", "4"]
    assert _ratios([1 / 16, 0.3, 1]) == ["0.0625", "0.3", "1"]
