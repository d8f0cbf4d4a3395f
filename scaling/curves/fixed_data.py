"""Runs that learned from a fixed dataset: what their curve is, and that they are not mixed with others.

Such a run has one env_steps, the size of its dataset, and one ratio, updates per transition of it: passes over the data
are utd x batch size. So it is one point, and a curve goes over the runs of one seed, one ratio and growing datasets:
where it crosses a return is the data that so many passes need.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from scaling.errors import InputError

RATIO = ("algo.utd", "algo.critic_updates_per_step")  # a resume may add passes
DERIVED = ("num_envs", "passes")  # from the dataset's size and the ratio; and algo.replay_size
NOTE = ("{} runs learned from a fixed dataset: env_steps is its size, utd updates per transition of it (passes are utd"
        " x batch size), and a curve goes over datasets of several sizes")  # fmt: skip


def one_point(curve: pd.DataFrame, status: str | None, changed: list[str]) -> pd.DataFrame:
    """The last evaluation of a finished run. Raises ValueError where the run is no point of a law."""
    others = [text for text in changed if not text.startswith(tuple(f"{key} " for key in RATIO))]
    if others:
        raise ValueError(f"it learned from a fixed dataset and was resumed with {', '.join(others[:4])}")
    if status != "completed":
        raise ValueError(f"it learned from a fixed dataset and has not done its passes (status: {status})")
    return curve.iloc[-1:]


def drop_derived(config: dict[str, Any]) -> None:
    """What a dataset's size has set in a configuration is no setting in which runs differ."""
    for key in DERIVED:
        config.pop(key, None)
    if isinstance(config.get("algo"), dict):
        for key in ("replay_size", "critic_updates_per_step"):
            config["algo"].pop(key, None)


def demand_one_dataset(table: pd.DataFrame, source: str) -> None:
    """Raise InputError where runs on fixed datasets would be pooled with others, or with those on another dataset."""
    if "data" not in table:
        return
    sets = [column for column in ("set", "task") if column in table]
    for _, runs in table.groupby(sets, dropna=False) if sets else ((None, table),):
        names = sorted(runs["data"].dropna().unique())
        of_data = runs["data"].notna()
        if names and (len(names) > 1 or not of_data.all()):
            others = "others from environments" if len(names) == 1 else f"others from {', '.join(names[1:3])}"
            raise InputError(
                f"{source}: some runs learned from the fixed dataset {names[0]}, {others}; one law is not for both:"
                f" choose with where=\"data == '{names[0]}'\" or where=data.isna(), or set=data tells them apart"
            )
