"""Crossings by seed: the median, a share of the seeds, those that never get there, and what stands at a ceiling."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scaling.curves.crossings import Crossings
from scaling.curves.shares import share_crossing
from scaling.curves.support import support, verdict
from scaling.errors import InputError

EVEN = np.full((1, 4), 0.25)


def ramps(arrivals: list[float], horizon: float = 100.0, task: str = "A", utd: float = 1.0) -> pd.DataFrame:
    """One run per arrival: the return climbs from 0 and passes 1 at that step; inf stays at 0.5."""
    steps = np.arange(1.0, horizon + 1)
    runs = [pd.DataFrame({"task": task, "utd": utd, "seed": seed, "env_steps": steps,
                          "episode_return": np.minimum(steps / at, 2.0) if np.isfinite(at) else 0.5})
            for seed, at in enumerate(arrivals)]  # fmt: skip
    return pd.concat(runs, ignore_index=True)


@pytest.mark.parametrize(("share", "steps"), [(0.25, 10), (0.5, 20), (0.75, 40), (0.76, np.inf)])
def test_a_share_is_there_when_that_many_seeds_are_and_one_that_never_is_counts(share, steps):
    crossings = np.array([[40.0], [10.0], [np.inf], [20.0]])
    assert share_crossing(crossings, np.full(4, 100.0), EVEN, share)[0, 0] == steps


def test_a_run_that_ended_early_counts_as_long_as_it_ran():
    """Kaplan and Meier by hand: arrivals at 10, 20, 40 of five, one lost at 15: 1/5, then 1/5 + 4/5/3, then 11/15."""
    crossings, ends = np.array([[10.0], [20.0], [40.0], [np.inf], [np.inf]]), np.array([50.0, 50, 50, 15, 50])
    weights = np.full((1, 5), 0.2)
    for share, steps in ((0.2, 10), (0.46, 20), (0.47, 40), (11 / 15 - 1e-3, 40), (11 / 15 + 1e-3, np.inf)):
        assert share_crossing(crossings, ends, weights, share)[0, 0] == steps


def test_an_even_number_of_seeds_has_its_median_between_the_two_in_the_middle():
    crossings = np.array([[10.0, 10.0, 0.0], [20.0, 20.0, 0.0], [45.0, np.inf, 0.0], [np.inf, np.inf, 30.0]])
    found = share_crossing(crossings, np.full(4, 80.0), EVEN, 0.5, middle=True)[0]
    np.testing.assert_allclose(found, [30.0, 40.0, 0.0])  # sqrt(20 45); sqrt(20 80); above at the first evaluation


def test_seed_kinds_are_reached_where_the_mean_is_not():
    curves = ramps([10.0, 20.0, np.inf])
    curves.loc[curves["seed"] == 2, "episode_return"] = -5.0
    found = {kind: Crossings(["task"], kind=kind, probability=2 / 3).fit(curves, [1.0]).steps_[0, 0, 0]
             for kind in ("mean", "median_seed", "probability")}  # fmt: skip
    assert found == {"mean": np.inf, "median_seed": 20.0, "probability": 20.0}
    assert Crossings(["task"], kind="probability", probability=0.9).fit(curves, [1.0]).table_["censored"][0]


def test_runs_that_stop_once_they_are_there_count_by_seed():
    """As in model-size sweeps whose runs end at success: the mean leaves them out, the seeds do not."""
    curves = ramps([10.0, 20.0, 60.0, 80.0, 90.0])
    stopped = curves[(curves["seed"] > 1) | (curves["env_steps"] <= 25)]
    assert Crossings(["task"], kind="median_seed").fit(stopped, [1.0]).steps_[0, 0, 0] == 60.0
    assert Crossings(["task"]).fit(stopped, [1.0]).steps_[0, 0, 0] > 65


def test_near_a_ceiling_the_mean_is_not_stood_behind_and_the_median_is():
    early = np.array([20.0, 24.0, 22.0, 21.0, 23.0, 25.0])
    tables = [ramps([*(early / utd), np.inf], utd=utd) for utd in (1.0, 2.0, 4.0)]
    curves = pd.concat(tables, ignore_index=True)
    crossings = Crossings(["task", "utd"], samples=100).fit(curves, [0.4, 1.85])
    table = support(curves, crossings, 0.8)
    stands = table.set_index(["kind", "threshold"])["stands"]
    assert stands["mean", 0.4]
    assert not stands["mean", 1.85]  # one of seven seeds never gets beyond 0.5
    assert stands["median_seed", 1.85]
    (line,) = verdict(table, "mean")
    assert line.startswith("J = 1.85: crossing=mean cannot")
    assert "crossing=median_seed does" in line


def test_a_mean_that_waits_for_its_last_seed_is_not_stood_behind():
    """Seeds that end at 2 let a mean reach 1.95 only while the last one climbs, long after the others."""
    curves = pd.concat([ramps(list(np.array([20.0, 24.0, 30.0, 34.0]) / u), utd=u) for u in (1.0, 2.0)])
    table = support(curves, Crossings(["task", "utd"], samples=100).fit(curves, [0.5, 1.95]), 0.8)
    rows = table.set_index(["kind", "threshold"])
    assert rows.loc[("mean", 1.95), ["waits", "stands"]].tolist() == [2, False]
    assert rows.loc[("mean", 0.5), ["waits", "stands"]].tolist() == [0, True]
    assert rows.loc[("median_seed", 1.95), ["waits", "stands"]].tolist() == [0, True]


def test_an_unknown_kind_and_a_share_above_one_are_refused():
    for more in ({"kind": "best"}, {"probability": 1.2}):
        with pytest.raises(InputError):
            Crossings(["task"], **more)
