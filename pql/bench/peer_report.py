"""What `pql.bench.peers` found, as a table and as a picture."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path

THRESHOLDS = (1000.0, 3000.0, 5000.0)
NAMES = {"pql": "PQL", "flash_sac": "flash_sac", "our_sac": "SAC, ours", "ppo": "PPO (rsl_rl)", "sac": "SAC (SB3)"}
# Okabe and Ito's: told apart by colour-blind eyes
COLOURS = {"pql": "#D55E00", "flash_sac": "#E69F00", "our_sac": "#CC79A7", "ppo": "#0072B2", "sac": "#009E73"}
MARKERS = {"pql": "o", "flash_sac": "D", "our_sac": "v", "ppo": "s", "sac": "^"}


@dataclass
class Reached:
    """How soon the seeds of one learner first were evaluated at `threshold` or more."""

    learner: str
    threshold: float
    seeds: int
    reached: int
    seconds: float | None  # median over all seeds, None where less than half of them got there
    env_steps: float | None


def summary(cells: list[dict], thresholds: tuple[float, ...] = THRESHOLDS) -> list[Reached]:
    rows = []
    for learner in dict.fromkeys(cell["learner"] for cell in cells):
        mine = [cell for cell in cells if cell["learner"] == learner]
        for threshold in thresholds:
            first = [next((p for p in c["points"] if p["eval_return"] >= threshold), None) for c in mine]
            times = [math.inf if p is None else p["wall_time_s"] for p in first]
            steps = [math.inf if p is None else p["env_steps"] for p in first]
            found = [_finite(statistics.median(values)) for values in (times, steps)]
            rows.append(Reached(learner, threshold, len(mine), sum(p is not None for p in first), *found))
    return rows


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def table(cells: list[dict]) -> str:
    """At most 80 columns: the last return, and for each threshold seconds, env steps and seeds."""
    lines = [
        f"{'':<12} {'return':>12}" + "".join(f"{f'to {threshold:.0f}':>18}" for threshold in THRESHOLDS),
        f"{'learner':<12} {'mean (range)':>12}" + f"{'s':>5}{'steps':>7}{'seeds':>6}" * len(THRESHOLDS),
    ]
    rows = summary(cells)
    for learner in dict.fromkeys(row.learner for row in rows):
        last = [cell["points"][-1]["eval_return"] for cell in cells if cell["learner"] == learner]
        spread = f"{min(last):.0f}..{max(last):.0f}"
        text = f"{NAMES[learner]:<12} {statistics.mean(last):>12.0f}"
        for row in rows:
            if row.learner == learner:
                seconds = "-" if row.seconds is None else f"{row.seconds:.0f}"
                steps = "-" if row.env_steps is None else f"{row.env_steps / 1e6:.2f}M"
                text += f"{seconds:>5}{steps:>7}{f'{row.reached}/{row.seeds}':>6}"
        lines += [text, f"{'':<12} {f'({spread})':>12}"]
    return "\n".join(lines)


def plot(cells: list[dict], path: Path, task: str) -> None:
    """Two panels that share their returns: against wall-clock, against env steps. Thin: seeds; thick: their mean."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.6), sharey=True, constrained_layout=True)
    panels = (("wall_time_s", 1.0, "wall-clock of training (s)"), ("env_steps", 1e6, "environment steps (million)"))
    for axis, (name, unit, label) in zip(axes, panels):
        for threshold in THRESHOLDS:
            axis.axhline(threshold, color="0.85", linewidth=0.8, zorder=0)
        for learner in dict.fromkeys(cell["learner"] for cell in cells):
            colour = COLOURS[learner]
            mine = [cell["points"] for cell in cells if cell["learner"] == learner]
            for points in mine:
                x, y = [p[name] / unit for p in points], [p["eval_return"] for p in points]
                axis.plot(x, y, color=colour, linewidth=0.8, alpha=0.45)
            shared = min(len(points) for points in mine)
            x = [statistics.mean(points[i][name] / unit for points in mine) for i in range(shared)]
            y = [statistics.mean(points[i]["eval_return"] for points in mine) for i in range(shared)]
            every = max(1, shared // 8)
            axis.plot(
                x, y, color=colour, linewidth=2.4, marker=MARKERS[learner], markevery=every, markersize=6,
                label=f"{NAMES[learner]}, {len(mine)} seed{'s' if len(mine) > 1 else ''}",
            )  # fmt: skip
        axis.set_xlabel(label)
        axis.set_xlim(left=0)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("episode return, noise-free")
    axes[0].legend(frameon=False, loc="best")
    figure.suptitle(f"{task}: one after the other on the same cores")
    temporary = path.with_name(f".{path.stem}.part.png")
    figure.savefig(temporary, dpi=130)
    pyplot.close(figure)
    temporary.replace(path)
