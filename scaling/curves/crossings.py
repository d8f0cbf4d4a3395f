"""From learning curves to D_J, the environment steps until the return first reaches J, as far as they tell.

`mean`: the mean over seeds reaches J; `median_seed`: the median seed does; `probability`: a stated share of seeds does.

A curve says between which two evaluations it crosses, no more. One that never does is censored on the right, at its
horizon; one that is above J at its first evaluation on the left: D lies somewhere below that, and is no number.

The isotonic regression g of a curve y need not be computed to know where it crosses J: the set {g >= J} is where the
partial sums of y - J have passed their minimum (threshold decomposition of isotonic regression, Robertson, Wright and
Dykstra 1988). That turns a bootstrap over seeds into matrix products: partial sums of a mean are means of partial sums.
"""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd

from scaling.curves.shares import KINDS, share_crossing
from scaling.curves.table import unit_of
from scaling.errors import InputError

SHORT_RUN = 0.95  # a seed that ends before this share of its cell's median length is left out, and said so
MAX_POINTS = 500  # of a curve; denser logs are averaged in pairs, triples, ...: far below the width of a crossing
WINDOW = 64  # logged points on either side that decide where between two logged steps a long curve crosses


def isotonic_crossing(steps: np.ndarray, sums: np.ndarray, threshold: float, interpolate: bool = True) -> np.ndarray:
    """Where the isotonic regression of each curve first reaches a threshold.

    steps: (T,) increasing environment steps. sums: (..., T) partial sums of the curves (cumsum over the last axis).
    interpolate: linearly between the two logged steps around the crossing, as scikit-learn's `predict` does; False
    gives the first logged step at or above the threshold. Returns (...) steps, +inf where the threshold is not reached.
    """
    count = steps.shape[0]
    flat = sums.reshape(-1, count)
    excess = np.empty((flat.shape[0], count + 1))  # partial sums of y - J with a leading zero
    excess[:, 0] = 0.0
    np.subtract(flat, threshold * np.arange(1, count + 1), out=excess[:, 1:])
    first = np.argmin(excess, axis=1)  # index of the first point whose isotonic value is >= J; `count` where none is
    out = np.append(steps, np.inf)[first]
    rows = np.flatnonzero((first > 0) & (first < count))
    if interpolate and len(rows):
        at, base = first[rows], excess[rows, first[rows]]
        reach = np.arange(1, min(count, WINDOW) + 1)

        def means(gap: np.ndarray) -> np.ndarray:
            """Mean of y - J between the crossing and the points `gap` away; nan beyond the curve's ends."""
            index = at[:, None] + gap
            inside = (index >= 0) & (index <= count)
            values = excess[rows[:, None], np.where(inside, index, 0)]
            return np.where(inside, (values - base[:, None]) / gap, np.nan)

        above = np.nanmin(means(reach), axis=1)  # isotonic value - J just after the crossing, >= 0
        below = np.nanmax(means(-reach), axis=1)  # ... and just before it, < 0
        share = np.clip(-below / np.maximum(above - below, 1e-300), 0.0, 1.0)
        out[rows] = steps[at - 1] + share * (steps[at] - steps[at - 1])
    return out.reshape(sums.shape[:-1])


def within_gap(steps: np.ndarray, crossings: np.ndarray, quantile: np.ndarray) -> np.ndarray:
    """Crossings moved to where else they may lie between the evaluations around them.

    steps: (T,) evaluations. crossings: (R, K) from `isotonic_crossing`. quantile: (R,) in [0, 1) of a triangular
    distribution over the gap with its mode at the interpolated crossing; all thresholds of a row share it, so that the
    order of their crossings stays. What lies outside the evaluations is left alone.
    """
    at = np.searchsorted(steps, crossings)
    inside = (at > 0) & (at < len(steps))
    low, high = steps[np.where(inside, at, 1) - 1], steps[np.where(inside, at, min(1, len(steps) - 1))]
    mode = np.where(inside, (crossings - low) / np.where(inside, high - low, 1.0), 0.5)
    u = quantile[:, None]
    share = np.where(u < mode, np.sqrt(u * mode), 1 - np.sqrt((1 - u) * (1 - mode)))
    return np.where(inside, low + share * (high - low), crossings)


