"""From curves (or crossings) to every result: the whole chain, run once, with samples all along."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling.cli import boolean, numbers, option, words
from scaling.curves.crossings import Crossings
from scaling.curves.read import read_curves
from scaling.curves.table import CELL, Curves, check, normalise, read_table, select
from scaling.curves.thresholds import LEVELS, RULE, choose_thresholds
from scaling.errors import InputError
from scaling.laws.chain import DataPoints, data_points, fit_data_law, fit_hyperparameters
from scaling.laws.cost import CostModel, measure
from scaling.laws.data_law import DataLaw
from scaling.laws.frontier import Frontier, search_range
from scaling.laws.held_out import held_out
from scaling.laws.hyperparameters import ResponseSurface
from scaling.laws.model_size import ModelSizeLaw
from scaling.laws.published import (
    PublishedDataLaw,
    PublishedHyperparameters,
    published_crossings,
    published_frontier,
)
from scaling.laws.uncertainty import bands

ASSUMED_MODEL_SIZE = 1.5e5  # the published one; only used, and said so, where neither the user nor the runs tell


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
    hparams_threshold: float | None = option(None, "the J for B* and eta*; by default the highest", float)
    model_size: float | None = option(None, "critic parameters N; by default from the runs", float)
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
    surface: ResponseSurface | None = None
    law: DataLaw | ModelSizeLaw | None = None
    cost: CostModel = field(default_factory=CostModel)
    windows: pd.DataFrame | None = None
    frontiers: dict[str, Frontier] = field(default_factory=dict)
    sensitivity: pd.DataFrame = field(default_factory=pd.DataFrame)
    held_out: pd.DataFrame = field(default_factory=pd.DataFrame)
    published: dict[str, Any] = field(default_factory=dict)
    max_return: dict[str, float] = field(default_factory=dict)
    highest: dict[str, float] = field(default_factory=dict)  # per task the best mean return seen, scaled
    notes: list[str] = field(default_factory=list)

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
    if options.execution not in ("auto", "sequential", "overlapped"):
        raise InputError(f"execution={options.execution!r}: use auto, sequential or overlapped")
    if options.samples < 0:
        raise InputError(f"samples={options.samples}: use 0 or more")


def pick_sets(table: pd.DataFrame, sets: list[str] | None, key: str) -> pd.DataFrame:
    """Rows of the named sets."""
    if sets is None:
        return table
    known = sorted(map(str, table["set"].unique()))
    for name in sets:
        if name not in known:
            raise InputError(f"{key}={name!r}: no such set; the table has {', '.join(known)}")
    return table[table["set"].astype(str).isin(sets)]


def fit(options: Options) -> Result:
    """Run the chain. Raises InputError for input that no result can be had from; everything milder becomes a note."""
    check_options(options)
    rng = np.random.default_rng(options.seed)
    result = _from_crossings(options) if options.crossings else _from_curves(options, rng)
    points = result.points
    alive = points.cells[np.isfinite(points.values[0]).any(axis=1)]
    if alive["utd"].nunique() < 2:
        result.notes.append("fewer than two update ratios reach a threshold: no law, no frontier, no plan")
    else:
        result.law = fit_data_law(points, rng)
        _costs(result)
        _frontiers(result)
        if result.crossings is not None:
            result.held_out = held_out(result.crossings, points, rng, samples=min(200, options.samples))
    if options.published and result.curves is not None:
        _published(result)
    return result


def _from_curves(options: Options, rng: np.random.Generator) -> Result:
    curves = read_curves(options.curves, options.where, options.meta, options.resumed, options.set)
    if options.set and options.data_from is None and curves.table["set"].nunique() > 1:
        known = sorted(curves.table["set"].unique())
        raise InputError(f"set={','.join(options.set)} tells {len(known)} kinds of runs apart ({', '.join(known)}):"
                         f" choose one with data_from={known[0]}, and hparams_from= where it is another")  # fmt: skip
    if options.set and options.hparams_from is None:
        options = dataclasses.replace(options, hparams_from=options.data_from)
    curves, max_return = normalise(curves, options.scales, options.direction == "lower")
    table, notes = curves.table, list(curves.notes)
    if options.hparams_from is None and options.data_from is None and table["set"].nunique() > 1:
        notes.append(f"{table['set'].nunique()} sets pooled; hparams_from= and data_from= tell stages apart")
    for_data = pick_sets(table, options.data_from, "data_from")
    for_hparams = pick_sets(table, options.hparams_from, "hparams_from")
    sign = -1.0 if options.direction == "lower" else 1.0
    if sign < 0:
        notes.append("direction=lower: returns and thresholds carry a minus sign throughout")
    if options.thresholds:
        thresholds = np.sort(sign * np.array(options.thresholds, dtype=float))
    else:
        thresholds = choose_thresholds(for_data, CELL)
        notes.append(f"thresholds: {RULE.format(count=len(thresholds))}")
    crossings = Crossings(CELL, options.samples, options.seed).fit(for_data, thresholds)
    highest = crossings.highest()
    notes += crossings.notes_
    crossed = np.isfinite(crossings.steps_[0])
    early = crossed & (crossings.steps_[0] == 0)
    reached, seen = crossed.any(axis=0), (crossed & ~early).any(axis=0)
    if not reached.any():
        best = max(returns.mean(axis=0).max() for _, returns in crossings.curves_)
        raise InputError(
            f"no run reaches any threshold ({thresholds.min():.4g} to {thresholds.max():.4g}): the highest mean return"
            f" is {best:.4g}; give thresholds= below it, or leave them out"
        )
    if not seen.any():
        raise InputError(
            f"every run that reaches a threshold ({thresholds.min():.4g} to {thresholds.max():.4g}) is above it at its"
            " first evaluation, so nothing says when it got there: evaluate earlier, or give higher thresholds="
        )
    for kept, what in ((reached, "reached by no run"), (seen | ~reached, "reached only before a first evaluation")):
        if not kept.all():
            notes.append(f"{what}, left out: J = " + ", ".join(f"{j:.4g}" for j in thresholds[~kept]))
    if early[:, seen].any():
        notes.append(f"{int(early[:, seen].sum())} of {int(crossed[:, seen].sum())} crossings lie before their run's"
                     " first evaluation and count as that, not as a number: evaluate earlier")  # fmt: skip
    if not seen.all():
        crossings = crossings.subset(np.ones(len(crossings.cells_), dtype=bool), np.flatnonzero(seen))
    points = data_points(crossings, rng)
    result = Result(options, curves, crossings.thresholds_, points, crossings, max_return=max_return,
                    highest=highest, notes=notes + points.notes)  # fmt: skip
    level = options.hparams_threshold
    level = float(crossings.thresholds_[-1]) if level is None else sign * level
    same = options.hparams_from == options.data_from and np.isclose(crossings.thresholds_, level).any()
    if same:
        at = int(np.argmin(np.abs(crossings.thresholds_ - level)))
        result.hparams_crossings = crossings.subset(np.ones(len(crossings.cells_), dtype=bool), np.array([at]))
    else:
        result.hparams_crossings = Crossings(CELL, options.samples, options.seed + 1).fit(for_hparams, [level])
    found = result.hparams_crossings.steps_[0]
    if (np.isfinite(found) & (found > 0)).any():
        result.surface = fit_hyperparameters(result.hparams_crossings, 0, rng)
        for name in ("batch_size", "learning_rate"):
            if name not in result.surface.swept_:
                result.notes.append(f"{name} takes fewer than three values at each (task, sigma): no best value fitted")
    else:
        result.notes.append(f"no run is seen to cross J = {level:.4g}: no best hyperparameters; give"
                            " another hparams_threshold")  # fmt: skip
    return result


def _from_crossings(options: Options) -> Result:
    table = select(read_table(Path(options.crossings)), options.where)
    for column in ("utd", "env_steps"):
        if column not in table:
            raise InputError(f"{options.crossings}: column {column!r} is missing; a crossings table has task, utd, "
                             "threshold, env_steps")  # fmt: skip
    table = table.assign(
        task=table.get("task", "all"), threshold=table.get("threshold", 0.0),
        censored=table["censored"].astype(bool) if "censored" in table else False,
        left_censored=table["left_censored"].astype(bool) if "left_censored" in table else False,
        model_size=table.get("model_size", np.nan),
    )  # fmt: skip
    # The rules of a curves table hold here as well: numbers, positive ratios, no negative steps.
    check(table.assign(seed=np.arange(len(table)), episode_return=table["threshold"]), options.crossings)
    if (table["env_steps"] <= 0).any():
        raise InputError(f"{options.crossings}: env_steps must be positive; drop rows without a crossing or mark them"
                         " censored with the horizon as env_steps")  # fmt: skip
    key = ["task", "utd", "model_size"]
    if table.duplicated([*key, "threshold"]).any():
        row = table.index[table.duplicated([*key, "threshold"])][0]
        raise InputError(f"{options.crossings}: row {row} repeats a (task, utd, model_size, threshold); keep one")
    thresholds = np.sort(table["threshold"].unique().astype(float))
    cells = table.groupby(key, dropna=False)["env_steps"].agg(horizon="max", first="min").reset_index()
    cells["cells"] = 1
    if "batch_size" in table:
        cells["batch_size"] = table.groupby(key, dropna=False)["batch_size"].first().to_numpy()
    at = table.merge(cells.assign(at=cells.index), on=key, how="left")["at"].to_numpy()
    values = np.full((1, len(cells), len(thresholds)), np.nan)
    steps = np.log(table["env_steps"].to_numpy(dtype=float))
    values[0, at, np.searchsorted(thresholds, table["threshold"])] = np.where(
        table["censored"], np.inf, np.where(table["left_censored"], -np.inf, steps)
    )
    notes = ["fitted from a table of crossings: no seeds, so no intervals, no hyperparameters, no held-out errors"]
    if np.isnan(values).any():
        values = np.where(np.isnan(values), np.inf, values)
        notes.append("a (task, utd, threshold) without a row counts as censored at that cell's largest env_steps")
    highest = {t: float(rows["threshold"].max()) for t, rows in table[~table["censored"]].groupby("task")}
    return Result(options, None, thresholds, DataPoints(cells, values, thresholds), highest=highest, notes=notes)


def _costs(result: Result) -> None:
    """FLOPs from the published count or the runs' own, seconds from the runs' clocks, delta from both."""
    options, facts = result.options, result.curves.facts if result.curves else {}
    size = options.model_size or facts.get("model_size")
    if size is None and isinstance(result.law, ModelSizeLaw):
        size = result.law.size_ref_
    if size is None and result.points.cells["model_size"].notna().any():
        size = float(np.exp(np.log(result.points.cells["model_size"]).mean()))
    if size is None:
        size = ASSUMED_MODEL_SIZE
        result.notes.append(f"model size unknown: {size:.3g} critic parameters assumed; give model_size=")
    overlapped = facts.get("overlapped", False) if options.execution == "auto" else options.execution == "overlapped"
    known = facts.get("flops_per_sample")
    cost = {"model_size": float(size), "flops_per_sample": known, "overlapped": bool(overlapped)}
    windows = result.curves.windows if result.curves else None
    if windows is not None and len(windows):
        try:
            t, u0, u1, result.windows = measure(windows)
            cost.update(seconds_per_transition=t, seconds_per_update=u0, seconds_per_update_sample=u1)
            if t == 0 or u0 + u1 == 0:
                side = "transition" if t == 0 else "update"
                result.notes.append(f"cost model: no stretch of the runs was bound by its {side}s, so seconds per"
                                    f" {side} are unknown and count as 0; run a ratio where they dominate")  # fmt: skip
        except InputError as error:
            result.notes.append(str(error))
    model = CostModel(**cost)
    middle = float(np.exp(np.log(result.utds).mean()))
    batch = float(result.batch_samples(np.array([middle]))[0, 0])
    delta = options.delta
    if delta is None and model.measured and np.isfinite(batch) and model.seconds_per_update_at(batch) > 0:
        delta = model.measured_delta(batch)
        result.notes.append(f"delta = {delta:.3g} FLOPs per transition, from measured seconds at B = {batch:.0f}")
    if delta is None:
        result.notes.append("delta unknown (no wall-clock times): no frontier in FLOPs; give delta=, see its figure")
    result.cost = CostModel(**cost, delta=float("nan") if delta is None else float(delta))


def _frontiers(result: Result) -> None:
    """sigma*(F) in FLOPs and in seconds, and how sigma* moves with delta."""
    batch = result.batch_samples(result.utds)
    if not np.isfinite(batch[0]).all():
        result.notes.append("batch size unknown: no compute, no frontier; add a column batch_size")
        return
    levels = len(result.thresholds)
    grid = np.exp(search_range(result.utds))
    steps, batches = [result.data_samples(grid, k) for k in range(levels)], result.batch_samples(grid)

    def run(cost: CostModel, rows: slice = slice(None)) -> Frontier:
        return Frontier().fit(lambda _, k: steps[k][rows], lambda _: batches[rows], cost, levels, result.utds)

    cost = result.cost
    if np.isfinite(cost.delta):
        result.frontiers["flops"] = run(cost)
    if cost.measured:
        result.frontiers["seconds"] = run(CostModel(**{**cost.__dict__, "currency": "seconds"}))
    middle = np.array([np.exp(np.log(result.utds).mean())])
    reference = cost.delta if np.isfinite(cost.delta) and cost.delta > 0 else float(
        cost.updates(middle, result.batch_samples(middle)[0])[0])  # fmt: skip
    rows, first = [], slice(0, 1 if len(result.points.values) < 3 else 201)
    for factor in np.geomspace(1e-2, 1e2, 13):
        frontier = run(CostModel(**{**cost.__dict__, "delta": reference * factor, "currency": "flops"}), first)
        for level, threshold in enumerate(result.thresholds):
            low, high = bands(frontier.log_utd_[:, level]) if len(frontier.log_utd_) > 1 else (np.nan, np.nan)
            rows.append((reference * factor, threshold, np.exp(frontier.log_utd_[0, level]), np.exp(low), np.exp(high),
                         frontier.exponent_[0]))  # fmt: skip
    result.sensitivity = pd.DataFrame(rows, columns=["delta", "threshold", "utd", "low", "high", "exponent"])


def _published(result: Result) -> None:
    """The published estimators on the same curves, wherever their conditions hold."""
    table, options = result.curves.table, result.options
    sweep = pick_sets(table, options.hparams_from, "hparams_from")
    if result.surface is not None and len(result.surface.swept_) == 2 and result.hparams_crossings is not None:
        one_set = sweep.assign(task=sweep["task"].astype(str))
        if not one_set.duplicated(["task", "utd", "batch_size", "learning_rate", "seed", "env_steps"]).any():
            cells, steps = published_crossings(one_set, result.hparams_crossings.thresholds_, seed=options.seed)
            result.published["hyperparameters"] = PublishedHyperparameters().fit(cells, steps[:, :, 0])
    data = pick_sets(table, options.data_from, "data_from")
    if result.law is None or result.points.from_surface or isinstance(result.law, ModelSizeLaw):
        return
    if data[["batch_size", "learning_rate"]].isna().to_numpy().any():
        return
    cells, steps = published_crossings(data, result.thresholds, samples=0)
    grid = cells.assign(at=cells.index).pivot(index="task", columns="utd", values="at")
    if grid.isna().to_numpy().any() or grid.shape[1] < 3 or not np.isfinite(steps[0]).all():
        return
    utds = grid.columns.to_numpy(dtype=float)
    law = PublishedDataLaw().fit(utds, steps[0][grid.to_numpy().astype(int)])
    result.published["data"] = law
    if "hyperparameters" in result.published and np.isfinite(result.cost.delta) and len(result.thresholds) >= 4:
        result.published["frontier"] = published_frontier(
            law, result.published["hyperparameters"], utds, result.cost.model_size, result.cost.delta
        )
