"""Users' commands from end to end, and every kind of bad input: one line and exit code 2, or a flagged result."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling.report.laws_json import SavedLaws

ROOT = Path(__file__).resolve().parents[3]


def script(name: str, *words: str) -> int:
    """Run scripts/<name>.py in this process; returns its exit status."""
    from scaling.cli import main

    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return main(module.Options, f"scripts/{name}.py", module.__doc__, module.run, words)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A synthetic sweep and second stage, through scripts/fit.py with its report."""
    from scaling.study.synthetic import LOW, Truth, data_runs, sweep

    folder, rng = tmp_path_factory.mktemp("fit"), np.random.default_rng(0)
    truth = Truth(tasks={"A": (1e5, 410.0, 2e-4), "B": (3e5, 360.0, 1e-3)})
    runs = [sweep(truth, LOW, rng, seeds=4, points=100), data_runs(truth, LOW, rng, seeds=4, points=100)]
    pd.concat(runs).to_csv(folder / "curves.csv.gz", index=False)
    (folder / "scales.csv").write_text("task,max_return\nA,1000\nB,1000\n")
    status = script("fit", f"curves={folder / 'curves.csv.gz'}", f"scales={folder / 'scales.csv'}", "delta=4e9",
                    "hparams_from=sweep", "data_from=data", "thresholds=500,600,700,800", "model_size=1.5e5",
                    "samples=200", f"out={folder / 'out'}")  # fmt: skip
    assert status == 0
    return folder / "out"


def test_laws_json_holds_the_documented_numbers_with_intervals(fitted):
    laws = json.loads((fitted / "laws.json").read_text())
    assert laws["batch_size"]["exponent"] == pytest.approx(0.45, abs=0.2)
    low, high = laws["learning_rate"]["exponent_interval"]
    assert low < 0.30 < high
    assert {"batch_size", "learning_rate", "data", "frontier"} <= set(laws["published"])
    assert "exponent" in laws["published"]["batch_size"]
    assert [d["threshold"] for d in laws["data"]] == [500, 600, 700, 800]
    for key in ("d_min", "alpha", "beta"):
        assert {key, f"{key}_interval"} <= set(laws["data"][0])
    assert {"utd", "threshold", "predicted", "predicted_interval", "observed", "relative_error"} <= set(
        laws["held_out"][0]
    )
    assert np.mean([abs(row["relative_error"]) for row in laws["held_out"]]) < 0.2


def test_report_is_self_contained_and_figures_come_as_png_and_pdf(fitted):
    page = (fitted / "report.html").read_text()
    words = re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)  # in a picture's bytes it may stand by chance
    assert "http" not in words.replace("http-equiv", "")
    assert page.count("data:image/png;base64,") >= 6
    for name in ("curves", "hyperparameters", "data_law", "frontier", "delta", "held_out"):
        for kind in ("png", "pdf"):
            assert (fitted / "figures" / f"{name}.{kind}").stat().st_size > 1000
    assert (fitted / "tables" / "data_points.csv").exists()


def test_plan_prints_a_command_within_80_columns_and_its_limits_hold(fitted, capsys):
    assert script("plan", f"laws={fitted}", "target=750", "task=A", "max_env_steps=300000") == 0
    text = capsys.readouterr().out
    assert "python scripts/train.py task=A algo.utd=" in text
    assert max(map(len, text.splitlines())) <= 80
    from scaling.report.plan import Options, make_plan

    plan = make_plan(Options(laws=str(fitted), target=750, task="A"))[0]
    # truth at sigma*: D = 1e5 (0.6 + (1.5/sigma)^0.8) ln(4)/ln(5), as 1000 (1 - 0.2^(t/tau)) = 750 at that t
    true = 1e5 * (0.6 + (1.5 / plan.utd[0]) ** 0.8) * np.log(0.25) / np.log(0.2)
    assert plan.env_steps[0] == pytest.approx(true, rel=0.1)
    fewer = make_plan(Options(laws=str(fitted), target=750, task="A", max_env_steps=0.95 * true))[0]
    assert fewer.env_steps[0] <= 0.95 * true
    assert fewer.utd[0] > plan.utd[0]
    assert fewer.budget[0] >= plan.budget[0]


