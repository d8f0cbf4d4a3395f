"""Learning curves of any origin as one tidy, checked and normalised table (DESIGN, contract 7)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Sequence

import numpy as np
import pandas as pd

from scaling.curves.sessions import join_sessions
from scaling.errors import InputError, nearest

REQUIRED = ("task", "utd", "seed", "env_steps", "episode_return")
NUMERIC = ("utd", "batch_size", "learning_rate", "model_size", "agent_size", "env_steps", "episode_return",
           "wall_time_s")  # fmt: skip
CELL = ["set", "task", "utd", "batch_size", "learning_rate", "model_size"]
NORMAL_RETURN = 1000.0  # a task's maximal return after scaling


@dataclass
class Curves:
    """A checked table and what a reader of the results must know about how it came to be.

    table: columns CELL (absent ones filled: set "all", hyperparameters nan), seed, env_steps, episode_return and any
    optional ones. notes: one line each. windows: stretches of the runs for the cost model (see cost.measure), or None.
    """

    table: pd.DataFrame
    notes: list[str] = field(default_factory=list)
    windows: pd.DataFrame | None = None
    facts: dict = field(default_factory=dict)


def read_table(path: Path) -> pd.DataFrame:
    """CSV, gzipped CSV or Parquet, by the file's name."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give curves=<csv | csv.gz | parquet | sweep folder | logs>")
    try:
        if path.name.endswith((".parquet", ".pq")):
            return pd.read_parquet(path)
        if path.name.endswith((".csv", ".csv.gz", ".gz")):
            return pd.read_csv(path, compression="gzip" if path.name.endswith(".gz") else None)
    except Exception as error:  # a user's file may be broken in any way a parser can think of
        raise InputError(f"{path}: cannot be read as a table ({type(error).__name__}: {error})") from None
    raise InputError(f"{path}: unknown kind of file; use .csv, .csv.gz or .parquet")


def select(table: pd.DataFrame, where: str | None) -> pd.DataFrame:
    """Rows for which a pandas expression such as `task == 'Ant' and utd <= 4` holds."""
    if not where:
        return table
    try:
        kept = table.query(where)
    except Exception as error:
        raise InputError(
            f"where={where!r} is not a filter over the columns {', '.join(map(str, table.columns))}: {error}"
        ) from None
    if kept.empty:
        raise InputError(f"where={where!r} keeps none of {len(table)} rows; loosen it")
    return kept


def check(table: pd.DataFrame, source: str = "curves", resumed: str | None = None,
          axes: Sequence[str] = ()) -> Curves:  # fmt: skip
    """Validate and complete a curves table, each run's steps rising. resumed: what to do where they go back (sessions).

    axes: hyperparameters beyond CELL that the laws are to know.

    Raises InputError naming the rule, the row and the remedy.
    """
    for column in REQUIRED:
        if column not in table:
            hint = nearest(column, table.columns)
            raise InputError(f"{source}: column {column!r} is missing; {hint}; rename it or add it")
    if table.empty:
        raise InputError(f"{source}: the table has no rows; check the file or the filter")
    table, notes = table.copy(), []
    for column in NUMERIC:
        if column in table and not pd.api.types.is_numeric_dtype(table[column]):
            as_number = pd.to_numeric(table[column], errors="coerce")
            bad = table.loc[as_number.isna() & table[column].notna(), column]
            if len(bad):
                row, value = bad.index[0], bad.iloc[0]
                raise InputError(f"{source}: column {column!r} holds {value!r} in row {row}, not a number")
            table[column] = as_number
    for column in REQUIRED:
        missing = table[column].isna()
        if missing.any():
            raise InputError(
                f"{source}: {int(missing.sum())} rows have no {column} (first: row {table.index[missing][0]});"
                " drop them, or end the run's curve where it diverged"
            )
    for column in ("env_steps", "episode_return"):
        if not np.isfinite(table[column].to_numpy(dtype=float)).all():
            raise InputError(f"{source}: column {column!r} holds infinite values; end the curve where the run diverged")
    if (table["env_steps"] < 0).any():
        row = table.index[table["env_steps"] < 0][0]
        value = table.loc[row, "env_steps"]
        raise InputError(f"{source}: env_steps is negative in row {row} ({value:g}); steps count up from 0")
    for column in ("utd", "batch_size", "learning_rate", "model_size", "agent_size", *axes):
        if column in table and (table[column] <= 0).any():
            row = table.index[(table[column] <= 0)][0]
            raise InputError(f"{source}: {column} must be positive, row {row} has {table.loc[row, column]:g}")
    if "set" not in table:
        table["set"] = "all"
    for column in ("batch_size", "learning_rate", "model_size"):
        if column not in table:
            table[column] = np.nan
            if column != "model_size":
                notes.append(f"no column {column!r}: nothing is said about its best value")
    columns = [*CELL, *axes]
    table, joined = join_sessions(table, [*columns, unit_of(table)], source, resumed)
    notes += joined
    for name, cell in table.groupby("task"):
        if cell["utd"].nunique() == 1:
            notes.append(f"{name}: one update ratio only ({cell['utd'].iloc[0]:g}): no law in sigma can be fitted")
    seeds = table.groupby(columns, dropna=False)[unit_of(table)].nunique()
    if (seeds == 1).all():
        notes.append("one seed per cell: nothing can be resampled, so no interval says anything about seeds")
    elif (seeds == 1).any():
        notes.append(f"{int((seeds == 1).sum())} of {len(seeds)} cells have one seed: their noise is unknown")
    return Curves(table.reset_index(drop=True), notes)