def drop_recovery(steps: np.ndarray, returns: np.ndarray, reset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leave out what follows a marked network reset until the return is back where it was just before.

    reset: (T,) true on the first row logged after a reset. A reset costs return for a while by design: read as data,
    the dip would say that the run unlearned.
    """
    keep = np.ones(len(steps), dtype=bool)
    before = None
    for index in range(len(steps)):
        if reset[index] and index:
            before = returns[index - 1] if before is None else max(before, returns[index - 1])
        if before is not None:
            if returns[index] >= before:
                before = None
            else:
                keep[index] = False
    return steps[keep], returns[keep]


def seed_runs(cell: pd.DataFrame) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[str]]:
    """One cell's runs: (T,) steps and returns of each seed, and their names."""
    has_reset = "reset" in cell
    unit = unit_of(cell)
    word = "run" if unit == "unit" else unit
    columns = [unit, "env_steps", "episode_return"] + (["reset"] if has_reset else [])
    data = cell[columns].sort_values([unit, "env_steps"], kind="stable")
    seed_ids, starts = np.unique(data[unit].to_numpy(), return_index=True)
    all_steps = data["env_steps"].to_numpy(dtype=float)
    all_returns = data["episode_return"].to_numpy(dtype=float)
    ends = np.append(starts[1:], len(data))
    runs = [(all_steps[i:j], all_returns[i:j]) for i, j in zip(starts, ends)]
    if has_reset:
        marks = data["reset"].to_numpy(dtype=bool)
        runs = [drop_recovery(*run, marks[i:j]) for run, i, j in zip(runs, starts, ends)]
    return runs, [f"{word} {seed}" for seed in seed_ids]


def typical_length(runs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The (lower) median of the runs' last steps."""
    lengths = np.sort([run[0][-1] for run in runs])
    return float(lengths[(len(lengths) - 1) // 2])


def thin(steps: np.ndarray, returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T,) steps and (..., T) returns, averaged in pairs, triples, ... down to MAX_POINTS."""
    stride = -(-len(steps) // MAX_POINTS)
    if stride == 1:
        return steps, returns
    whole = len(steps) // stride * stride
    blocks = returns[..., :whole].reshape(*returns.shape[:-1], -1, stride)
    return steps[:whole].reshape(-1, stride).mean(axis=1), blocks.mean(axis=-1)


def seed_matrix(cell: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """One cell's curves on a common grid of steps: (T,) steps, (seeds, T) returns, and what was left out.

    The grid follows the density of the logs and ends where the shortest kept seed ends.
    """
    runs, names = seed_runs(cell)
    typical = typical_length(runs)
    kept = [run for run in runs if run[0][-1] >= SHORT_RUN * typical]
    notes = [
        f"{name} ends at {run[0][-1]:.3g} of {typical:.3g} steps: left out"
        for name, run in zip(names, runs)
        if run[0][-1] < SHORT_RUN * typical
    ]
    first = kept[0][0]
    if all(len(run[0]) == len(first) and np.array_equal(run[0], first) for run in kept):
        steps, returns = first, np.stack([run[1] for run in kept])
    else:
        pooled = np.sort(np.concatenate([run[0] for run in kept]))
        low, high = max(run[0][0] for run in kept), min(run[0][-1] for run in kept)
        steps = np.unique(np.append(pooled[(pooled >= low) & (pooled <= high)][:: len(kept)], high))
        returns = np.stack([np.interp(steps, *run) for run in kept])
    return (*thin(steps, returns), notes)


def resampling_weights(seeds: int, samples: int, rng: np.random.Generator) -> np.ndarray:
    """(samples + 1, seeds) weights of a seed mean: row 0 the plain mean, the others bootstrap draws.

    Each draw takes seeds - 1 of the seeds with replacement (Rao and Wu 1988): the plain bootstrap's variance is too
    small by (seeds - 1) / seeds, 25 % at four seeds. A single seed cannot be resampled: all rows are the plain mean.
    """
    weights = np.full((samples + 1, seeds), 1.0 / seeds)
    if seeds > 1 and samples:
        draws = rng.integers(0, seeds, size=(samples, seeds - 1))
        counts = (draws[:, :, None] == np.arange(seeds)).sum(axis=1)
        weights[1:] = counts / (seeds - 1)
    return weights


class Crossings:
    """D_J of every cell and threshold, with bootstrap samples over seeds.

    `fit(curves, thresholds)`: curves in long format (DESIGN contract 7) with `cell_columns`; thresholds (K,) on the
    scale of `episode_return`. kind: one of KINDS; `probability` takes the share of seeds that must be there. By seed,
    runs of any length count for as long as they ran; the mean leaves short ones out. Fitted:
    cells_ (C rows: the cell's columns, `seeds`, `horizon`, and `first`, its first evaluation),
    steps_ (samples + 1, C, K) with +inf where never reached and 0 where reached before `first`; row 0: all seeds,
    interpolated; the others: seeds drawn anew, and the crossing drawn within its gap between two evaluations,
    table_ (tidy: one row per cell and threshold, D in (after, by]), notes_ (what was left out), and by seed
    seed_steps_ [(seeds, K) of each cell] and seed_ends_ [(seeds,) where each run ends].
    """

    def __init__(self, cell_columns: list[str], samples: int = 0, seed: int = 0, interpolate: bool = True,
                 kind: str = "mean", probability: float = 0.5) -> None:  # fmt: skip
        if kind not in KINDS:
            raise InputError(f"crossing={kind!r}: use {', '.join(KINDS)}")
        self.cell_columns = list(cell_columns)
        self.samples = samples
        self.seed = seed
        self.interpolate = interpolate
        self.kind = kind
        if not 0 < probability <= 1:
            raise InputError(f"probability={probability}: the share of seeds that must be there, above 0 and up to 1")
        self.probability = 0.5 if kind == "median_seed" else probability

    def fit(self, curves: pd.DataFrame, thresholds: np.ndarray) -> Crossings:
        self.thresholds_ = np.atleast_1d(np.asarray(thresholds, dtype=float))
        rng = np.random.default_rng(self.seed)
        rows, blocks, self.notes_, self.curves_, self.seed_steps_, self.seed_ends_ = [], [], [], [], [], []
        for key, cell in curves.groupby(self.cell_columns, sort=True, dropna=False):
            steps, returns, notes = seed_matrix(cell)
            if self.kind == "mean":
                seeds, horizon = len(returns), steps[-1]
                crossed = self._of_mean(steps, returns, resampling_weights(seeds, self.samples, rng))
            else:
                runs, notes = [thin(*run) for run in seed_runs(cell)[0]], []
                seeds, horizon = len(runs), typical_length(runs)
                crossed = self._of_seeds(runs, resampling_weights(seeds, self.samples, rng))
            crossed[1:] = within_gap(steps, crossed[1:], rng.random(self.samples))
            blocks.append(np.where(crossed <= steps[0], 0.0, crossed))
            rows.append((*key, seeds, horizon, steps[steps > 0][0] if (steps > 0).any() else np.nan))
            self.curves_.append((steps, returns))
            name = ", ".join(f"{c}={v}" for c, v in zip(self.cell_columns, key) if pd.notna(v))
            self.notes_ += [f"{name}: {note}" for note in notes]
        self.cells_ = pd.DataFrame(rows, columns=[*self.cell_columns, "seeds", "horizon", "first"])
        self.steps_ = np.stack(blocks, axis=1)
        self.table_ = self._tidy()
        return self

    def _of_mean(self, steps: np.ndarray, returns: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """(R, K) crossings of the weighted means."""
        sums = weights @ np.cumsum(returns, axis=1)
        return np.stack([isotonic_crossing(steps, sums, j, self.interpolate) for j in self.thresholds_], axis=-1)

    def _of_seeds(self, runs: list, weights: np.ndarray) -> np.ndarray:
        """(R, K) steps until the share of seeds is there."""
        each = np.array([[isotonic_crossing(steps, np.cumsum(returns)[None], j, self.interpolate)[0]
                          for j in self.thresholds_] for steps, returns in runs])  # fmt: skip
        starts, ends = (np.array([run[0][at] for run in runs]) for at in (0, -1))
        each = np.where(each <= starts[:, None], 0.0, each)
        self.seed_steps_.append(each)
        self.seed_ends_.append(ends)
        return share_crossing(each, ends, weights, self.probability, middle=self.kind == "median_seed")

    def subset(self, keep: np.ndarray, levels: np.ndarray | None = None) -> Crossings:
        """The cells where `keep` (C,) holds, at all thresholds or at those numbered `levels`."""
        out = copy.copy(self)
        out.cells_ = self.cells_[keep].reset_index(drop=True)
        out.steps_ = self.steps_[:, keep]
        for name in ("curves_", "seed_steps_", "seed_ends_"):  # the last two are empty where the mean is what crosses
            setattr(out, name, [of_cell for of_cell, kept in zip(getattr(self, name), keep) if kept])
        if levels is not None:
            out.steps_, out.thresholds_ = out.steps_[:, :, levels], self.thresholds_[levels]
            out.seed_steps_ = [steps[:, levels] for steps in out.seed_steps_]
        out.table_ = out._tidy()
        return out

    def highest(self) -> dict[str, float]:
        """{task: the best return seen}: the level that its best cell ends at, by isotonic regression.

        Of the mean over seeds, or the level that the share of seeds reaches.
        """
        best: dict[str, float] = {}
        for task, (_, returns) in zip(self.cells_["task"], self.curves_):
            ended = (returns.mean(axis=0, keepdims=True) if self.kind == "mean" else returns)[:, ::-1]
            levels = (np.cumsum(ended, axis=1) / np.arange(1, ended.shape[1] + 1)).max(axis=1)
            level = float(np.sort(levels)[len(levels) - int(np.ceil(self.probability * len(levels) - 1e-9))])
            best[task] = max(level, best.get(task, -np.inf))
        return best

    def _tidy(self) -> pd.DataFrame:
        cells, levels = self.steps_.shape[1:]
        table = self.cells_.loc[np.repeat(np.arange(cells), levels)].reset_index(drop=True)
        table["threshold"] = np.tile(self.thresholds_, cells)
        point = self.steps_[0].ravel()
        table["censored"], table["left_censored"] = np.isinf(point), point == 0
        bound = np.where(table["censored"], table["horizon"], table["first"])
        table["env_steps"] = np.where(table["censored"] | table["left_censored"], bound, point)
        grids = [steps for steps, _ in self.curves_]
        gaps = [_gap(grids[c], value) for c, row in enumerate(self.steps_[0]) for value in row]
        table["after"], table["by"] = np.array(gaps).T
        if self.samples:
            low, high = np.quantile(self.steps_[1:], [0.05, 0.95], axis=0, method="nearest")
            low, high = np.minimum(low, self.steps_[0]), np.maximum(high, self.steps_[0])
            high = np.where(high == 0, self.cells_["first"].to_numpy()[:, None], high)
            table["low"], table["high"] = low.ravel(), high.ravel()
        return table


def _gap(steps: np.ndarray, crossing: float) -> tuple[float, float]:
    """The evaluations that a crossing lies between: (0, first] before them all, (last, inf) beyond."""
    at = int(np.searchsorted(steps, crossing))
    return (float(steps[at - 1]) if at else 0.0), (float(steps[at]) if at < len(steps) else np.inf)