@pytest.mark.parametrize("utd", [0.3, 5.0, 100.0])  # beyond the runs on either side too
def test_plan_at_a_given_ratio_predicts_what_the_laws_do_there(fitted, utd, capsys):
    from scaling.report.plan import Options, make_plan

    plan, laws, _ = make_plan(Options(laws=str(fitted), target=700, task="A", utd=utd))
    assert plan.utd == pytest.approx([utd])
    np.testing.assert_allclose(plan.env_steps, laws.steps(np.array([utd]), 700, "A")[:, 0], rtol=1e-9)
    np.testing.assert_allclose(plan.batch_size, laws.best("batch_size", np.array([utd]), "A")[:, 0], rtol=1e-9)
    assert any("outside the ratios" in line for line in plan.warnings) == (utd == 100.0 or utd == 0.3)
    assert not any("cheapest" in line for line in plan.warnings)
    assert script("plan", f"laws={fitted}", "target=700", "task=A", f"utd={utd}") == 0
    assert f"algo.utd={utd:g} " in capsys.readouterr().out


@pytest.mark.parametrize("word", ["utd=-1.0", "delta=-1.0", "max_env_steps=0.0", "max_compute=-1.0", "seeds=0"])
def test_plan_refuses_numbers_that_are_none_of_their_kind(fitted, capsys, word):
    assert script("plan", f"laws={fitted}", "target=700", word) == 2
    assert f"{word}: use a finite number above 0" in capsys.readouterr().err


def test_plan_for_a_budget_buys_what_the_target_costs(fitted):
    from scaling.report.plan import Options, make_plan

    forward = make_plan(Options(laws=str(fitted), target=650))[0]
    back = make_plan(Options(laws=str(fitted), budget=f"{forward.budget[0]:.6e}flops"))[0]
    assert back.target == pytest.approx(650, rel=1e-3)


def test_plan_proposes_runs_that_narrow_the_prediction_and_names_what_is_extrapolated(fitted):
    from scaling.report.plan import Options, make_plan

    plan = make_plan(Options(laws=str(fitted), target=900))[0]
    assert any("outside the returns fitted" in line for line in plan.warnings)
    for run in plan.next_runs:
        assert run["sd_after"] < run["sd_before"]


def test_saved_laws_predict_as_the_fit_did(fitted):
    laws = SavedLaws(fitted)
    table = pd.read_csv(fitted / "tables" / "held_out.csv")
    assert len(table)
    d = laws.json["data"][-1]
    typical = laws.steps(np.array([4.0]), 800.0, None)[0, 0]
    assert typical == pytest.approx(d["d_min"] + (d["beta"] / 4.0) ** d["alpha"], rel=1e-6)


# --- bad input -------------------------------------------------------------------------------------------------------
def error_of(capsys, *words: str) -> str:
    """The one line that a mistake costs."""
    assert script("fit", *words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda t: t.drop(columns="episode_return"), "'episode_return' is missing"),
        (lambda t: t.rename(columns={"utd": "UTD"}), "'utd' is missing"),
        (lambda t: t.assign(episode_return=t["episode_return"].mask(t.index == 7)), "1 rows have no episode_return"),
        (lambda t: t.assign(env_steps=t["env_steps"].mask(t.index == 7, -5)), "negative in row 7"),
        (lambda t: t.assign(utd=0.0), "utd must be positive"),
        (lambda t: pd.concat([t, t.head(3).assign(episode_return=1.0)], ignore_index=True), "repeats"),
        (lambda t: t.assign(utd=t["utd"].astype(object).mask(t.index == 3, "x")), "'x' in row 3"),
        (lambda t: t.assign(task=np.where(t["seed"] == 0, "X", "Y")), "no scales"),
        (lambda t: t.head(0), "no rows"),
    ],
)
def test_bad_tables_cost_one_line_with_the_remedy(small_curves, tmp_path, capsys, break_it, says):
    break_it(small_curves.reset_index(drop=True)).to_csv(tmp_path / "bad.csv", index=False)
    line = error_of(capsys, f"curves={tmp_path / 'bad.csv'}", f"out={tmp_path / 'out'}", "samples=0")
    assert says in line


