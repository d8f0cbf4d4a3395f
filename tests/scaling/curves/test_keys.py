"""A run is the unit; what runs differ in, and the laws do not know, is named and chosen, never pooled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling.curves.crossings import Crossings
from scaling.curves.keys import check_keys, differing, keys_of
from scaling.curves.read import read_curves
from scaling.errors import InputError


def run_directory(folder: Path, seed: int = 0, utd: float = 0.1, rate: float = 1e-3, task: str = "Cartpole",
                  steps=range(1000, 11000, 1000), gain: float = 1.0, **keys) -> None:  # fmt: skip
    folder.mkdir(parents=True)
    algo = {"name": "pql", "utd": utd, "critic_updates_per_step": utd * 64, "batch_size": 128, "critic_lr": rate,
            "actor_lr": rate, "gamma": 0.99, "hidden": [64, 64]}  # fmt: skip
    config = {"task": {"name": task}, "algo": algo, "num_envs": 64, "seed": seed, "max_env_steps": 10000,
              "run_dir": str(folder)}  # fmt: skip
    for key, value in keys.items():
        (algo if key in algo else config)[key] = value
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    lines = [{"env_steps": s, "eval_return": gain * s / 10 + seed} for s in steps]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "summary.json").write_text(json.dumps({"status": "completed", "critic_parameters": 9000}))


@pytest.mark.parametrize(("key", "values"), [("num_envs", (64, 128)), ("gamma", (0.98, 0.99)), ("hidden", ([8], [64])),
                                             ("name", ("pql", "pql_d"))])  # fmt: skip
def test_runs_that_differ_in_an_unknown_key_are_no_seeds_of_one_another(tmp_path, key, values):
    for seed in range(2):
        for value in values:
            run_directory(tmp_path / f"{value}-{seed}", seed, **{key: value})
    name = "algo" if key == "name" else key
    with pytest.raises(InputError, match=rf"differ in {name} \(.*where=.*set={name} data_from="):
        read_curves(tmp_path)
    first = f"{name} == {str(values[0]).replace(' ', '')!r}" if isinstance(values[0], (str, list)) else \
        f"{name} == {values[0]}"
    chosen = read_curves(tmp_path, where=first).table
    assert chosen["run"].nunique() == 2
    apart = read_curves(tmp_path, sets=[name]).table
    assert apart["set"].nunique() == 2 and set(apart.groupby("set")["run"].nunique()) == {2}


def test_keys_that_go_with_an_axis_are_no_reason_to_choose(tmp_path):
    """actor_lr equals critic_lr, max_env_steps follows the ratio, gamma the task; replay_size is confounded: named."""
    for utd in (0.1, 0.2):
        for rate in (1e-3, 3e-3):
            run_directory(tmp_path / f"{utd}-{rate}", utd=utd, rate=rate, max_env_steps=1000 / utd)
            run_directory(tmp_path / f"Ant-{utd}-{rate}", utd=utd, rate=rate, task="Ant", gamma=0.98)
    assert not any("changes along" in note for note in read_curves(tmp_path).notes)
    run_directory(tmp_path / "more", utd=0.4, num_envs=128)
    notes = read_curves(tmp_path).notes
    assert sum("num_envs (128, 64) changes along with the ratio" in note for note in notes) == 1


def test_a_run_is_the_unit_even_where_two_carry_one_seed(tmp_path):
    for name, gain in (("a", 1.0), ("b", 1.2), ("c", 1.4)):
        run_directory(tmp_path / name, seed=0, gain=gain, steps=range(1000, 11000, 1000 if name == "a" else 950))
    curves = read_curves(tmp_path)
    found = Crossings(["task", "utd"], samples=20).fit(curves.table, [500.0])
    assert found.cells_["seeds"].tolist() == [3]
    assert found.steps_[0, 0, 0] == pytest.approx(5000 / 1.2, rel=0.05)  # merged by seed, three curves were one zigzag
    assert not any("one seed per cell" in note for note in curves.notes)


def test_linked_run_directories_are_read_once(tmp_path):
    run_directory(tmp_path / "elsewhere" / "r0", 0)
    run_directory(tmp_path / "sweep" / "r1", 1)
    (tmp_path / "sweep" / "runs").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "sweep" / "again").symlink_to(tmp_path / "sweep", target_is_directory=True)
    assert read_curves(tmp_path / "sweep").table["run"].nunique() == 2


def test_a_table_is_asked_the_same_question():
    rows = [(u, e, s, t, t * u + e + s) for u in (1, 2) for e in (64, 128) for s in (0, 1) for t in range(1, 9)]
    table = pd.DataFrame(rows, columns=["utd", "num_envs", "seed", "env_steps", "episode_return"]).assign(task="A")
    table["critic_loss"] = np.random.default_rng(0).random(len(table))  # of a row, not of a run
    assert keys_of(table) == ["num_envs"]
    with pytest.raises(InputError, match='where="num_envs == 64"'):
        check_keys(table, "c.csv")
    assert check_keys(table[table["num_envs"] == 64], "c.csv") == []


def test_only_what_matters_to_learning_counts_as_a_difference():
    a = {"run_dir": "x", "seed": 1, "video": True, "threads": {"actor": 1}, "eval_interval": 5, "algo": {"tau": 0.1}}
    b = {"run_dir": "y", "seed": 2, "video": False, "threads": {"actor": 2}, "eval_interval": 9, "algo": {"tau": 0.2}}
    assert differing([a, b]) == ([{"tau": 0.1}, {"tau": 0.2}], {"tau": "algo.tau"})


def test_set_without_a_choice_is_asked_for_one(tmp_path, script, capsys):
    for seed in range(2):
        for envs in (64, 128):
            run_directory(tmp_path / "runs" / f"{envs}-{seed}", seed, num_envs=envs)
    words = [f"curves={tmp_path / 'runs'}", f"out={tmp_path / 'out'}", "samples=0", "report=false", "set=num_envs"]
    assert script("fit", *words) == 2
    assert "choose one with data_from=128" in capsys.readouterr().err
    assert script("fit", *words, "data_from=64") == 0


def test_a_resumed_run_whose_log_goes_back_counts_its_later_lines(tmp_path):
    run_directory(tmp_path / "r", steps=[1000, 2000, 3000, 4000])
    log = tmp_path / "r" / "metrics.jsonl"
    lines = [json.dumps({"env_steps": s, "eval_return": -s}) + "\n" for s in (2500, 3500)]
    log.write_text(log.read_text() + "".join(lines))
    table = read_curves(tmp_path).table
    assert table["env_steps"].tolist() == [1000, 2000, 2500, 3500]
    assert table["episode_return"].tolist() == [100, 200, -2500, -3500]


def test_copies_of_one_run_are_said_to_be_no_seeds(tmp_path):
    for seed in range(3):
        run_directory(tmp_path / f"r{seed}", seed)
    assert not any("copies of one run" in note for note in read_curves(tmp_path).notes)
    run_directory(tmp_path / "copy", 1)
    log = tmp_path / "copy" / "metrics.jsonl"
    log.write_text("".join(f"{line}\n" for line in log.read_text().splitlines()[:5]) + "".join(
        json.dumps({"env_steps": s, "eval_return": s / 9}) + "\n" for s in range(6000, 11000, 1000)))
    config = tmp_path / "copy" / "config.yaml"
    config.write_text(config.read_text().replace('"seed": 1', '"seed": 7'))
    assert any("copy, r1: their first 3 returns are equal" in note for note in read_curves(tmp_path).notes)


def test_a_key_named_as_a_hyperparameter_is_an_axis_and_keeps_its_full_name(tmp_path):
    for seed in range(2):
        for gamma in (0.97, 0.98, 0.99):
            run_directory(tmp_path / f"{gamma}-{seed}", seed, gamma=gamma, hidden=[int(1000 * gamma)] * 2)
    curves = read_curves(tmp_path, axes=["gamma", "hidden"])
    assert curves.facts["keys"] == {"gamma": "algo.gamma", "hidden": "algo.hidden"}
    assert curves.facts["repeats"] == {"hidden": 2} and set(curves.table["hidden"]) == {970, 980, 990}
    assert read_curves(tmp_path, axes=["gamma"]).table["gamma"].nunique() == 3  # hidden follows gamma
