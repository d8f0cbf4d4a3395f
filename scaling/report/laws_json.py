"""laws.json, the tidy tables and the samples: what a fit leaves behind for people, programs and `scripts/plan.py`.

Schema of laws.json, version 1. Every number `x` that has one carries `x_interval`: [low, high] at `interval_level`, or
[null, null] where nothing could be resampled. Names in `undetermined` are numbers that the data do not tell: they are
null, their intervals stand.

    schema, interval_level, samples, options       how the fit was made
    tasks            {task: {max_return}}
    crossing         kind, probability (a share of seeds, null for the mean), support[]: threshold, kind, points, seen,
                     factor, waits, stands: which kinds of crossing the seeds bear there (scaling.curves.support)
    batch_size       exponent (B* ~ sigma^-exponent), slope (= -exponent), determined (if not, these are null),
                     threshold, at_sigma_1 {task: {value, exponent}} of each task's own, at_edge [{task, utd, best,
                     lowest, highest}]
    learning_rate    the same for eta*
    hyperparameters  {name: the same} of any others, and in each of the three: shape (bowl, larger is better, smaller is
                     better, flat, unclear: SHAPES), key (the training's), integer, repeat (a list of that many)
    data[]           threshold, d_min, alpha, beta: D = d_min + (beta / utd)^alpha for the typical task; scale
                     {task: factor on D}; residual_sd of ln D; undetermined [names]; with model size also b,
                     beta_exponent: + (b / N)^beta_exponent
    cost             currency-free: model_size, delta, flops_per_sample, seconds_per_transition, seconds_per_update,
                     seconds_per_update_sample, overlapped
    frontier         {flops, seconds}: exponent, scale of utd*(F) = scale * F^exponent, undetermined [names]; points[]
                     threshold, utd, env_steps, compute, budget, at_bound, undetermined [names]; held_out[] threshold,
                     predicted, found, relative_error
    held_out[]       split, utd, threshold, predicted, observed, relative_error, published_relative_error, tasks and
                     censored (tasks in the averages, tasks that never reach the threshold)
    published        batch_size, learning_rate {exponent}; data {a, b, c, scale, threshold}; frontier {exponent, scale}
    model_size       counted (what N counts: critics or agent); counts[]: per count of N, where runs tell both, lowest,
                     highest, beta_exponent, residual_sd of the law with model size at the highest threshold
    settings         fixed {key: value}: what all runs of a sweep were told alike; learning_rate_keys [keys]: those
                     that followed the learning rate; {} where the curves were no sweep's
    range            utd, threshold: [lowest, highest] fitted; highest {task: the best mean return seen}; ceiling: the
                     scaled return that nothing exceeds, null where scales= does not tell
    warmup           transitions before a run's first update, null where unknown: no plan is shorter
    notes[]          what may not be concluded, one sentence each
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling.curves.table import NORMAL_RETURN
from scaling.errors import InputError
from scaling.laws.cost import CostModel
from scaling.laws.data_law import DataLaw
from scaling.laws.frontier import Frontier
from scaling.laws.hyperparameters import HYPERPARAMETERS
from scaling.laws.model_size import ModelSizeLaw
from scaling.laws.pooled import PooledLaw
from scaling.laws.uncertainty import LEVEL, estimate, undetermined
from scaling.report.result import Result

SCHEMA = "scaling-laws/1"


def clean(value: Any) -> Any:
    """Plain JSON: no numpy, no nan, no infinity."""
    if isinstance(value, dict):
        return {str(k): clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [clean(v) for v in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value


def withhold(block: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The block with null for what the data do not tell."""
    return {**block, **dict.fromkeys(names)}


