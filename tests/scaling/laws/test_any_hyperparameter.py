"""Response surfaces over whatever varies: found, told apart from slopes and flats, and set by the plan."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from scaling.curves.keys import as_axis
from scaling.errors import InputError
from scaling.laws.hyperparameters import ResponseSurface
from scaling.report.plan import Options as Plan
from scaling.report.plan import make_plan

NAMES = ("batch_size", "learning_rate", "weight_decay")
DECAYS = (1e-4, 1e-3, 1e-2)


def cells(along_decay, noise: float = 0.0, grid: bool = True) -> pd.DataFrame:
    """Two tasks with bowls in batch size and learning rate, and `along_decay(ln decay / 1e-3, ln sigma)` beside."""
    rng, rows = np.random.default_rng(0), []
    for (task, scale), utd in itertools.product((("A", 1e5), ("B", 3e5)), (1, 2, 4, 8)):
        for batch, rate, decay in itertools.product((128, 256, 512), (1e-4, 2e-4, 4e-4), DECAYS):
            if not grid and sum((batch != 128, rate != 1e-4, decay != 1e-4)) > 1:
                continue  # one at a time from a corner
            x, y = np.log(batch / (400 * utd**-0.45)), np.log(rate / (3e-4 * utd**-0.30))
            z, s = np.log(decay / 1e-3), np.log(utd)
            steps = np.log(scale / utd**0.5) + 0.15 * (x * x + y * y) + along_decay(z, s) + noise * rng.normal()
            rows.append((task, utd, batch, rate, decay, np.exp(steps), False))
    return pd.DataFrame(rows, columns=["task", "utd", *NAMES, "env_steps", "censored"])


@pytest.mark.parametrize("grid", [True, False])
def test_three_hyperparameters_are_found_together_on_a_grid_and_one_at_a_time(grid):
    """Best decay 1e-3 sigma^-0.2; one at a time nothing tells the products from the rest, and none is fitted."""
    surface = ResponseSurface(NAMES).fit(cells(lambda z, s: 0.1 * (z + 0.2 * s) ** 2, grid=grid))
    assert surface.swept_ == list(NAMES)
    found = {name: surface.exponent_[name][0] for name in NAMES}
    assert found == pytest.approx({"batch_size": 0.45, "learning_rate": 0.30, "weight_decay": 0.2}, abs=1e-3)
    assert surface.best_samples("weight_decay", "B", [4.0])[0, 0] == pytest.approx(1e-3 * 4**-0.2, rel=1e-3)
    assert set(surface.shape_.values()) == {"bowl"}


@pytest.mark.parametrize(("slope", "shape"), [(-0.1, "larger is better"), (0.1, "smaller is better"), (0.0, "flat")])
def test_monotone_and_flat_directions_are_told_from_bowls(slope, shape):
    surface = ResponseSurface(NAMES).fit(cells(lambda z, s: slope * z, noise=0.05))
    assert surface.shape_["weight_decay"] == shape
    assert surface.shape_["batch_size"] == "bowl" and surface.shape_["learning_rate"] == "bowl"
    assert not surface.determined_["weight_decay"]
    best = surface.chosen_samples("weight_decay", "A", [1.0, 8.0])[0]
    if slope:  # the end of the grid, or half a step beyond
        assert (best >= 1e-2).all() if slope < 0 else (best <= 1e-4).all()


def test_noise_that_hides_a_direction_is_unclear_and_not_flat():
    surface = ResponseSurface(NAMES).fit(cells(lambda z, s: 0.0, noise=0.8))
    assert surface.shape_["weight_decay"] == "unclear"


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Curves of one task over ratio, batch size, learning rate and decay, that climb to 1 on the way to D."""
    table = cells(lambda z, s: 0.1 * (z + 0.2 * s) ** 2)
    table = table[(table["task"] == "A") & (table["learning_rate"] == 2e-4)]
    rng, rows = np.random.default_rng(1), []
    for row in table.itertuples():
        for seed in range(3):
            at = np.linspace(0.1, 2, 20) * row.env_steps
            speed = np.exp(0.05 * rng.normal())
            rows.append(pd.DataFrame({"task": "A", "utd": row.utd, "batch_size": row.batch_size, "learning_rate": 2e-4,
                                      "weight_decay": row.weight_decay, "seed": seed, "env_steps": at,
                                      "episode_return": speed * at / row.env_steps}))  # fmt: skip
    path = tmp_path_factory.mktemp("swept") / "curves.csv"
    pd.concat(rows).to_csv(path, index=False)
    return path


def test_the_plan_sets_what_was_fitted_and_the_report_shows_it(swept, tmp_path, script, capsys):
    words = [f"curves={swept}", f"out={tmp_path}", "samples=30", "thresholds=0.9,1.0", "delta=1e9", "model_size=1e5"]
    assert script("fit", *words) == 2
    assert "hyperparameters=batch_size,learning_rate,weight_decay" in capsys.readouterr().err
    assert script("fit", *words, f"hyperparameters=[{','.join(NAMES)}]", "published=false") == 0
    laws = json.loads((tmp_path / "laws.json").read_text())
    block = laws["hyperparameters"]["weight_decay"]
    assert block["exponent"] == pytest.approx(0.2, abs=0.05) and block["shape"] == "bowl"
    assert "best weight_decay" in (tmp_path / "report.html").read_text()
    assert make_plan(Plan(laws=str(tmp_path), target=0.95))[0].others["weight_decay"][0] == pytest.approx(8e-4, rel=0.3)
    capsys.readouterr()
    assert script("plan", f"laws={tmp_path}", "target=0.95", "utd=4") == 0
    (word,) = [word for word in capsys.readouterr().out.split() if word.startswith("algo.weight_decay=")]
    assert float(word.split("=")[1]) == pytest.approx(1e-3 * 4**-0.2, rel=0.1)


def test_a_hyperparameter_that_is_absent_or_no_number_costs_one_line(swept, tmp_path, script, capsys):
    for name, says in (("weight_decy", "did you mean 'weight_decay'"), ("utd", "not utd"), ("seed", "not seed")):
        assert script("fit", f"curves={swept}", f"out={tmp_path}", f"hyperparameters=batch_size,{name}") == 2
        assert says in capsys.readouterr().err
    with pytest.raises(InputError, match="2 rows have none"):
        as_axis(pd.Series([5e5, np.nan, None]), "reset_interval", "c.csv")
    with pytest.raises(InputError, match="is not a number"):
        as_axis(pd.Series(["[64,32]", "[64,64]"]), "hidden", "c.csv")
    values, repeat = as_axis(pd.Series(["[64,64]", "[128,128]"]), "hidden", "c.csv")
    assert values.tolist() == [64, 128] and repeat == 2