def test_bad_keys_and_files_cost_one_line(tmp_path, capsys):
    assert "did you mean 'thresholds'" in error_of(capsys, "threshold=3")
    assert "no such file" in error_of(capsys, f"curves={tmp_path / 'absent.csv'}")
    assert "either curves=" in error_of(capsys)
    assert "cannot be read" in error_of(capsys, "samples=many")
    for word in ("delta=nan", "thresholds=500,nan", "hparams_threshold=nan"):
        assert "NaN is no number" in error_of(capsys, "curves=x.csv", word)
    for word in ("delta=-1.0", "model_size=0.0", "delta=inf"):
        assert f"{word}: use a finite number above 0" in error_of(capsys, "curves=x.csv", word)
    assert "seed=-1: use 0 or more" in error_of(capsys, "curves=x.csv", "seed=-1")
    (tmp_path / "laws").mkdir()
    assert script("plan", f"laws={tmp_path / 'laws'}", "target=1") == 2


def test_no_run_reaching_any_threshold_is_an_error_that_names_the_highest_return(small_curves, tmp_path, capsys):
    small_curves.to_csv(tmp_path / "c.csv", index=False)
    line = error_of(capsys, f"curves={tmp_path / 'c.csv'}", "thresholds=2000,3000", "samples=0")
    assert "no run reaches any threshold" in line
    assert "highest mean return is 1014" in line


@pytest.mark.parametrize(("keep", "note"), [("utd == 2", "one update ratio only"), ("seed == 0", "one seed per cell")])
def test_one_ratio_or_one_seed_is_flagged_not_hidden(small_curves, tmp_path, capsys, keep, note):
    small_curves.to_csv(tmp_path / "c.csv", index=False)
    out = tmp_path / "out"
    words = [f"curves={tmp_path / 'c.csv'}", f"where={keep}", f"out={out}", "samples=50", "thresholds=600,800"]
    assert script("fit", *words) == 0
    laws = json.loads((out / "laws.json").read_text())
    assert any(note in line for line in laws["notes"])
    if "utd" in keep:
        assert laws["data"] == []
        assert script("plan", f"laws={out}", "target=700") == 2
    assert note in capsys.readouterr().out.replace("\n    ", " ")


def test_exact_duplicates_are_dropped_and_said(small_curves):
    from scaling.curves.table import check

    curves = check(pd.concat([small_curves, small_curves.head(4)], ignore_index=True))
    assert len(curves.table) == len(small_curves)
    assert "4 rows were exact duplicates" in curves.notes[0]


def test_lower_is_better_mirrors_higher_is_better(small_curves, tmp_path):
    from scaling.report.fit import Options, fit

    small_curves.to_csv(tmp_path / "up.csv", index=False)
    small_curves.assign(episode_return=-small_curves["episode_return"]).to_parquet(tmp_path / "down.parquet")
    up = fit(Options(curves=str(tmp_path / "up.csv"), thresholds=[600, 800], samples=20))
    down = fit(Options(curves=str(tmp_path / "down.parquet"), thresholds=[-600, -800], samples=20, direction="lower"))
    assert down.law.alpha_ == pytest.approx(up.law.alpha_)


def write_run(folder: Path, utd: float, batch: int, seed: int, rng: np.random.Generator) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(
        f"task: {{name: Cartpole}}\nnum_envs: 256\nseed: {seed}\nruntime: sync\n"
        f"algo: {{utd: {utd}, batch_size: {batch}, critic_lr: 0.0005}}\n"
    )
    tau = 2e5 * (0.6 + (1 / 256 / utd) ** 0.8) * np.exp(0.05 * rng.normal())
    lines = []
    for k in range(1, 41):
        steps = k * 30000
        updates = int(steps * utd)
        lines.append({"env_steps": steps, "wall_time_s": steps * 2e-5 + updates * (1e-3 + 2e-6 * batch),
                      "critic_updates": updates, "wait_actor": 0.0})  # fmt: skip
        if k % 2:
            lines[-1]["eval_return"] = 500 * (1 - 0.2 ** (steps / tau))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"env_steps": 99')
    summary = {"status": "completed", "utd": utd, "critic_flops_per_update": 1e6 * batch, "critic_parameters": 1e5}
    (folder / "summary.json").write_text(json.dumps(summary))