def hyperparameter(result: Result, name: str) -> dict[str, Any] | None:
    """The block of one hyperparameter, or None where it was not swept."""
    surface = result.surface
    if surface is None or name not in surface.swept_:
        return None
    exponent = surface.exponent_[name]
    edge = surface.edge_[(surface.edge_["hyperparameter"] == name) & surface.edge_["at_edge"]]
    at_one = {task: {**estimate("value", np.exp(surface.log_best_[name][:, i])),
                     **estimate("exponent", surface.task_exponent_[name][:, i])}
              for i, task in enumerate(surface.tasks_)}  # fmt: skip
    known = surface.determined_[name]
    values = surface.residuals_[name].to_numpy(dtype=float)
    facts = result.curves.facts if result.curves else {}
    others = {} if name in HYPERPARAMETERS else {
        "key": facts.get("keys", {}).get(name, name if "." in name else f"algo.{name}"),
        "integer": bool((values == np.round(values)).all()), "repeat": facts.get("repeats", {}).get(name, 0),
    }  # fmt: skip
    at_one = {task: withhold(value, [] if known else ["value", "exponent"]) for task, value in at_one.items()}
    return {
        **withhold({**estimate("exponent", exponent), **estimate("slope", -exponent)},
                   [] if known else ["exponent", "slope"]), "determined": known,
        "shape": surface.shape_[name], **others,
        "threshold": float(result.hparams_crossings.thresholds_[0]), "at_sigma_1": at_one,
        "at_edge": edge[["task", "utd", "best", "lowest", "highest"]].to_dict("records"),
    }  # fmt: skip


def data_block(result: Result) -> list[dict[str, Any]]:
    """One entry per threshold."""
    law, out = result.law, []
    if law is None:
        return out
    for level, threshold in enumerate(law.thresholds_):
        alpha = law.alpha_ if law.alpha_.ndim == 1 else law.alpha_[:, level]
        entry = {"threshold": float(threshold), **estimate("d_min", law.d_min_[:, level]), **estimate("alpha", alpha),
                 **estimate("beta", law.beta_[:, level])}  # fmt: skip
        if isinstance(law, ModelSizeLaw):
            entry.update(estimate("b", law.b_[:, level]))
            entry.update(estimate("beta_exponent", law.beta_exponent_[:, level]))
        scales = law.log_scale_[0, :, level]
        entry["scale"] = {t: float(np.exp(s - np.nanmean(scales))) for t, s in zip(law.tasks_, scales)}
        entry["residual_sd"] = float(law.residual_sd_[level])
        names = {"a": "beta"} if isinstance(law, ModelSizeLaw) else {}
        entry["undetermined"] = [names.get(n, n) for n, known in law.determined_.items() if not known[level]]
        out.append(withhold(entry, entry["undetermined"]))
    return out


def frontier_block(frontier: Frontier, thresholds: np.ndarray) -> dict[str, Any]:
    quantities = {"utd": frontier.log_utd_, "env_steps": frontier.log_data_, "compute": frontier.log_compute_,
                  "budget": frontier.log_budget_}  # fmt: skip
    points = []
    for k, j in enumerate(thresholds):
        samples = {name: np.exp(logs[:, k]) for name, logs in quantities.items()}
        bound = bool(frontier.at_bound_[0, k])
        unknown = [name for name, values in samples.items() if bound or undetermined(values)]
        entry: dict[str, Any] = {"threshold": float(j), "at_bound": bound, "undetermined": unknown}
        for name, values in samples.items():
            entry.update(estimate(name, values))
        points.append(withhold(entry, unknown))
    held = [
        {"threshold": float(thresholds[k]), **estimate("predicted", np.exp(v)),
         "found": float(np.exp(frontier.log_utd_[0, k])),
         "relative_error": float(np.exp(v[0] - frontier.log_utd_[0, k]) - 1)}
        for k, v in frontier.held_out_.items() if not any("utd" in p["undetermined"] for p in points)
    ]  # fmt: skip
    unknown = ["exponent", "scale"] if any("utd" in p["undetermined"] for p in points) else []
    with np.errstate(over="ignore"):  # of a law that nothing determines; infinity is written as null
        scale = np.exp(frontier.log_scale_)
    law = withhold({**estimate("exponent", frontier.exponent_), **estimate("scale", scale)}, unknown)
    return {**law, "undetermined": unknown, "points": points, "held_out": held}


def published_block(result: Result) -> dict[str, Any]:
    out: dict[str, Any] = {}
    if "hyperparameters" in result.published:
        for name, exponent in result.published["hyperparameters"].exponent_.items():
            out[name] = {"exponent": exponent, "slope": -exponent,
                         "at_sigma_1": result.published["hyperparameters"].intercept_[name]}  # fmt: skip
    if "data" in result.published:
        a, b, c = result.published["data"].parameters_[-1]
        out["data"] = {"a": a, "b": b, "c": c, "scale": result.published["data"].scale_,
                       "threshold": float(result.thresholds[-1])}  # fmt: skip
    if "frontier" in result.published:
        out["frontier"] = {k: v for k, v in result.published["frontier"].items() if k != "budget"}
    return out


