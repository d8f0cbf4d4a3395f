"""The authors' gym curves and a massively parallel sweep: their numbers reproduced, their predictions beaten."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from scaling.curves.crossings import Crossings
from scaling.curves.table import CELL
from scaling.laws.chain import data_points, fit_data_law
from scaling.laws.held_out import held_out
from scaling.laws.published import PublishedDataLaw, PublishedHyperparameters, published_crossings, published_frontier
from scaling.report.fit import Options, fit

THRESHOLDS = 1000 - np.geomspace(700, 200, 10)
UTDS = np.array([0.25, 0.5, 1, 2, 4, 8, 16])


@pytest.fixture(scope="module")
def authors_steps(gym):
    """D of the authors' fitted runs, their way: (tasks, ratios, thresholds) per set."""
    out = {}
    for name in ("gym_ours", "gym_baseline_utd2"):
        out[name] = published_crossings(gym[gym["set"] == name], THRESHOLDS, samples=0)[1][0].reshape(4, 7, 10)
    return out


def test_published_hyperparameter_slopes_are_reproduced_within_bootstrap_noise(gym):
    cells, steps = published_crossings(gym[gym["set"] == "gym_sweep"], np.array([800.0]))
    fitted = PublishedHyperparameters().fit(cells, steps[:, :, 0])
    print("published estimator: B slope", -fitted.exponent_["batch_size"], "eta", -fitted.exponent_["learning_rate"])
    assert -fitted.exponent_["batch_size"] == pytest.approx(-0.310, abs=0.015)
    assert -fitted.exponent_["learning_rate"] == pytest.approx(-0.285, abs=0.03)  # a rerun of theirs gave -0.264
    stated = {"Ant-v4": 415.8, "HalfCheetah-v4": 412.0, "Humanoid-v4": 313.2, "Walker2d-v4": 322.8}
    for task, value in stated.items():
        assert fitted.intercept_["batch_size"][task] == pytest.approx(value, rel=0.05)


AUTHORS_LAWS = [("gym_ours", 0.700, 2.290, 1.031, 210501), ("gym_baseline_utd2", 1.410, 0.955, 1.682, 240251)]


@pytest.mark.parametrize(("name", "a", "b", "c", "scale"), AUTHORS_LAWS)
def test_published_data_law_is_reproduced(authors_steps, name, a, b, c, scale):
    law = PublishedDataLaw().fit(UTDS, authors_steps[name])
    assert law.parameters_[-1] == pytest.approx([a, b, c], abs=1e-3)
    assert law.scale_ == pytest.approx(scale, abs=1)
    if name == "gym_ours":
        expected = [5.748, 3.880, 2.995, 1.999, 1.632, 1.504, 1.311]
        assert law.normalised_[:, -1] == pytest.approx(expected, abs=1e-3)


def test_published_frontier_is_reproduced(authors_steps):
    batch = PublishedHyperparameters()
    batch.exponent_ = {"batch_size": 0.310}
    batch.intercept_ = {"batch_size": {"Ant": 415.8, "HalfCheetah": 412.0, "Humanoid": 313.2, "Walker2d": 322.8}}
    found = published_frontier(PublishedDataLaw().fit(UTDS, authors_steps["gym_ours"]), batch, UTDS)
    print(found)
    assert found["exponent"] == pytest.approx(0.620, abs=0.005)
    assert found["predicted"] == pytest.approx([6.87, 7.73], rel=0.01)
    assert found["found"] == pytest.approx([6.09, 6.35], rel=0.01)


@pytest.fixture(scope="module")
def gym_crossings(gym):
    return Crossings(CELL, samples=200, seed=0).fit(gym[gym["set"] == "gym_ours"], THRESHOLDS)


