"""What the data do not tell is no number, no conclusion and no plan; a point never lies outside its interval."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest

from scaling.errors import InputError
from scaling.laws.uncertainty import bands, interval, undetermined
from scaling.report import html
from scaling.report.plan import Options as PlanOptions
from scaling.report.plan import make_plan


def test_an_interval_reaches_its_point():
    rng = np.random.default_rng(0)
    for point in (-40.0, 0.0, 40.0):
        low, high = interval(np.append(point, rng.normal(size=100)))
        assert low <= point <= high


def test_bands_of_figures_and_tables_reach_their_points():
    rng = np.random.default_rng(0)
    samples = np.vstack([np.linspace(-5, 5, 7), rng.normal(size=(200, 7))])
    low, high = bands(samples)
    assert (low <= samples[0]).all() and (samples[0] <= high).all()
    assert low[3] == pytest.approx(-1.645, abs=0.4) and high[3] == pytest.approx(1.645, abs=0.4)


def test_rounding_keeps_a_point_inside_its_interval():
    rng = np.random.default_rng(0)
    for _ in range(300):
        low, point, high = np.sort(10 ** rng.uniform(-3, 3) * (1 + 1e-3 * rng.random(3)))
        text = html.with_interval({"x": point, "x_interval": [low, high]}, "x")
        a, b, c = (float(v) for v in re.findall(r"[0-9.e+-]+", text))
        assert b <= a <= c, text


def test_what_spans_more_than_a_factor_of_ten_is_undetermined():
    assert undetermined(np.append(1.0, np.geomspace(0.01, 2, 100)))
    assert undetermined(np.append(1.0, np.append(np.ones(50), np.full(50, np.inf))))
    assert not undetermined(np.append(1.0, np.geomspace(0.5, 2, 100)))
    assert not undetermined(np.ones(1))  # nothing was resampled: another note says so


def noisy_curves(seeds: int = 2) -> pd.DataFrame:
    """Seeds that differ by a factor of 20 at each of three ratios."""
    rng, t = np.random.default_rng(0), np.arange(1, 41) * 5000.0
    rows = []
    for utd in (1.0, 2.0, 4.0):
        for seed in range(seeds):
            tau = 1e5 / utd * 20 ** rng.uniform(-0.7, 0.5)
            rows.append(pd.DataFrame({"task": "A", "utd": utd, "batch_size": 256.0, "learning_rate": 1e-3, "seed": seed,
                                      "env_steps": t, "episode_return": 1000 * (1 - 0.2 ** (t / tau))}))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


@pytest.fixture(scope="module")
def vague(tmp_path_factory, script):
    folder = tmp_path_factory.mktemp("vague")
    noisy_curves().to_csv(folder / "c.csv", index=False)
    assert script("fit", f"curves={folder / 'c.csv'}", f"out={folder / 'laws'}", "delta=1e9", "samples=100",
                  "thresholds=500,700,800", "report=false") == 0  # fmt: skip
    return folder / "laws"


def test_undetermined_numbers_are_null_in_laws_json_and_never_concluded(vague):
    laws = json.loads((vague / "laws.json").read_text())
    names = laws["data"][-1]["undetermined"]
    assert names and all(laws["data"][-1][name] is None for name in names)
    points = laws["frontier"]["flops"]["points"]
    assert any(p["undetermined"] for p in points)
    for block in [*points, laws["frontier"]["flops"]]:
        assert all(block[name] is None for name in block["undetermined"])
    may, may_not = html.conclusions(laws)
    assert not any("cheapest" in line or "Data until" in line for line in may)
    assert any("σ* in flops" in line and not re.search(r"\[", line) for line in may_not)


def test_a_plan_whose_data_is_undetermined_says_so_and_prints_no_command(vague, script, capsys):
    assert script("plan", f"laws={vague}", "target=600", "utd=0.01") == 0
    text = capsys.readouterr().out
    assert "scripts/train.py" not in text
    line = next(line for line in text.splitlines() if "D: environment steps" in line)
    assert line.split()[-1] == "undetermined"


def test_a_target_above_anything_seen_is_refused_unless_asked_for(tmp_path, script, capsys):
    t = np.arange(1, 41) * 5000.0
    table = pd.concat([pd.DataFrame({"task": "A", "utd": u, "batch_size": 256.0, "learning_rate": 1e-3, "seed": s,
                                     "env_steps": t, "episode_return": 480 * (1 - 0.2 ** (t * u ** 0.8 / (3e4 + s)))})
                       for u in (1.0, 2.0, 4.0, 8.0) for s in range(3)])  # fmt: skip
    table.to_csv(tmp_path / "c.csv", index=False)
    assert script("fit", f"curves={tmp_path / 'c.csv'}", f"out={tmp_path / 'laws'}", "delta=1e9", "samples=40",
                  "thresholds=200,300,400", "report=false") == 0  # fmt: skip
    assert script("plan", f"laws={tmp_path / 'laws'}", "target=500") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "beyond 480, the best mean return seen of A" in error
    assert "extrapolate=true" in error
    assert script("plan", f"laws={tmp_path / 'laws'}", "target=500", "extrapolate=true") == 0
    assert "above anything seen (480)" in capsys.readouterr().out
    assert make_plan(PlanOptions(laws=str(tmp_path / "laws"), target=450))[0].target == 450


def test_a_known_ceiling_is_refused_too():
    from scaling.report.laws_json import SavedLaws

    laws = SavedLaws.__new__(SavedLaws)
    laws.json = {"range": {"highest": {"A": 1040.0, "B": 900.0}, "ceiling": 1000.0}}
    assert laws.most("A") == 1000 and laws.most("B") == 900
    assert laws.most(None) == 900  # the typical task's target is one that all tasks reach


def test_a_task_that_crosses_no_threshold_has_no_data_and_no_plan(tmp_path, script):
    t = np.arange(1, 41) * 5000.0
    rows = [pd.DataFrame({"task": task, "utd": u, "batch_size": 256.0, "learning_rate": 1e-3, "seed": s, "env_steps": t,
                          "episode_return": top * (1 - 0.2 ** (t * u**0.8 / (3e4 + s)))})
            for task, top in (("A", 900), ("B", 300)) for u in (1.0, 2.0, 4.0) for s in range(2)]  # fmt: skip
    pd.concat(rows).to_csv(tmp_path / "c.csv", index=False)
    (tmp_path / "scales.csv").write_text("task,max_return\nA,1000\nB,1000\n")
    assert script("fit", f"curves={tmp_path / 'c.csv'}", f"out={tmp_path / 'laws'}", "delta=1e9", "samples=0",
                  f"scales={tmp_path / 'scales.csv'}", "thresholds=400,600,800", "report=false") == 0  # fmt: skip
    with pytest.raises(InputError, match="crosses none of the thresholds"):
        make_plan(PlanOptions(laws=str(tmp_path / "laws"), target=600, task="B", extrapolate=True))