def as_dict(result: Result) -> dict[str, Any]:
    """The content of laws.json."""
    cost = dataclasses.asdict(result.cost)
    cost.pop("currency")
    return clean({
        "schema": SCHEMA, "interval_level": LEVEL, "samples": result.options.samples if result.curves else 0,
        "options": dataclasses.asdict(result.options),
        "tasks": {t: {"max_return": v} for t, v in result.max_return.items()} or
                 {t: {"max_return": 1000.0} for t in sorted(result.points.cells["task"].unique())},
        "crossing": {"kind": result.options.crossing, "support": result.support.to_dict("records"),
                     "probability": {"mean": None, "median_seed": 0.5}.get(result.options.crossing,
                                                                          result.options.probability)},
        "batch_size": hyperparameter(result, "batch_size"), "learning_rate": hyperparameter(result, "learning_rate"),
        "hyperparameters": {name: hyperparameter(result, name) for name in result.names[2:]},
        "data": data_block(result), "cost": cost,
        "frontier": {name: frontier_block(f, result.thresholds) for name, f in result.frontiers.items()},
        "held_out": result.held_out.to_dict("records"), "published": published_block(result),
        "range": {"utd": [result.utds.min(), result.utds.max()],
                  "threshold": [result.thresholds.min(), result.thresholds.max()], "highest": result.highest,
                  "ceiling": NORMAL_RETURN if result.options.scales not in (None, "auto")
                  and result.options.direction == "higher" else None},
        "model_size": {"counted": result.options.count, "counts": result.counts.to_dict("records")},
        "warmup": result.curves.facts.get("warmup") if result.curves else None,
        "settings": result.curves.facts.get("settings", {}) if result.curves else {},
        "notes": result.notes,
    })  # fmt: skip


def write(result: Result, out: Path) -> dict[str, Any]:
    """laws.json, tables/*.csv and samples.npz in `out`."""
    (out / "tables").mkdir(parents=True, exist_ok=True)
    laws = as_dict(result)
    tables = {"data_points": result.points.table(), "held_out": result.held_out, "delta": result.sensitivity}
    if result.crossings is not None:
        tables["crossings"] = result.crossings.table_
        tables["crossings_hyperparameters"] = result.hparams_crossings.table_
    if result.surface is not None:
        tables["best_hyperparameters"] = result.surface.edge_
        tables["surface_residuals"] = result.surface.residuals_
    if result.windows is not None:
        tables["cost_windows"] = result.windows
    for name, table in tables.items():
        if len(table):
            table.to_csv(out / "tables" / f"{name}.csv", index=False)
    arrays: dict[str, np.ndarray] = {}
    if result.law is not None:
        arrays.update({f"law_{k}": v for k, v in result.law.state().items()})
        arrays["variance"] = result.points.variance
    if result.surface is not None:
        for name in result.surface.swept_:
            arrays[f"exponent_{name}"] = result.surface.task_exponent_[name]
            arrays[f"log_best_{name}"] = result.surface.log_best_[name]
            arrays[f"log_range_{name}"] = np.array(result.surface.log_range_[name])
        arrays["surface_tasks"] = np.array(result.surface.tasks_, dtype=str)
    cells = result.points.cells
    arrays["from_surface"] = np.array(result.points.from_surface)
    arrays["points_utd"] = cells["utd"].to_numpy(dtype=float)
    arrays["points_task"] = cells["task"].to_numpy(dtype=str)
    arrays["points_size"] = cells["model_size"].to_numpy(dtype=float)
    for name in result.names:
        slope, at_one = result.run_line(name)
        arrays[f"line_{name}"] = np.array([slope, *(at_one[t] for t in sorted(at_one))])
    arrays["line_tasks"] = np.array(sorted(cells["task"].unique()), dtype=str)
    if result.crossings is not None:
        arrays["seeds"] = np.array(float(result.crossings.cells_["seeds"].median()))
    np.savez_compressed(out / "samples.npz", **arrays)
    (out / "laws.json").write_text(json.dumps(laws, indent=1) + "\n")
    return laws


