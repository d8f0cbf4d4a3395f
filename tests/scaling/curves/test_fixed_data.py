"""Runs on fixed datasets: their curve goes over datasets, and no law is made of them and of others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scaling.curves.read import read_curves
from scaling.errors import InputError


def run_directory(folder: Path, size: int, passes: float, seed: int = 0, status: str = "completed",
                  data: str | None = "/d/pole-v0", batch: int = 64, resumed: dict | None = None) -> None:  # fmt: skip
    """As scripts/train.py leaves one: two evaluations, all at the dataset's size."""
    folder.mkdir(parents=True)
    algo = {"name": "pql", "utd": passes / batch, "critic_updates_per_step": passes / batch * size,
            "batch_size": batch, "critic_lr": 1e-3, "replay_size": size}  # fmt: skip
    config = {"task": {"name": "Cartpole"}, "algo": algo, "num_envs": size, "seed": seed, "max_env_steps": size,
              "data": data, "passes": passes}  # fmt: skip
    if data is None:
        config.update(num_envs=64, passes=None)
        algo.update(replay_size=1000, critic_updates_per_step=passes)
    (folder / "config.yaml").write_text(json.dumps(config))
    (folder / "settings.jsonl").write_text("".join(
        json.dumps({"env_steps": at, **config, **more}) + "\n" for at, more in ((0, {}), (size, resumed or {}))))
    lines = [{"env_steps": size, "critic_updates": u, "eval_return": u + size} for u in (50, 100)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "summary.json").write_text(json.dumps({"status": status, "critic_parameters": 9000}))


@pytest.fixture
def grid(tmp_path):
    for size in (100, 200, 400):
        for passes in (8.0, 16.0):
            for seed in (0, 1):
                run_directory(tmp_path / f"{size}-{passes}-{seed}", size, passes, seed)
    return tmp_path


def test_a_curve_goes_over_datasets_at_one_number_of_passes(grid):
    curves = read_curves(grid)
    table = curves.table
    assert len(table) == 12 and sorted(table["utd"].unique()) == [8 / 64, 16 / 64]
    assert (table["episode_return"] == table["env_steps"] + 100).all()  # the last evaluation of each
    assert {name: len(curve) for name, curve in table.groupby(["utd", "unit"])} == dict.fromkeys(
        [(utd, f"/d/pole-v0 seed {seed}") for utd in (8 / 64, 16 / 64) for seed in (0, 1)], 3)
    assert sum("12 runs learned from a fixed dataset" in note for note in curves.notes) == 1
    assert not any("in no order" in note for note in curves.notes)
    assert not any("changes along" in note for note in curves.notes)  # nothing that follows from the size is a key


def test_runs_with_and_without_a_dataset_are_not_mixed(grid):
    for seed in (0, 1):
        run_directory(grid / f"online-{seed}", 300, 4.0, seed, data=None)
    with pytest.raises(InputError, match=r"from the fixed dataset /d/pole-v0, others from environments.*set=data"):
        read_curves(grid)
    assert len(read_curves(grid, where="data.notna()").table) == 12
    assert len(read_curves(grid, where="data.isna()").table) == 2
    assert read_curves(grid, sets=["data"]).table["set"].nunique() == 2


def test_runs_on_different_datasets_are_no_seeds_of_one_another(grid):
    run_directory(grid / "other", 100, 8.0, 2, data="/d/other-v0")
    with pytest.raises(InputError, match="others from /d/pole-v0"):
        read_curves(grid)


def test_what_is_no_point_of_a_law_is_left_out_and_named(grid):
    run_directory(grid / "short", 800, 8.0, status="interrupted")
    run_directory(grid / "longer", 800, 16.0, resumed={"algo": {"utd": 16 / 64, "critic_lr": 1e-3}, "passes": 16.0})
    run_directory(grid / "other", 800, 8.0, 1, resumed={"algo": {"critic_lr": 5e-3}})
    curves = read_curves(grid)
    assert len(curves.table) == 13  # the run to which only passes were added counts with all of them
    assert any("short: left out" in n and "has not done its passes" in n for n in curves.notes)
    assert any("other: left out, " in n and "algo.critic_lr 0.001 -> 0.005" in n for n in curves.notes)
