"""The figures of a report, one function each: Result in, matplotlib figure out (None: nothing to show)."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Sequence

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from scaling.laws.data_law import DataLaw
from scaling.laws.frontier import search_range
from scaling.laws.uncertainty import LEVEL, bands
from scaling.report.result import Result

STYLE = {
    "figure.dpi": 110, "savefig.dpi": 130, "font.size": 9, "axes.grid": True, "grid.alpha": 0.25,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "axes.titlesize": 10,
}  # fmt: skip
BAND = f"{LEVEL:.0%} interval"


def _colours(count: int) -> np.ndarray:
    return plt.get_cmap("viridis")(np.linspace(0.0, 0.88, max(count, 2)))[:count]


def _ratio(value: float) -> str:
    """A ratio as people write it: 4, 1/4, 1/512; a fraction below one is never mixed with its decimal."""
    inverse = 1 / value
    if value < 1 and abs(inverse - round(inverse)) < 0.005 * inverse:
        return f"1/{inverse:.0f}"
    return f"{value:.3g}"


def _ratios(values: Sequence[float]) -> list[str]:
    """Labels of one axis: all fractions below one as 1/n, or all as decimals where one of them is none."""
    labels = [_ratio(v) for v in values]
    mixed = any(v < 1 and not label.startswith("1/") for v, label in zip(values, labels))
    return [f"{v:.3g}" for v in values] if mixed else labels


def ticks(low: float, high: float, most: int = 5) -> tuple[np.ndarray, list[str]]:
    """Where a logarithmic axis from `low` to `high` has its labels, and labels that differ from each other.

    1, 2 and 5 of each decade where that gives three or more, else evenly spaced round numbers.
    """
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5)):
        at = np.array(sorted(d * s for d in decades for s in steps))
        at = at[(at >= low) & (at <= high)]
        if len(at) >= 3:
            break
    else:
        at = MaxNLocator(most - 1).tick_values(low, high)
        at = at[(at >= low) & (at <= high) & (at > 0)]
    at = at[:: -(-len(at) // most)] if len(at) else np.array([low])
    for digits in range(1, 16):
        labels = [f"{v:.{digits}g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-") for v in at]
        if all(abs(float(label) / v - 1) < 1e-9 for label, v in zip(labels, at)):
            break
    return at, labels


def _sigma_axis(axis, utds: np.ndarray) -> None:
    axis.set_xscale("log")
    axis.set_xticks(utds, _ratios(utds))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("σ: updates per transition")


def _band(axis, x, samples: np.ndarray, colour, label: str | None = None) -> None:
    if len(samples) > 20:
        low, high = bands(samples)
        axis.fill_between(x, low, high, color=colour, alpha=0.15, lw=0)
    axis.plot(x, samples[0], color=colour, label=label)


def _shown(thresholds: np.ndarray, most: int = 4) -> list[int]:
    return sorted({round(i) for i in np.linspace(0, len(thresholds) - 1, min(most, len(thresholds)))})


def curves(result: Result) -> Figure | None:
    """Seed-mean curves of the fastest cell at each (task, sigma), with the thresholds and where they are crossed."""
    crossings = result.crossings
    if crossings is None:
        return None
    cells, tasks = crossings.cells_, sorted(crossings.cells_["task"].unique())
    columns = min(4, len(tasks))
    lines = -(-len(tasks) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(3.3 * columns, 2.8 * lines), squeeze=False, sharey=True)
    for axis in axes.flat[len(tasks):]:
        axis.set_visible(False)
    top = crossings.steps_[0, :, -1]
    for axis, task in zip(axes.flat, tasks):
        utds = sorted(cells.loc[cells["task"] == task, "utd"].unique())
        for utd, colour in zip(utds, _colours(len(utds))):
            here = np.flatnonzero((cells["task"] == task) & (cells["utd"] == utd))
            best = here[np.lexsort((-crossings.steps_[0, here].sum(axis=1), top[here]))[0]] if len(here) else None
            steps, returns = crossings.curves_[best] if len(crossings.curves_) == len(cells) else (None, None)
            if steps is None:
                continue
            axis.plot(steps, returns.mean(axis=0), color=colour, lw=0.8, alpha=0.8, label=_ratio(utd))
            reached = np.isfinite(crossings.steps_[0, best]) & (crossings.steps_[0, best] > 0)
            axis.plot(crossings.steps_[0, best][reached], result.thresholds[reached], "o", color=colour, ms=3)
        longest = cells.loc[cells["task"] == task, "horizon"].max()
        axis.set(xscale="log", xlim=(longest / 300, longest * 1.05), title=task, xlabel="environment steps")
        axis.legend(title="σ", fontsize=6, title_fontsize=6, loc="upper left")
    for axis in axes[:, 0]:
        axis.set_ylabel("mean return")
    return figure


def hyperparameters(result: Result) -> Figure | None:
    """B*(sigma) and eta*(sigma): intervals, the ranges that were swept, and the published estimator."""
    surface = result.surface
    if surface is None or not surface.swept_:
        return None
    names, tasks = surface.swept_, surface.tasks_
    figure, axes = plt.subplots(len(names), len(tasks), figsize=(2.9 * len(tasks) + 0.6, 2.6 * len(names)),
                                squeeze=False, sharex=True, sharey="row")  # fmt: skip
    utds = np.sort(surface.groups_["utd"].unique())
    grid = np.geomspace(utds.min() / 1.5, utds.max() * 1.5, 60)
    theirs = result.published.get("hyperparameters")
    for row, name in zip(axes, names):
        for axis, task in zip(row, tasks):
            _band(axis, grid, surface.best_samples(name, task, grid), "tab:blue", "response surface")
            edge = surface.edge_[(surface.edge_["hyperparameter"] == name) & (surface.edge_["task"] == task)]
            axis.vlines(edge["utd"], edge["lowest"], edge["highest"], color="0.75", lw=5, label="swept", zorder=0)
            at = edge[edge["at_edge"]]
            axis.plot(at["utd"], at["best"], "x", color="tab:red", label="outside the sweep")
            if theirs is not None and task in theirs.intercept_[name]:
                value = theirs.intercept_[name][task] * grid ** -theirs.exponent_[name]
                axis.plot(grid, value, "--", color="tab:orange", lw=1, label="published")
            axis.set_yscale("log")
            _sigma_axis(axis, utds)
        swept = surface.edge_[surface.edge_["hyperparameter"] == name]
        row[0].set_ylim(swept["lowest"].min() / 4, swept["highest"].max() * 4)
        known = {"batch_size": "B*: batch size", "learning_rate": "η*: learning rate"}
        row[0].set_ylabel(known.get(name, f"best {name}"))
    for axis, task in zip(axes[0], tasks):
        axis.set_title(task)
    for row in axes[:-1]:
        for axis in row:
            axis.set_xlabel("")
    axes[0, 0].legend(fontsize=7)
    return figure


def data_law(result: Result) -> Figure | None:
    """D_J(sigma) of the typical task with its interval; points are the tasks, divided by their own scale."""
    law = result.law
    if law is None:
        return None
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.8))
    cells, grid = result.points.cells, np.exp(search_range(result.utds, 2.0))
    sized = not isinstance(law, DataLaw)
    axis = axes[0]
    markers = dict(zip(law.tasks_, "osD^vPX*<>hp" * 5))
    shown = _shown(result.thresholds)
    for level, colour in zip(shown, _colours(len(shown))):
        _band(axis, grid, law.predict_samples(grid, level), colour, f"J = {result.thresholds[level]:.4g}")
        for task in law.tasks_:
            here = (cells["task"] == task).to_numpy()
            factor = np.exp(np.nanmean(law.log_scale_[0, :, level]) - law.log_scale_[0, law.tasks_.index(task), level])
            values = np.exp(result.points.values[0, here, level]) * factor  # 0: reached before the first evaluation
            if sized:
                values = values * _size_factor(law, cells[here], level)
            axis.plot(cells.loc[here, "utd"], values, markers[task], color=colour, ms=3.5, mec="white", mew=0.3)
            for lost, bound, mark in ((np.isinf(values), "horizon", "^"), (values == 0, "first", "v")):
                axis.plot(cells.loc[here, "utd"][lost], cells.loc[here, bound][lost] * factor, mark, mfc="none",
                          color=colour, ms=6)  # fmt: skip
    axis.set_yscale("log")
    axis.set_ylabel("D: steps until J, typical task")
    _sigma_axis(axis, result.utds)
    axis.legend(fontsize=7, title="open triangle: not reached by then (up), before then (down)", title_fontsize=6)
    axis = axes[1]
    residuals = getattr(law, "residuals_", None)
    if residuals is not None:
        for level, colour in zip(shown, _colours(len(shown))):
            jitter = np.exp(0.03 * (level - np.mean(shown)))
            for task in law.tasks_:
                here = (cells["task"] == task).to_numpy()
                axis.plot(cells.loc[here, "utd"] * jitter, residuals[0, here, level], markers[task], color=colour, ms=4,
                          label=task if level == shown[-1] else None)  # fmt: skip
        axis.legend(fontsize=6)
    axis.axhline(0, color="0.4", lw=0.8)
    axis.set_ylabel("residual of ln D")
    _sigma_axis(axis, result.utds)
    return figure


def _size_factor(law, cells, level: int) -> np.ndarray:
    """What brings D at each cell's model size to the reference size, by the law itself."""
    at = np.array([law.predict_samples(u, level, None, n)[0, 0] for u, n in zip(cells["utd"], cells["model_size"])])
    return np.array([law.predict_samples(u, level)[0, 0] for u in cells["utd"]]) / at