def unit_of(table: pd.DataFrame) -> str:
    """The column that tells runs of one cell apart: of run directories the directory, as two may carry one seed."""
    return "unit" if "unit" in table else "seed"


def normalise(curves: Curves, scales: str | None, lower_is_better: bool = False) -> tuple[Curves, dict[str, float]]:
    """Returns on one scale: 1000 * return / max_return per (set and) task.

    scales: a CSV with columns task, max_return and optionally set; "auto" takes each task's highest seed-mean return;
    None leaves the returns alone, which only a single task allows. lower_is_better flips the sign afterwards, so that
    everything downstream climbs; thresholds are then negative. Returns the curves and {task: max_return}.
    """
    table, notes = curves.table.copy(), list(curves.notes)
    tasks = sorted(table["task"].unique())
    if scales is None:
        if len(tasks) > 1:
            raise InputError(
                f"{len(tasks)} tasks ({', '.join(map(str, tasks[:3]))}, ...) but no scales: their returns cannot share"
                " thresholds; give scales=<csv: task, max_return> or scales=auto"
            )
        used = dict.fromkeys(tasks, NORMAL_RETURN)
        divisor = np.ones(len(table))
    else:
        if scales == "auto":
            mean = table.groupby([*CELL, "env_steps"], dropna=False)["episode_return"].mean()
            best = mean.abs().groupby("task").quantile(0.999).reset_index(name="max_return")
            notes.append("scales=auto: each task is scaled by the highest seed-mean return seen")
        else:
            best = read_table(Path(scales))
            for column in ("task", "max_return"):
                if column not in best:
                    raise InputError(f"{scales}: column {column!r} is missing; a scales table has task, max_return")
        on = ["set", "task"] if "set" in best else ["task"]
        known = best.drop_duplicates(on).set_index(on)["max_return"]
        keys = table[on].drop_duplicates()
        missing = [k for k in keys.itertuples(index=False) if (tuple(k) if len(on) > 1 else k[0]) not in known.index]
        if missing:
            raise InputError(f"{scales}: no max_return for {', '.join(str(v) for v in missing[0])}; add a row for it")
        if (known <= 0).any():
            raise InputError(f"{scales}: max_return must be positive; it is {known[known <= 0].iloc[0]:g} in one row")
        divisor = table[on].merge(best.drop_duplicates(on), on=on, how="left")["max_return"].to_numpy() / NORMAL_RETURN
        used = {t: float(np.median(divisor[(table["task"] == t).to_numpy()]) * NORMAL_RETURN) for t in tasks}
    table["episode_return"] = table["episode_return"] / divisor * (-1.0 if lower_is_better else 1.0)
    return Curves(table, notes, curves.windows, curves.facts), used