@pytest.mark.parametrize("pooling", ["partial", "full"])
def test_held_out_ratios_are_predicted_better_than_by_the_published_procedure(gym_crossings, pooling):
    """The stated errors of the published procedure: one shape for all tasks beats every one of the seven; tasks that
    differ as far as they tell beat their mean by more, not each, and their intervals hold."""
    crossings, rng = gym_crossings, np.random.default_rng(0)
    splits = [("train .5-8", [0.25, 16.0]), ("train .25-4", [8.0, 16.0]), ("train 1-8", [0.25, 0.5, 16.0])]
    points = replace(data_points(crossings, rng), pooling=pooling)
    table = held_out(crossings, points, rng, splits=splits)
    mean = table.assign(error=table["relative_error"].abs()).groupby(["split", "utd"])["error"].mean()
    theirs = {("train .5-8", 0.25): 0.085, ("train .5-8", 16.0): 0.126, ("train .25-4", 8.0): 0.10,
              ("train .25-4", 16.0): 0.19, ("train 1-8", 0.25): 0.46, ("train 1-8", 0.5): 0.19,
              ("train 1-8", 16.0): 0.095}  # fmt: skip
    for key, value in theirs.items():
        print(f"{pooling}, {key}: {mean[key]:.1%} (published {value:.1%})")
    inside = [low <= seen <= high for (low, high), seen in zip(table["predicted_interval"], table["observed"])]
    print(f"{pooling}: mean {np.mean([mean[key] for key in theirs]):.1%}, inside {np.mean(inside):.0%}")
    if pooling == "full":
        assert all(mean[key] < value for key, value in theirs.items())
    else:
        assert np.mean([mean[key] for key in theirs]) < 0.7 * np.mean(list(theirs.values()))
        assert 0.8 < np.mean(inside) <= 0.98


@pytest.fixture(scope="module")
def parallel_sweep(public_data, tmp_path_factory):
    scales = tmp_path_factory.mktemp("flash") / "scales.csv"
    scales.write_text("task,max_return\nIsaac-Velocity-Flat-G1-v0,35\nIsaac-Repose-Cube-Allegro-Direct-v0,1250\n")
    return fit(Options(curves=str(public_data / "flashsac_utd_curves.csv"), scales=str(scales), thresholds=[800.0],
                       samples=300))  # fmt: skip


def test_massively_parallel_crossings_are_reproduced_and_the_missing_one_is_censored(parallel_sweep):
    table = parallel_sweep.points.table().sort_values("utd")
    g1 = table[table["task"].str.contains("G1")]["env_steps"].to_numpy() / 1e6
    assert g1 == pytest.approx([46.7, 26.6, 15.3, 11.9, 10.0], abs=0.06)
    allegro = table[table["task"].str.contains("Allegro")]
    assert allegro["censored"].tolist() == [True, False, False, False, False]
    assert allegro["env_steps"].to_numpy()[1:] / 1e6 == pytest.approx([32.8, 19.3, 11.9, 7.6], abs=0.06)


def test_two_largest_parallel_ratios_are_predicted_from_three(parallel_sweep):
    """Reported, not passed: G1's curve flattens where Allegro's does not, and three ratios do not show it."""
    crossings, points = parallel_sweep.crossings, parallel_sweep.points
    train = data_points(crossings.subset(crossings.cells_["utd"].to_numpy() < 2.1 / 1024), np.random.default_rng(0))
    assert train.table()["censored"].sum() == 1
    law = fit_data_law(train, np.random.default_rng(0))
    uncensored = train.subset(np.isfinite(train.values[0, :, 0]))
    without = fit_data_law(uncensored, np.random.default_rng(0))
    lowest = law.predict_samples(0.5 / 1024, 0, "Isaac-Repose-Cube-Allegro-Direct-v0")[0, 0]
    assert lowest > 5e7  # the run was not there after 50M steps, and the law knows
    print("sigma .5/1024, Allegro:", lowest, "without the censored cell:",
          without.predict_samples(0.5 / 1024, 0, "Isaac-Repose-Cube-Allegro-Direct-v0")[0, 0])  # fmt: skip
    errors = []
    for task in law.tasks_:
        for utd in (4 / 1024, 8 / 1024):
            samples = law.predict_samples(utd, 0, task)[:, 0]
            here = ((points.cells["task"] == task) & np.isclose(points.cells["utd"], utd)).to_numpy()
            seen = float(np.exp(points.values[0, here, 0])[0])
            errors.append(abs(samples[0] / seen - 1))
            low, high = np.quantile(samples[1:], [0.05, 0.95])
            print(f"{task} sigma {utd * 1024:.0f}/1024: predicted {samples[0] / 1e6:.2f}M [{low / 1e6:.2f}, "
                  f"{high / 1e6:.2f}], observed {seen / 1e6:.2f}M, {samples[0] / seen - 1:+.1%}")  # fmt: skip
    assert max(errors) < 0.5
    assert pd.Series(errors).median() < 0.2
