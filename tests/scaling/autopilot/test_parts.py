"""The loop's parts by hand: how far runs differ, how long pilots are, which come first."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from scaling.autopilot import outcome, rounds
from scaling.autopilot.options import Options
from scaling.curves.crossings import Crossings
from scaling.report.plan import next_runs
from scaling.report.terminal import amount
from scaling.sweep.plan_file import Cell


def curves(*runs):
    """A table of straight lines: (ratio, seed, the step at which it returns 1, the step at which it ends)."""
    return pd.DataFrame([
        {"utd": utd, "seed": seed, "env_steps": step, "episode_return": step / there}
        for utd, seed, there, end in runs for step in range(100, end + 1, 100)
    ])  # fmt: skip


def test_seeds_scatter_as_their_logarithms_do_within_each_ratio():
    e = np.e
    table = curves((1.0, 0, 1000, 4000), (1.0, 1, 1000 * e, 4000), (2.0, 0, 500, 4000), (2.0, 1, 500 * e**2, 4000),
                   (4.0, 0, 9000, 4000), (4.0, 1, 9000, 4000))  # fmt: skip
    crossings = Crossings(["utd"], kind="median_seed").fit(table, [0.5, 1.0])
    variance, freedom = outcome.scatter(crossings, 1)
    assert freedom == 2  # nothing of the third ratio, where none arrives
    assert variance == pytest.approx((0.5 * 1**2 + 0.5 * 2**2) / 2, rel=1e-3)
    alone = crossings.subset(np.array([True, False, False]), np.array([1]))
    assert outcome.scatter(alone, 0)[0] == pytest.approx(0.5, rel=1e-3)
    late = Crossings(["utd"], kind="median_seed").fit(
        curves((1.0, 0, 1000, 4000), (1.0, 1, 9000, int(1000 * e**1.5))), [1.0]
    )
    assert outcome.scatter(late, 0)[0] == pytest.approx(0.5 * 1.5**2, rel=0.05)  # at least as late as it ended


def test_a_ratio_is_proven_by_three_of_four_of_its_pilots():
    arrive = {1.0: [True] * 4, 2.0: [True] * 3 + [False], 4.0: [True] * 2 + [False] * 2, 8.0: [True], 16.0: [False]}
    table = curves(*((utd, seed, 1000 if there else 9000, 4000)
                     for utd, all_of_it in arrive.items() for seed, there in enumerate(all_of_it)))  # fmt: skip
    assert outcome.proven(Crossings(["utd"], kind="median_seed").fit(table, [0.5, 1.0]), 1) == [1.0, 2.0, 8.0]


def test_one_run_scatters_beside_the_law_by_as_much_as_few_seeds_can_tell():
    plan = SimpleNamespace(env_steps=np.full(200_001, 100.0))
    steps = outcome.of_one_run(plan, (0.04, 3), np.random.default_rng(0))
    assert steps[0] == 100.0
    low, high = np.quantile(steps[1:], [0.05, 0.95])
    assert high == pytest.approx(100 * np.exp(0.2 * 2.3534), rel=0.01)  # Student's t with 3 degrees of freedom
    assert low == pytest.approx(100 * np.exp(-0.2 * 2.3534), rel=0.01)


def test_low_ratios_get_more_of_the_first_rounds_steps_and_all_get_as_long():
    words, ratios = {rounds.UTD: 1.0, rounds.STEPS: 5000}, [1.0, 4.0, 16.0]
    steps = rounds.first_round(Options(target=1.0, budget="84000steps", utd=ratios, seeds=2), [], words)
    assert next(iter(steps.axes.values())) == [[1.0, 6000], [4.0, 3000], [16.0, 1500]]  # 21000 for each of two seeds
    seconds = rounds.first_round(Options(target=1.0, budget="1200s", utd=ratios, seeds=2), [], words)
    assert next(iter(seconds.axes.values())) == [[ratio, 5000] for ratio in ratios] and seconds.fixed["max_time"] == 50


def pilots(affordable, scatter, monkeypatch):
    runs = [{"utd": utd, "batch_size": 64, "learning_rate": 1e-3, "env_steps": steps}
            for utd, steps in ((1.0, 10_000.0), (2.0, 1000.0))]  # fmt: skip
    monkeypatch.setattr(rounds, "next_runs", lambda *_, in_steps: runs if in_steps else [])
    plan = SimpleNamespace(env_steps=np.linspace(900, 1100, 100), target=1.0, task=None)
    cells = [Cell("", "", "", {rounds.UTD: utd, rounds.STEPS: 1000, rounds.SEED: seed})
             for utd in (1.0, 2.0) for seed in (0, 1)]  # fmt: skip
    planner = SimpleNamespace(laws=SimpleNamespace(json={"settings": {}}),
                              cost=SimpleNamespace(seconds=lambda utd, batch: np.array([1.0])))  # fmt: skip
    return rounds.narrowing(plan, planner, cells, Options(target=1.0, budget="1e6steps"), affordable, scatter)


def test_narrowing_pilots_are_long_enough_for_nine_of_ten_and_what_is_too_dear_does_not_bar_the_rest(monkeypatch):
    (axis, values), (_, seeds) = pilots(1e6, 0.5, monkeypatch).axes.items()
    assert axis == "algo.utd,max_env_steps" and seeds == [2, 3]
    assert values == [[1.0, int(10_000 * np.exp(1.28 * 0.5))], [2.0, int(1000 * np.exp(1.28 * 0.5))]]
    assert next(iter(pilots(10_000, 0.0, monkeypatch).axes.values())) == [[2.0, 1300]]
    assert pilots(100, 0.0, monkeypatch) is None


def test_of_runs_that_tell_as_much_the_cheaper_comes_first():
    draws = np.exp(0.3 * np.random.default_rng(0).standard_normal(501))
    steps = 1000.0 * np.repeat(draws[:, None], 3, axis=1)
    grid = np.array([1.0, 2.0, 4.0])
    laws = SimpleNamespace(arrays={"seeds": 2, "variance": np.array([0.02])}, json={"range": {"utd": [2.0, 2.0]}})
    budget = steps * [3.0, 1.0, 2.0]
    planner = SimpleNamespace(curves=lambda target, size: (steps, steps, budget), grid=grid, laws=laws,
                              batch=np.ones((501, 3)), rate=np.ones((501, 3)), others={})  # fmt: skip
    plan = SimpleNamespace(model_size=None, utd=np.array([2.0]))
    found = next_runs(planner, plan, 1.0, seeds=2)
    assert found[0]["utd"] == 2.0 and found[0]["sd_after"] < found[0]["sd_before"]
    steps[0, 1] *= 4  # that many more steps, for as much compute: dear to a budget of steps
    assert [next_runs(planner, plan, 1.0, 2, in_steps=counted)[0]["utd"] for counted in (False, True)] == [2.0, 1.0]


def test_amounts_are_written_out_until_they_are_long():
    said = [amount(value) for value in (0.08764, 4.214, 99.96, 16_523, 1_234_567, 1.234e7, np.inf)]
    assert said == ["0.0876", "4.21", "100", "16,500", "1,230,000", "1.23e+07", "inf"]
