"""Which of the chain's choices predicts best on public sweeps, ratios held out: `python -m scaling.study.choices`.

    python -m scaling.study.choices compare=crossing data=<folder>   the three kinds of crossing
    python -m scaling.study.choices compare=pooling data=<folder>    tasks apart, together, and what others tell
    python -m scaling.study.choices compare=prior data=<folder>      what others tell, chosen with the task left out
    python -m scaling.study.choices compare=slopes data=<folder>     B* and eta* against the ratio, task by task
    python -m scaling.study.choices compare=resets data=<folder>     a data law that knows a reset interval, or not
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from scaling.cli import main, option
from scaling.curves.crossings import Crossings
from scaling.curves.shares import KINDS
from scaling.curves.table import CELL
from scaling.curves.thresholds import choose_thresholds
from scaling.errors import InputError
from scaling.laws import hyperparameters, pooled
from scaling.laws.chain import DataPoints
from scaling.laws.data_law import DataLaw
from scaling.laws.resets import ResetLaw
from scaling.report.terminal import table
from scaling.study.public import Law, Sweep, all_points, data_law, gym_curves, run_all, run_together, score, sweeps

INTERVALS = [0.4e6, 0.8e6, 1.2e6, 1.6e6]  # SimBa's is not in its repository; its curves dip after about these
VARIANCE = 0.02  # of ln D from seeds, all points alike
BRO_INTERVAL = 2.5e6
# thousands of env steps to 800, 600, 600, 300 at ratios 1, 2, 5, 10, 15 (inf: not within a million)
BRO = {"humanoid-stand": (850, 600, 475, 425, 375), "humanoid-walk": (1000, 875, 600, 450, 475),
       "dog-trot": (np.inf, 775, 675, 625, 575), "hopper-hop": (500, 525, 250, 175, 250)}  # fmt: skip
PRIORS = ((-0.5, 2.0), (-0.75, 2.5), (-1.0, 2.0), (-1.0, 3.0), (0.0, 2.5), (-0.75, 8.0))
SLOPES = {"one slope": (1e6,), "as far as they tell": tuple(hyperparameters.RIDGES), "each its own": (1e-4,)}
SHARP = 0.12  # sd of ln D from seeds
ROW = ["source", "task", "train", "utd", "threshold"]


@dataclass
class Options:
    """The keys of the comparison."""

    compare: str = option("crossing", "what to compare: crossing, pooling, prior, resets or slopes")
    data: str | None = option(None, "folder of the public sweeps")
    samples: int = option(0, "bootstrap samples over seeds, for the coverage; 0: none, 100 for pooling", int)


def show(results: dict[str, pd.DataFrame], title: str) -> None:
    """A line per choice: over all predictions, and over each source's."""
    rows = []
    for name, found in results.items():
        total = score(found)
        each = [f"{score(rows)['error']:.1%}" for _, rows in found.groupby("source")]
        covered = f"{total['covered']:.0%}" if np.isfinite(found["low"]).any() else "-"
        rows.append([name, f"{total['tasks']:.0f}", f"{total['error']:.1%}", f"{total['median']:.1%}", covered, *each])
    sources = sorted(set().union(*(set(found["source"]) for found in results.values())))
    print(f"{title}\n{table(['', 'tasks', 'error', 'median', '90% covers', *sources], rows)}\n")


