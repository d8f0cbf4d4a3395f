"""One run's rows, as they were written, become one curve; what cannot be told is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scaling.curves.read import read_curves
from scaling.curves.sessions import one_run
from scaling.curves.table import check
from scaling.errors import InputError


def table(steps: list[float], returns: list[float] | None = None, **columns) -> pd.DataFrame:
    frame = pd.DataFrame({"task": "A", "utd": 1.0, "seed": 0, "env_steps": steps,
                          "episode_return": np.arange(len(steps)) if returns is None else returns})  # fmt: skip
    return frame.assign(batch_size=64, learning_rate=1e-3, **columns)


def curve(checked) -> list[tuple[float, float]]:
    return list(zip(checked.table["env_steps"], checked.table["episode_return"]))


def test_later_part_of_a_resumed_run_holds_from_its_first_step_on():
    found = check(table([10, 20, 30, 40, 50, 35, 45, 55]))
    assert curve(found) == [(10, 0), (20, 1), (30, 2), (35, 5), (45, 6), (55, 7)]
    assert "env_steps go back in 1 runs" in found.notes[0]
    assert "(2 rows)" in found.notes[0]


def test_run_resumed_twice_keeps_what_came_last():
    rows, steps = one_run(np.array([10.0, 20, 30, 40, 25, 35, 45, 55, 30, 40, 50]), None)
    assert steps.tolist() == [10, 20, 25, 30, 40, 50]
    assert rows.tolist() == [0, 1, 4, 8, 9, 10]


def test_part_that_ends_before_the_one_it_replaces_ends_the_curve():
    _, steps = one_run(np.array([10.0, 20, 30, 40, 50, 60, 70, 80, 90, 45, 55]), None)
    assert steps.tolist() == [10, 20, 30, 40, 45, 55]


def test_part_that_begins_near_the_start_is_asked_about_and_done_as_told():
    steps = [10, 20, 30, 40, 50, 12, 22, 32]
    with pytest.raises(InputError, match="go back from 50 to 12, near its start at 10; give each run its own seed"):
        check(table(steps))
    assert curve(check(table(steps), resumed="replace")) == [(10, 0), (12, 5), (22, 6), (32, 7)]
    added = check(table(steps), resumed="add").table["env_steps"].tolist()
    assert added == [10, 20, 30, 40, 50, 62, 72, 82]


def test_first_start_of_a_run_that_came_to_nothing_is_replaced():
    assert one_run(np.array([10.0, 12, 10, *range(20, 200, 10)]), None)[1].tolist() == [10, *range(20, 200, 10)]


def test_rows_in_no_order_are_sorted_and_none_is_lost():
    shuffled = np.random.default_rng(0).permutation(np.arange(50.0))
    found = check(table(shuffled.tolist()))
    assert found.table["env_steps"].tolist() == list(range(50))
    assert "in no order" in found.notes[0]
    few = pd.concat([table([30, 10, 20]), table([20, 30, 10]).assign(seed=1), table([10, 30, 20]).assign(seed=2)])
    assert check(few).table["env_steps"].tolist() == [10, 20, 30] * 3
    assert one_run(np.array([40.0, 50, 60, 10, 20, 30]), None)[1].tolist() == [10, 20, 30, 40, 50, 60]  # blocks


def test_returns_at_one_step_are_averaged_and_said():
    found = check(table([10, 10, 20, 20, 20, 30], [1, 3, 2, 4, 9, 7]))
    assert curve(found) == [(10, 2), (20, 5), (30, 7)]
    assert "5 rows share a step" in found.notes[0]


def test_other_runs_of_the_table_are_left_as_they_are():
    first, second = table([10, 20, 30]), table([10, 20, 30, 40, 50, 35, 45, 55]).assign(seed=1)
    third = first.assign(seed=2, episode_return=[7, 8, 9])
    found = check(pd.concat([first, second, third]).sort_index(kind="stable")).table  # row by row of each in turn
    for seed, returns in ((0, [0, 1, 2]), (2, [7, 8, 9])):
        assert found.loc[found["seed"] == seed, "episode_return"].tolist() == returns
    assert found.loc[found["seed"] == 1, "env_steps"].tolist() == [10, 20, 30, 35, 45, 55]


def test_runs_of_two_folders_under_one_name_are_named():
    two = pd.concat([table([10, 20, 30]).assign(run="a"), table([10, 20, 30], [5, 6, 7]).assign(run="b")])
    with pytest.raises(InputError, match=r"repeats itself \(of a, b\)"):
        check(two)


@pytest.fixture(scope="module")
def faults() -> Path:
    folder = Path(__file__).resolve().parents[4] / "shared" / "inputs" / "faults"
    if not folder.is_dir():
        pytest.skip(f"no sample tables at {folder}")
    return folder


def test_table_of_restarted_scripts_is_refused_or_read_as_told(faults):
    with pytest.raises(InputError, match="go back from 49000 to 1500"):
        read_curves(faults / "steps_go_back.csv")
    added = read_curves(faults / "steps_go_back.csv", resumed="add").table
    for _, run in added.groupby(["utd", "seed"]):
        assert len(run) == 50
        assert (run["env_steps"].diff().dropna() > 0).all()


def test_table_of_two_episodes_at_a_step_is_averaged(faults):
    raw = pd.read_csv(faults / "two_episodes_at_one_step.csv")
    found = read_curves(faults / "two_episodes_at_one_step.csv").table
    assert len(found) == len(raw) / 2
    first = raw.iloc[:2]
    assert found["episode_return"].iloc[0] == pytest.approx(first["episode_return"].sum() / 2)


def test_rows_written_twice_count_once():
    once = table([10, 20, 30, 40])
    found = check(pd.concat([once, once.head(2)], ignore_index=True))
    assert curve(found) == curve(check(once))
    assert "2 rows were exact duplicates" in found.notes[0]
