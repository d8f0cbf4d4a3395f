"""A chart's CSV from W&B: one column per run, `run - metric`, and its bounds `__MIN` and `__MAX`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from scaling.curves.readers.base import Ask, Files, Given, Log, Reader, Source
from scaling.errors import InputError

BOUNDS = ("__MIN", "__MAX")
ENV_STEPS = {"global_step", "env_steps", "env_step", "num_timesteps", "total_timesteps", "timesteps", "frames"}


@lru_cache(maxsize=8)
def read_chart(path: Path) -> pd.DataFrame:
    """The whole chart: every run of it asks for it in turn."""
    try:
        return pd.read_csv(path)
    except ValueError as error:  # pandas' errors are such
        raise InputError(f"{path.name} cannot be read as a CSV ({error})") from None


class WandB(Reader):
    """Its x axis "Step" counts calls of wandb.log; only an x that was logged can count env steps."""

    library = "W&B"

    def find(self, files: Files) -> list[Source]:
        found = []
        for path in files.named("*.csv"):
            if BOUNDS[0] in files.first_line(path):
                try:
                    columns = pd.read_csv(path, nrows=0).columns
                except ValueError:  # pandas' errors are such
                    continue
                runs = [c.partition(" - ")[0] for c in columns if f"{c}{BOUNDS[0]}" in columns and " - " in c]
                found += [Source(path, run) for run in dict.fromkeys(runs)]
        return found

    def read(self, files: Files, source: Source, given: Given) -> Log:
        table = read_chart(source.path)
        axis, notes = table.columns[0], []
        metrics = [c[len(source.part) + 3 :] for c in table if c.startswith(f"{source.part} - ")]
        metrics = [metric for metric in metrics if not metric.endswith(BOUNDS)]
        metric = given.get("return_tag", metrics[0] if len(metrics) == 1 else None)
        if metric is None:
            raise Ask("return_tag", f"one of {', '.join(metrics[:8])}")
        if metric not in metrics:
            raise InputError(f"no metric {metric!r} in it; there are {', '.join(metrics[:8])}")
        if axis in ENV_STEPS:
            factor = float(given.get("env_steps_per_step", 1.0))
        else:
            factor = given.number(
                "env_steps_per_step",
                f"its x axis {axis!r} is no count of env steps; export the chart over a logged global_step",
            )
        column = f"{source.part} - {metric}"
        try:
            rows = table[[axis, column, *(f"{column}{bound}" for bound in BOUNDS)]].dropna().astype(float).to_numpy()
        except (KeyError, ValueError) as error:
            raise InputError(f"its columns are no numbers ({error})") from None
        if not len(rows):
            raise InputError("it has no points")
        if not np.array_equal(rows[:, 2], rows[:, 3]):
            notes.append("MIN and MAX differ: points are averages over steps, or over runs that the chart grouped")
        return Log(rows[:, 0] * factor, rows[:, 1], notes=notes)