def test_a_sweep_folder_gives_laws_costs_in_seconds_and_survives_a_corrupt_run(tmp_path):
    from scaling.report.fit import Options, fit

    rng, root = np.random.default_rng(0), tmp_path / "sweep"
    for utd in (1 / 512, 1 / 256, 1 / 128, 1 / 64):
        for batch in (256, 512, 1024):
            for seed in range(2):
                write_run(root / f"{1 / utd:.0f}-{batch}-{seed}", utd, batch, seed, rng)
    write_run(root / "broken", 1 / 64, 256, 9, rng)
    (root / "broken" / "config.yaml").write_text("task: {name")
    (root / "started").mkdir()
    (root / "started" / "config.yaml").write_text("task: {name: Cartpole}")
    result = fit(Options(curves=str(root), samples=50))
    assert any("run broken: left out" in note for note in result.notes)
    assert any("run started: left out" in note for note in result.notes)
    cost = result.cost
    assert cost.seconds_per_transition == pytest.approx(2e-5, rel=0.01)
    assert cost.seconds_per_update == pytest.approx(1e-3, rel=0.01)
    assert cost.seconds_per_update_sample == pytest.approx(2e-6, rel=0.01)
    assert cost.flops_per_sample == pytest.approx(1e6)
    assert set(result.frontiers) == {"flops", "seconds"}
    # delta: the FLOPs of an update at the middle batch, by how many updates fit into one transition's time
    batch = float(result.batch_samples(np.array([np.sqrt(1 / 512 / 64)]))[0, 0])
    assert cost.delta == pytest.approx(2e-5 / (1e-3 + 2e-6 * batch) * 1e6 * batch, rel=0.01)


def test_a_plan_is_never_shorter_than_the_warm_up_of_the_runs(tmp_path):
    from scaling.errors import InputError
    from scaling.report.plan import Options, make_plan

    rng, root = np.random.default_rng(0), tmp_path / "sweep"
    for utd in (1 / 512, 1 / 256, 1 / 128, 1 / 64):
        for seed in range(2):
            write_run(root / f"{1 / utd:.0f}-{seed}", utd, 256, seed, rng)
            path = root / f"{1 / utd:.0f}-{seed}" / "config.yaml"
            path.write_text(path.read_text().replace("{utd", "{warmup_steps: 32, utd"))
    out = tmp_path / "laws"
    assert script("fit", f"curves={root}", f"out={out}", "samples=40", "thresholds=250,350,400", "report=false") == 0
    assert json.loads((out / "laws.json").read_text())["warmup"] == 32 * 256
    with pytest.raises(InputError, match=r"fewer than the 8.19e\+03 before a run's first update"):
        make_plan(Options(laws=str(out), target=-300, utd=1 / 64))
    assert make_plan(Options(laws=str(out), target=350))[0].env_steps[0] > 32 * 256


def test_a_table_of_crossings_with_model_size_gives_a_plan_with_model_size(tmp_path, capsys):
    rows = [(u, n, 2e5 * (1 + (1.2 / u) ** 0.9 + (6e5 / n) ** 0.7), 256)
            for u in (1, 2, 4, 8, 16) for n in (2e5, 1e6, 5e6, 2.5e7)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["utd", "model_size", "env_steps", "batch_size"])
    table.to_csv(tmp_path / "crossings.csv", index=False)
    out = tmp_path / "out"
    assert script("fit", f"crossings={tmp_path / 'crossings.csv'}", f"out={out}", "delta=1e11") == 0
    assert script("plan", f"laws={out}", "target=0") == 0
    text = capsys.readouterr().out
    size = float(text.split("critic parameters")[1].split()[0])
    utd = float(text.split("algo.utd=")[1].split()[0])
    grid_u, grid_n = np.meshgrid(np.geomspace(0.5, 32, 400), np.geomspace(2e5, 2.5e7, 400))
    steps = 1 + (1.2 / grid_u) ** 0.9 + (6e5 / grid_n) ** 0.7
    best = np.argmin(steps * (10 * grid_n * 256 * grid_u + 1e11))
    assert utd == pytest.approx(grid_u.ravel()[best], rel=0.15)
    assert size == pytest.approx(grid_n.ravel()[best], rel=0.25)
