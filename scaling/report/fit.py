"""From curves (or crossings) to every result: the whole chain, run once, with samples all along."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd

from scaling.curves.crossings import Crossings
from scaling.curves.read import read_curves
from scaling.curves.support import support, verdict
from scaling.curves.table import CELL, check, normalise, read_table, select
from scaling.curves.thresholds import RULE, choose_thresholds
from scaling.errors import InputError
from scaling.laws.chain import DataPoints, data_points, fit_data_law, fit_hyperparameters
from scaling.laws.cost import CostModel, measure
from scaling.laws.frontier import Frontier, search_range
from scaling.laws.held_out import held_out
from scaling.laws.hyperparameters import HYPERPARAMETERS
from scaling.laws.model_size import ModelSizeLaw
from scaling.laws.published import (
    PublishedDataLaw,
    PublishedHyperparameters,
    published_crossings,
    published_frontier,
)
from scaling.laws.uncertainty import bands, estimate
from scaling.report.result import COUNTS, Options, Result, check_options

ASSUMED_MODEL_SIZE = 1.5e5  # the published one; only used, and said so, where neither the user nor the runs tell


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
        result.counts = _counts(result, rng)
        _costs(result)
        _frontiers(result)
        if result.crossings is not None:
            result.held_out = held_out(result.crossings, points, rng, samples=min(200, options.samples),
                                       names=options.hyperparameters)  # fmt: skip
    if options.published and result.curves is not None:
        _published(result)
    return result


def _from_curves(options: Options, rng: np.random.Generator) -> Result:
    axes = [name for name in options.hyperparameters if name not in CELL]
    curves = read_curves(options.curves, options.where, options.meta, options.resumed, options.set, axes)
    if options.set and options.data_from is None and curves.table["set"].nunique() > 1:
        known = sorted(curves.table["set"].unique())
        raise InputError(f"set={','.join(options.set)} tells {len(known)} kinds of runs apart ({', '.join(known)}):"
                         f" choose one with data_from={known[0]}, and hparams_from= where it is another")  # fmt: skip
    if options.set and options.hparams_from is None:
        options = dataclasses.replace(options, hparams_from=options.data_from)
    curves, max_return = normalise(curves, options.scales, options.direction == "lower")
    cell = [*CELL, *axes]
    table = counting(curves.table, options.count)
    table, notes = _sizes_follow(table, axes, list(curves.notes))
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
        thresholds = choose_thresholds(for_data, cell)
        notes.append(f"thresholds: {RULE.format(count=len(thresholds))}")
    kind = {"kind": options.crossing, "probability": options.probability}
    crossings = Crossings(cell, options.samples, options.seed, **kind).fit(for_data, thresholds)
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
    points = data_points(crossings, rng, options.hyperparameters)
    points = dataclasses.replace(points, pooling=options.pooling, prior=options.prior)
    points.cells = with_other(points.cells, table)
    result = Result(options, curves, crossings.thresholds_, points, crossings, max_return=max_return,
                    highest=highest, notes=notes + points.notes)  # fmt: skip
    if options.samples >= 20:
        result.support = support(for_data, crossings, options.probability)
        result.notes += verdict(result.support, options.crossing)
    level = options.hparams_threshold
    level = float(crossings.thresholds_[-1]) if level is None else sign * level
    same = options.hparams_from == options.data_from and np.isclose(crossings.thresholds_, level).any()
    if same:
        at = int(np.argmin(np.abs(crossings.thresholds_ - level)))
        result.hparams_crossings = crossings.subset(np.ones(len(crossings.cells_), dtype=bool), np.array([at]))
    else:
        again = Crossings(cell, options.samples, options.seed + 1, **kind)
        result.hparams_crossings = again.fit(for_hparams, [level])
    found = result.hparams_crossings.steps_[0]
    if (np.isfinite(found) & (found > 0)).any():
        result.surface = fit_hyperparameters(result.hparams_crossings, 0, rng, options.hyperparameters)
        for name in options.hyperparameters:
            if name not in result.surface.swept_:
                result.notes.append(f"{name} takes fewer than three values at each (task, sigma): no best value fitted")
    else:
        result.notes.append(f"no run is seen to cross J = {level:.4g}: no best hyperparameters; give"
                            " another hparams_threshold")  # fmt: skip
    return result


def counting(table: pd.DataFrame, count: str) -> pd.DataFrame:
    """The table with model_size as `count` has it, and the other count, where it is known, as other_size."""
    if count == "agent":
        if "agent_size" not in table or table["agent_size"].isna().all():
            raise InputError("count=agent: no column agent_size (the runs' agent_parameters): use count=critics")
        return table.assign(model_size=table["agent_size"], other_size=table.get("model_size", np.nan))
    return table.assign(other_size=table.get("agent_size", np.nan))


def with_other(cells: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Points with the size by the other count, where the one count tells the other."""
    if "model_size" not in table or not table["other_size"].notna().any():
        return cells
    pairs = table[["task", "model_size", "other_size"]].drop_duplicates()
    if pairs.duplicated(["task", "model_size"]).any():
        return cells
    return cells.merge(pairs, on=["task", "model_size"], how="left")


def _counts(result: Result, rng: np.random.Generator) -> pd.DataFrame:
    """The model-size law at the highest threshold under either count of N: a row each, or none."""
    points = result.points
    if not isinstance(result.law, ModelSizeLaw) or "other_size" not in points.cells:
        return pd.DataFrame()
    other = dataclasses.replace(points, cells=points.cells.assign(model_size=points.cells["other_size"]))
    (name,) = set(COUNTS) - {result.options.count}
    laws = {result.options.count: (result.law, points), name: (fit_data_law(other, rng), other)}
    return pd.DataFrame([
        {"count": count, "lowest": cells.cells["model_size"].min(), "highest": cells.cells["model_size"].max(),
         **estimate("beta_exponent", law.beta_exponent_[:, -1]), "residual_sd": float(law.residual_sd_[-1])}
        for count, (law, cells) in laws.items()
    ])  # fmt: skip


def _sizes_follow(table: pd.DataFrame, axes: list[str], notes: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """Where a hyperparameter, a width say, sets the model's size, the size is no axis of its own."""
    for name in axes:
        sizes = table.groupby(["task", name], dropna=False)["model_size"].nunique(dropna=False)
        if table.groupby("task")["model_size"].nunique().max() > 1 and sizes.max() == 1:
            notes.append(f"model size follows {name}: D is that of the best {name}, costs count the average size")
            return table.assign(model_size=np.nan), notes
    return table, notes


def _from_crossings(options: Options) -> Result:
    table = select(read_table(Path(options.crossings)), options.where)
    for column in ("utd", "env_steps"):
        if column not in table:
            raise InputError(f"{options.crossings}: column {column!r} is missing; a crossings table has task, utd, "
                             "threshold, env_steps")  # fmt: skip
    table = counting(table, options.count)
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
    cells = with_other(cells, table)
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
    size = options.model_size or facts.get("model_size" if options.count == "critics" else "agent_size")
    if size is None and isinstance(result.law, ModelSizeLaw):
        size = result.law.size_ref_
    if size is None and result.points.cells["model_size"].notna().any():
        size = float(np.exp(np.log(result.points.cells["model_size"]).mean()))
    if size is None:
        size = ASSUMED_MODEL_SIZE
        result.notes.append(f"model size unknown: {size:.3g} parameters assumed; give model_size=")
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
    both = result.surface is not None and tuple(result.surface.swept_) == HYPERPARAMETERS
    if both and tuple(options.hyperparameters) == HYPERPARAMETERS and result.hparams_crossings is not None:
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