def common(results: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The predictions that all choices have made."""
    keys = [set(map(tuple, found[ROW].to_numpy())) for found in results.values()]
    shared = set.intersection(*keys)
    return {name: found[[tuple(row) in shared for row in found[ROW].to_numpy()]] for name, found in results.items()}


def crossing(data: list[Sweep], samples: int) -> dict[str, pd.DataFrame]:
    """The kinds of crossing, each predicting itself: everywhere, where all are seen, and at the highest return."""
    results = {kind: run_all(all_points(data, samples, kind)) for kind in KINDS}
    show(results, "each where it is seen")
    results = common(results)
    show(results, "where all three are seen")
    top = {name: found[found["threshold"] == found.groupby(["source", "task"])["threshold"].transform("max")]
           for name, found in results.items()}  # fmt: skip
    show(top, "of these, the highest return of each task")
    return results


def resets(data: list[Sweep], samples: int) -> dict[str, pd.DataFrame]:
    """The law that knows a reset interval against the law that does not, each ratio left out of all tasks in turn."""
    rows: list[list[str]] = []
    reset = [sweep for sweep in data if sweep.source == "simba_reset"]
    for name, (cells, values), intervals in (("SimBa", _pooled(reset), INTERVALS), ("BRO", _bro(), [BRO_INTERVAL])):
        for left_out in np.sort(cells["utd"].unique()):
            errors = [f"{_left_out(law, cells, values, left_out):.1%}"
                      for law in (DataLaw(), *map(ResetLaw, intervals))]  # fmt: skip
            rows.append([name, f"{left_out:g}", *errors, *["-"] * (len(INTERVALS) - len(intervals))])
        used = ", ".join(f"{interval:.2g}" for interval in intervals)
        print(f"{name}: the law without resets, then with one every {used} updates")
    print(f"\nmean relative error of D\n{table(['', 'ratio left out', 'without', *['with'] * len(INTERVALS)], rows)}")
    return {}


def _pooled(data: list[Sweep]) -> tuple[pd.DataFrame, np.ndarray]:
    """Cells of all tasks and (1, n, K) ln D at each task's own levels."""
    cells, values = [], []
    for sweep in data:
        found = Crossings(CELL).fit(sweep.curves, choose_thresholds(sweep.curves, CELL))
        cells.append(found.cells_.assign(horizon=found.cells_["horizon"] / 2, first=found.cells_["first"] / 2))
        with np.errstate(divide="ignore"):
            values.append(np.log(found.steps_[0] / 2))  # frames to decisions, which is what its ratios count
    return pd.concat(cells, ignore_index=True), np.concatenate(values)[None]


def _bro() -> tuple[pd.DataFrame, np.ndarray]:
    """BRO's ablation runs of medium size, whose resets come every 2.5M updates: as `_pooled`."""
    rows = [(task, float(utd), k * 1e3, 1e6, 25e3)
            for task, steps in BRO.items() for utd, k in zip((1, 2, 5, 10, 15), steps)]  # fmt: skip
    cells = pd.DataFrame(rows, columns=["task", "utd", "steps", "horizon", "first"])
    return cells, np.log(cells["steps"].to_numpy(dtype=float))[None, :, None]


def _left_out(law: DataLaw | ResetLaw, cells: pd.DataFrame, values: np.ndarray, utd: float) -> float:
    """Mean relative error at a ratio that the law was fitted without, each task counting once."""
    keep = cells["utd"].to_numpy() != utd
    levels = np.arange(values.shape[2], dtype=float)
    variance = np.full(values[0, keep].shape, VARIANCE)
    law.fit_samples(cells[keep].reset_index(drop=True), values[:, keep], variance, levels)
    errors: dict[str, list[float]] = {}
    for index in np.flatnonzero(~keep):
        task = cells["task"][index]
        for level in np.flatnonzero(np.isfinite(values[0, index])):
            predicted = law.predict_samples(utd, level, task)[0, 0]
            if np.isfinite(predicted):
                errors.setdefault(task, []).append(abs(predicted / np.exp(values[0, index, level]) - 1))
    return float(np.mean([np.mean(each) for each in errors.values()]))


def pooling(data: list[Sweep], samples: int) -> dict[str, pd.DataFrame]:
    """One shape for all tasks or as much of one as they share; with and without what public sweeps tell."""
    points = all_points(data, samples or 100)
    ways = {"full": ("full", 1.0), "partial": ("partial", 1.0), "partial, prior=0": ("partial", 0.0)}
    results = {}
    for name, (kind, prior) in ways.items():

        def fit(found: DataPoints, kind: str = kind, prior: float = prior) -> Law:
            return data_law(dataclasses.replace(found, pooling=kind, prior=prior))

        results[name] = run_all(points, fit)
    show(results, "each task alone")
    show({name: found[found["sd"] < SHARP] for name, found in results.items()},
         f"of these, observations that their seeds know to {SHARP:.0%}")  # fmt: skip
    noise = np.abs(np.expm1(results["full"]["sd"] * np.random.default_rng(0).standard_normal(len(results["full"]))))
    floor = noise.groupby([results["full"]["source"], results["full"]["task"]]).mean().mean()
    print(f"a perfect prediction would show {floor:.1%}: the observations' own noise\n")
    show({name: run_together(points, *way) for name, way in ways.items()}, "all tasks of a source together")
    return results


def prior(data: list[Sweep], samples: int) -> dict[str, pd.DataFrame]:
    """The prior's place and width, each task alone; and the one that the other tasks would have chosen for it."""
    points, results, kept = all_points(data, samples or 100), {}, (pooled.PRIOR, pooled.PRIOR_SD)
    for mean, sd in PRIORS:
        pooled.PRIOR, pooled.PRIOR_SD = np.array([0.0, mean]), np.array([kept[1][0], sd])
        results[f"logit w: {mean:g}, sd {sd:g}"] = run_all(points)
    pooled.PRIOR, pooled.PRIOR_SD = kept
    errors = {name: np.expm1(found["predicted"] - found["observed"]).abs().groupby(found["task"]).mean()
              for name, found in results.items()}  # fmt: skip
    chosen = [min(errors, key=lambda name, task=task: errors[name].drop(task).mean())
              for task in next(iter(errors.values())).index]  # fmt: skip
    tasks = dict(zip(next(iter(errors.values())).index, chosen))
    left_out = pd.concat([results[name][results[name]["task"] == task] for task, name in tasks.items()])
    show({**results, "chosen by the other tasks": left_out}, "each task alone")
    return results


def slopes(data: list[Sweep], samples: int, folder: str) -> dict[str, pd.DataFrame]:
    """How B* and eta* move with the ratio: how well a surface without one ratio tells its cells' D from each other."""
    table_ = gym_curves(Path(folder))
    rows = []
    for threshold in (500.0, 600.0, 700.0, 800.0):
        crossings = Crossings(CELL).fit(table_[table_["set"] == "gym_sweep"], [threshold])
        cells, values = crossings.cells_, np.log(crossings.steps_[0, :, 0])
        rows.append([f"{threshold:g}", *(f"{_rms(cells, values, ridges):.3f}" for ridges in SLOPES.values())])
    print(f"rms of ln D within a held-out ratio of a task\n{table(['J', *SLOPES], rows)}")
    return {}


def _rms(cells: pd.DataFrame, values: np.ndarray, ridges: tuple[float, ...]) -> float:
    """Every ratio left out in turn: its cells' ln D about their mean, observed less predicted."""
    squares, count, kept = 0.0, 0, hyperparameters.RIDGES
    for left_out in cells["utd"].unique():
        train = (cells["utd"] != left_out).to_numpy()
        hyperparameters.RIDGES = np.array(ridges)
        surface = hyperparameters.ResponseSurface().fit_samples(cells[train], values[None, train])
        for task, group in cells[~train].groupby("task"):
            best = [np.log(surface.best_samples(name, task, left_out)[0, 0]) for name in surface.swept_]
            z = np.log(group[surface.swept_].to_numpy(dtype=float)) - best
            gap = values[group.index] - 0.5 * np.einsum("ni,ij,nj->n", z, surface.hessian_[0], z)
            gap = gap[np.isfinite(gap)]
            squares, count = squares + ((gap - gap.mean()) ** 2).sum(), count + len(gap) - 1
    hyperparameters.RIDGES = kept
    return float(np.sqrt(squares / count))


COMPARISONS = {"crossing": crossing, "pooling": pooling, "prior": prior, "resets": resets, "slopes": slopes}


def run(options: Options) -> dict[str, pd.DataFrame]:
    """The comparison asked for, printed."""
    if options.data is None:
        raise InputError("give data=<folder of the public sweeps>; docs/results/scaling/README.md says whose they are")
    if options.compare not in COMPARISONS:
        raise InputError(f"compare={options.compare!r}: use {', '.join(COMPARISONS)}")
    more = (options.data,) if options.compare == "slopes" else ()
    return COMPARISONS[options.compare](sweeps(options.data), options.samples, *more)


if __name__ == "__main__":
    sys.exit(main(Options, "python -m scaling.study.choices", __doc__, run))
