"""What a fit is asked for and what it found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from scaling.cli import boolean, demand_positive, numbers, option, words
from scaling.curves.crossings import Crossings
from scaling.curves.shares import KINDS
from scaling.curves.table import CELL, Curves
from scaling.curves.thresholds import LEVELS, RULE
from scaling.errors import InputError
from scaling.laws.chain import POOLINGS, DataPoints
from scaling.laws.cost import CostModel
from scaling.laws.data_law import DataLaw
from scaling.laws.frontier import Frontier
from scaling.laws.hyperparameters import HYPERPARAMETERS, ResponseSurface
from scaling.laws.model_size import ModelSizeLaw

COUNTS = ("critics", "agent")
TAKEN = ("agent_size", "seed", "run", "unit", "env_steps", "episode_return", "wall_time_s", "reset")


@dataclass
class Options:
    """The keys of scripts/fit.py."""

    curves: str | None = option(None, "table of learning curves (.csv, .csv.gz, .parquet), a sweep folder, or a file "
                                      "or folder of logs: stable-baselines3, rsl_rl, skrl, rl_games, CleanRL, TorchRL, "
                                      "Tianshou, d3rlpy, a W&B chart's CSV, any TensorBoard")  # fmt: skip
    meta: str | None = option(None, "what such logs do not tell: a CSV (run, utd, batch_size, learning_rate, seed, "
                                    "...), a pattern over folder names (\"{task}__{}__{seed}\"), key=value for all "
                                    "runs, or several of these, comma-separated")  # fmt: skip
    resumed: str | None = option(None, "where a run's steps go back: replace (the later part counts from there) or add "
                                       "(it counted from 0); by default replace, or a question")  # fmt: skip
    table: str | None = option(None, "only write the curves as one long table to this file (.csv, .csv.gz, .parquet)")
    plugins: list = option([], "Python files that register more readers", words)
    crossings: str | None = option(None, "instead of curves: a table task, utd, threshold, env_steps, "
                                         "optional model_size, batch_size, censored, left_censored")  # fmt: skip
    out: str = option("laws", "folder for laws.json, tables/, figures/ and report.html")
    where: str | None = option(None, "keep rows that satisfy this, such as \"task == 'Ant' and utd <= 4\"")
    set: list | None = option(None, "key(s) of the runs, such as num_envs, whose values become the column set: runs "
                                    "that differ in them are told apart", words)  # fmt: skip
    hparams_from: list | None = option(None, "set(s) that B* and eta* are fitted on; all by default", words)
    data_from: list | None = option(None, "set(s) that the data law is fitted on; all by default", words)
    scales: str | None = option(None, "CSV (task, max_return, optional set): returns become 1000 * return / "
                                      "max_return; or auto")  # fmt: skip
    direction: str = option("higher", "which returns are better: higher or lower")
    thresholds: list | None = option(None, "return levels J, on the scaled returns; by default "
                                     + RULE.format(count=LEVELS), numbers)  # fmt: skip
    hyperparameters: list = option(list(HYPERPARAMETERS), "columns whose best values are fitted, all together and "
                                   "against the ratio: any that the runs vary in", words)  # fmt: skip
    crossing: str = option("mean", "when a cell is at J: its mean over seeds is (mean), its median seed is "
                                   "(median_seed), or a share of its seeds is (probability)")  # fmt: skip
    probability: float = option(0.8, "crossing=probability: the share of seeds that must be there", float)
    hparams_threshold: float | None = option(None, "the J for B* and eta*; by default the highest", float)
    pooling: str = option("partial", "tasks share the data law's shape as far as they tell (partial), or all (full)")
    prior: float = option(1.0, "weight of what public sweeps tell of that shape, against one task of this table; 0: "
                               "nothing but a weak prior on alpha", float)  # fmt: skip
    count: str = option("critics", "what N counts: the online critics (critics, column model_size), or the whole agent "
                                   "with its targets and policies (agent, column agent_size)")  # fmt: skip
    model_size: float | None = option(None, "N; by default from the runs", float)
    delta: float | None = option(None, "FLOPs one transition is worth; by default from measured seconds", float)
    execution: str = option("auto", "seconds are spent in sequence or overlapped; auto: as the runs did")
    samples: int = option(1000, "bootstrap samples over seeds", int)
    seed: int = option(0, "seed of the bootstrap", int)
    published: bool = option(True, "also run the published procedure, for comparison", boolean)
    report: bool = option(True, "write figures and report.html", boolean)


@dataclass
class Result:
    """Everything the chain found. Samples lie along each array's first axis, row 0 is the point estimate."""

    options: Options
    curves: Curves | None
    thresholds: np.ndarray
    points: DataPoints
    crossings: Crossings | None = None
    hparams_crossings: Crossings | None = None
    support: pd.DataFrame = field(default_factory=pd.DataFrame)
    surface: ResponseSurface | None = None
    law: DataLaw | ModelSizeLaw | None = None
    cost: CostModel = field(default_factory=CostModel)
    windows: pd.DataFrame | None = None
    frontiers: dict[str, Frontier] = field(default_factory=dict)
    sensitivity: pd.DataFrame = field(default_factory=pd.DataFrame)
    held_out: pd.DataFrame = field(default_factory=pd.DataFrame)
    counts: pd.DataFrame = field(default_factory=pd.DataFrame)  # how N's exponent moves with what N counts
    published: dict[str, Any] = field(default_factory=dict)
    max_return: dict[str, float] = field(default_factory=dict)
    highest: dict[str, float] = field(default_factory=dict)  # per task the best mean return seen, scaled
    notes: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The hyperparameters: batch size and learning rate, which every plan needs, and any others asked for."""
        return list(dict.fromkeys([*HYPERPARAMETERS, *self.options.hyperparameters]))

    @property
    def utds(self) -> np.ndarray:
        return np.sort(self.points.cells["utd"].unique().astype(float))

    def batch_samples(self, utd: np.ndarray, task: str | None = None) -> np.ndarray:
        """(R, G) batch size that D was measured or fitted at: of one task, or the geometric mean of all.

        B*(sigma) where D is the bottom of the response surface; where the data runs are a stage of their own, the line
        through their batch sizes: the cost of a prediction is the cost of the runs that it continues.
        """
        utd = np.asarray(utd, dtype=float)
        surface = self.surface
        if self.points.from_surface and surface is not None and "batch_size" in surface.swept_:
            tasks = [task] if task in surface.tasks_ else surface.tasks_
            logs = [np.log(surface.chosen_samples("batch_size", t, utd)) for t in tasks]
            return np.exp(np.nanmean(logs, axis=0))
        slope, at_one = self.run_line("batch_size")
        intercept = at_one[task] if task in at_one else float(np.mean(list(at_one.values())))
        return np.tile(np.exp(intercept + slope * np.log(utd)), (len(self.points.values), 1))

    def run_line(self, name: str) -> tuple[float, dict[str, float]]:
        """Slope in ln sigma (shared) and ln value at sigma 1 per task of a hyperparameter as the data runs had it."""
        cells = self.points.cells if self.crossings is None else self.crossings.cells_
        tasks = sorted(cells["task"].unique())
        if name not in cells or cells[name].isna().any():
            return 0.0, {t: float("nan") for t in tasks}
        dummies = (cells["task"].to_numpy()[:, None] == np.array(tasks, dtype=object)).astype(float)
        design = np.column_stack([np.log(cells["utd"].to_numpy(dtype=float)), dummies])
        solution = np.linalg.lstsq(design, np.log(cells[name].to_numpy(dtype=float)), rcond=None)[0]
        return float(solution[0]), {t: float(v) for t, v in zip(tasks, solution[1:])}

    def data_samples(self, utd: np.ndarray, level: int, task: str | None = None) -> np.ndarray:
        """(R, G) steps to threshold number `level`."""
        return self.law.predict_samples(utd, level, task)


def check_options(options: Options) -> None:
    """Rules between keys. Raises InputError."""
    if (options.curves is None) == (options.crossings is None):
        raise InputError("give either curves=<table, sweep folder or logs> or crossings=<table>")
    if options.table is not None and options.curves is None:
        raise InputError("table= writes the curves read by curves=<table, sweep folder or logs>: give that")
    if options.direction not in ("higher", "lower"):
        raise InputError(f"direction={options.direction!r}: use higher or lower")
    wrong = [name for name in options.hyperparameters if name in {*CELL, *TAKEN} - {*HYPERPARAMETERS}]
    if wrong or not options.hyperparameters:
        raise InputError(f"hyperparameters={','.join(options.hyperparameters)}: name columns that the runs vary in, "
                         f"such as batch_size,learning_rate,weight_decay{f', not {wrong[0]}' if wrong else ''}")
    if options.pooling not in POOLINGS:
        raise InputError(f"pooling={options.pooling!r}: use {' or '.join(POOLINGS)}")
    if not 0 <= options.prior < np.inf:
        raise InputError(f"prior={options.prior}: a weight, 0 or more")
    if options.count not in COUNTS:
        raise InputError(f"count={options.count!r}: use {' or '.join(COUNTS)}")
    if options.crossing not in KINDS:
        raise InputError(f"crossing={options.crossing!r}: use {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    if not 0 < options.probability <= 1:
        raise InputError(f"probability={options.probability}: a share of seeds, above 0 and up to 1")
    if options.execution not in ("auto", "sequential", "overlapped"):
        raise InputError(f"execution={options.execution!r}: use auto, sequential or overlapped")
    for name in ("samples", "seed"):
        if getattr(options, name) < 0:
            raise InputError(f"{name}={getattr(options, name)}: use 0 or more")
    demand_positive(options, "delta", "model_size")