def frontier(result: Result) -> Figure | None:
    """Compute against data at equal return, the cheapest point on each line, and sigma*(F), per currency."""
    if not result.frontiers:
        return None
    count = len(result.frontiers)
    figure, axes = plt.subplots(count, 2, figsize=(9.5, 3.7 * count), squeeze=False)
    grid = np.exp(search_range(result.utds, 1.5))
    batch = result.batch_samples(grid)
    for (left, right), (currency, found) in zip(axes, result.frontiers.items()):
        cost = type(result.cost)(**{**result.cost.__dict__, "currency": currency})
        colours = _colours(len(result.thresholds))
        for level, colour in enumerate(colours):
            data = result.data_samples(grid, level)[0]
            label = f"J = {result.thresholds[level]:.4g}" if level in _shown(result.thresholds) else None
            left.plot(data * cost.updates(grid, batch[0]), data, color=colour, label=label)
            left.plot(np.exp(found.log_compute_[0, level]), np.exp(found.log_data_[0, level]), "o", color=colour, ms=5,
                      mec="black", mew=0.5)  # fmt: skip
            budget, utd = np.exp(found.log_budget_[0, level]), np.exp(found.log_utd_[:, level])
            if len(utd) > 20:
                low, high = bands(utd)
                right.vlines(budget, low, high, color=colour, lw=1.5, alpha=0.6)
            held = level in found.held_out_
            right.plot(budget, utd[0], "D" if held else "o", color=colour, mfc="white" if held else colour)
        x = np.exp(np.linspace(found.log_budget_[0].min() - 0.1, found.log_budget_[0].max() + 0.1, 40))
        law = np.exp(found.log_scale_[:, None] + found.exponent_[:, None] * np.log(x)[None])
        right.plot(x, law[0], "--", color="0.3", lw=1, label=f"σ* ~ F^{found.exponent_[0]:.2f}; open: left out")
        unit = {"flops": "FLOPs", "seconds": "seconds"}[currency]
        left.set(xscale="log", yscale="log", xlabel=f"C: {unit} of updates until J", ylabel="D: steps until J")
        right.set(xscale="log", yscale="log", xlabel=f"F: budget until J, {unit}", ylabel="σ*: cheapest ratio")
        powers = [u for u in 2.0 ** np.arange(-20, 12) if right.get_ylim()[0] <= u <= right.get_ylim()[1]]
        powers = powers[:: max(1, len(powers) // 6)]
        if len(powers) >= 2:
            right.set_yticks(powers, _ratios(powers))
        else:  # within a factor of two
            right.set_yticks(*ticks(*right.get_ylim()))
        right.yaxis.set_minor_formatter(NullFormatter())
        for axis in (left, right):
            axis.set_xticks(*ticks(*axis.get_xlim()))
            axis.xaxis.set_minor_formatter(NullFormatter())
        left.set_yticks(*ticks(*left.get_ylim()))
        left.yaxis.set_minor_formatter(NullFormatter())
        left.legend(fontsize=7, title="dot: least F", title_fontsize=7)
        right.legend(fontsize=7, loc="lower right")
    return figure


def delta(result: Result) -> Figure | None:
    """How sigma* moves with what one transition is worth."""
    table = result.sensitivity
    if table.empty:
        return None
    figure, axis = plt.subplots(figsize=(5.4, 3.7))
    shown = [result.thresholds[i] for i in _shown(result.thresholds, 3)]
    for threshold, colour in zip(shown, _colours(len(shown))):
        rows = table[np.isclose(table["threshold"], threshold)]
        axis.fill_between(rows["delta"], rows["low"], rows["high"], color=colour, alpha=0.15, lw=0)
        axis.plot(rows["delta"], rows["utd"], color=colour, label=f"J = {threshold:.4g}")
    if np.isfinite(result.cost.delta):
        axis.axvline(result.cost.delta, color="0.3", ls="--", lw=1, label="δ used")
    grid = np.exp(search_range(result.utds))
    for edge in (result.utds.min(), result.utds.max()):
        axis.axhline(edge, color="tab:red", lw=0.7, ls=":")
    axis.set(xscale="log", yscale="log", xlabel="δ: FLOPs one transition is worth", ylabel="σ*: cheapest ratio",
             ylim=(grid[0] * 0.9, grid[-1] * 1.1))  # fmt: skip
    axis.set_yticks(result.utds, _ratios(result.utds))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.legend(fontsize=7, title="dotted red: range of runs", title_fontsize=7)
    return figure


def held_out(result: Result) -> Figure | None:
    """Predicted against observed for every ratio that was left out."""
    table = result.held_out
    if table.empty:
        return None
    figure, axis = plt.subplots(figsize=(5.4, 4.0))
    groups = list(table.groupby(["split", "utd"], sort=False))
    for ((split, utd), rows), colour in zip(groups, plt.get_cmap("tab10")(np.arange(len(groups)) % 10)):
        error = rows["relative_error"].abs().mean()
        bounds = [[p, p] if i[0] is None else i for i, p in zip(rows["predicted_interval"], rows["predicted"])]
        spread = np.abs(np.array(bounds).T - rows["predicted"].to_numpy()[None])
        axis.errorbar(rows["observed"], rows["predicted"], yerr=spread, fmt="o", ms=3.5, lw=0.8, color=colour,
                      label=f"{split}: σ = {_ratio(utd)}, mean error {error:.0%}")  # fmt: skip
    ends = np.array([table["observed"].min() * 0.8, table["observed"].max() * 1.25])
    axis.plot(ends, ends, color="0.4", lw=0.8)
    axis.set(xscale="log", yscale="log", xlabel="observed D, average task", ylabel="predicted D")
    axis.legend(fontsize=7)
    return figure


def cost_model(result: Result) -> Figure | None:
    """Measured against modelled seconds of stretches of the runs."""
    windows = result.windows
    if windows is None or not len(windows):
        return None
    figure, axis = plt.subplots(figsize=(4.6, 3.7))
    per = 1e6 / windows["transitions"]
    scatter = axis.scatter(windows["predicted"] * per, windows["seconds"] * per, s=8,
                           c=np.log2(windows["batch_size"].fillna(1)), cmap="viridis")  # fmt: skip
    both = np.concatenate([windows["predicted"] * per, windows["seconds"] * per])
    both = both[both > 0]
    axis.plot([both.min(), both.max()], [both.min(), both.max()], color="0.4", lw=0.8)
    axis.set(xscale="log", yscale="log", xlabel="modelled seconds per million transitions", ylabel="measured")
    figure.colorbar(scatter, ax=axis, label="log2 batch size")
    return figure


FIGURES: dict[str, Callable[[Result], Figure | None]] = {
    "curves": curves, "hyperparameters": hyperparameters, "data_law": data_law, "frontier": frontier, "delta": delta,
    "held_out": held_out, "cost_model": cost_model,
}  # fmt: skip


def draw(result: Result, folder: Path) -> dict[str, Path]:
    """All figures as PNG and PDF. Returns {name: PNG path}."""
    folder.mkdir(parents=True, exist_ok=True)
    out = {}
    with plt.rc_context(STYLE):
        for name, function in FIGURES.items():
            figure = function(result)
            if figure is None:
                continue
            figure.tight_layout()
            out[name] = folder / f"{name}.png"
            figure.savefig(out[name])
            figure.savefig(folder / f"{name}.pdf")
            plt.close(figure)
    return out