class SavedLaws:
    """A fit read back from its folder: enough to predict with intervals. Raises InputError where there is none."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        if not (folder / "laws.json").exists() or not (folder / "samples.npz").exists():
            raise InputError(f"laws={folder}: no laws.json and samples.npz there; run scripts/fit.py out=... first")
        self.json = json.loads((folder / "laws.json").read_text())
        with np.load(folder / "samples.npz", allow_pickle=False) as file:
            self.arrays = {k: file[k] for k in file.files}
        state = {k[4:]: v for k, v in self.arrays.items() if k.startswith("law_")}
        if not state:
            raise InputError(f"laws={folder}: that fit has no data law; see the notes in its laws.json")
        kinds = {"model_size": ModelSizeLaw, "pooled": PooledLaw, "sigma": DataLaw}
        self.law = kinds[str(state["kind"])].restore(state)
        cost = {k: float("nan") if v is None and k != "flops_per_sample" else v for k, v in self.json["cost"].items()}
        self.cost = CostModel(**cost)
        self.tasks = list(self.law.tasks_)

    @property
    def others(self) -> list[str]:
        """The hyperparameters beyond batch size and learning rate."""
        return list(self.json.get("hyperparameters", {}))

    def block(self, name: str) -> dict[str, Any] | None:
        """What laws.json says of a hyperparameter; None where it was not swept."""
        return self.json[name] if name in HYPERPARAMETERS else self.json["hyperparameters"][name]

    def best(self, name: str, utd: np.ndarray, task: str | None) -> np.ndarray:
        """(R, G) best value; the geometric mean of tasks if none is named.

        Where the sweep does not determine it: held within the grid if D was fitted at the best of it; else, or where
        there was no sweep, the line through the runs that the data law rests on.
        """
        count, block = len(self.law.log_scale_), self.block(name)
        if block is None or not (block["determined"] or self.arrays["from_surface"]):
            tasks, line = [str(t) for t in self.arrays["line_tasks"]], self.arrays[f"line_{name}"]
            at_one = line[1:].mean() if task not in tasks else line[1 + tasks.index(task)]
            return np.tile(np.exp(at_one + line[0] * np.log(utd)), (count, 1))
        tasks, at_one = [str(t) for t in self.arrays["surface_tasks"]], self.arrays[f"log_best_{name}"]
        exponents = self.arrays[f"exponent_{name}"]  # (R, tasks); (R,) of fits before tasks had slopes of their own
        exponents = np.broadcast_to(exponents.reshape(len(exponents), -1), at_one.shape)
        lines = at_one[:, :, None] - exponents[:, :, None] * np.log(utd)
        best = np.nanmean(lines, axis=1) if task not in tasks else lines[:, tasks.index(task)]
        return np.exp(best if block["determined"] else np.clip(best, *self.arrays[f"log_range_{name}"]))

    def levels(self, task: str | None) -> np.ndarray:
        """Numbers of the thresholds that the task (None: any) was seen to cross."""
        scales = np.isfinite(self.law.log_scale_[0])
        levels = np.flatnonzero(scales.any(axis=0) if task is None else scales[self.tasks.index(task)])
        if not len(levels):
            raise InputError(f"task={task!r} crosses none of the thresholds fitted: fit lower thresholds=")
        return levels

    def most(self, task: str | None) -> float:
        """The return, scaled, that has been seen and that the task can give: of the typical task what all reach."""
        highest, ceiling = self.json["range"].get("highest", {}), self.json["range"].get("ceiling")
        seen = highest.get(task, np.inf) if task is not None else min(highest.values(), default=np.inf)
        return min(seen, np.inf if ceiling is None else ceiling)

    def steps(self, utd: np.ndarray, target: float, task: str | None, model_size: float | None = None) -> np.ndarray:
        """(R, G) steps to a target between thresholds: ln D interpolated in J, extrapolated from the last two."""
        levels = self.levels(task)
        j = self.law.thresholds_[levels]
        more = {"model_size": model_size} if isinstance(self.law, ModelSizeLaw) else {}
        if len(j) == 1:
            return self.law.predict_samples(utd, levels[0], task, **more)
        at = int(np.clip(np.searchsorted(j, target), 1, len(j) - 1))
        low, high = (np.log(self.law.predict_samples(utd, levels[k], task, **more)) for k in (at - 1, at))
        share = (target - j[at - 1]) / (j[at] - j[at - 1])
        return np.exp(low + share * (high - low))


def tables_of(out: Path) -> dict[str, pd.DataFrame]:
    """The tidy tables that a fit wrote."""
    return {p.stem: pd.read_csv(p) for p in sorted((out / "tables").glob("*.csv"))}
