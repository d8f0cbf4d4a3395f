"""Learning curves of finished or running runs: a table and a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Sequence

from pql.errors import UserError
from pql.run.metrics import read_metrics

# Okabe and Ito's colours: told apart by colour-blind readers too
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def read_curve(run_dir: str | Path) -> dict[str, Any]:
    """A run's evaluations: name, task, seed, and lists env_steps, seconds, returns. Raises UserError."""
    path = Path(run_dir) / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"{run_dir} is no run: it holds no metrics.jsonl")
    lines = sorted((x for x in read_metrics(path) if "eval_return" in x), key=lambda x: x["env_steps"])
    if not lines:
        raise UserError(f"{run_dir} has no evaluation yet: nothing to draw")
    from omegaconf import OmegaConf

    cfg = OmegaConf.load(Path(run_dir) / "config.yaml")
    return {
        "run": Path(run_dir).name,
        "task": cfg.task.name,
        "algo": cfg.algo.name,
        "seed": cfg.seed,
        "env_steps": [x["env_steps"] for x in lines],
        "seconds": [x["wall_time_s"] for x in lines],
        "returns": [x["eval_return"] for x in lines],
    }


def first_reached(curve: dict[str, Any], threshold: float) -> tuple[float, int] | None:
    """Seconds and env steps of the first evaluation at or above `threshold`; None if there was none."""
    for seconds, steps, value in zip(curve["seconds"], curve["env_steps"], curve["returns"]):
        if value >= threshold:
            return seconds, steps
    return None


def table(curves: Sequence[dict[str, Any]], thresholds: Sequence[float]) -> str:
    """A Markdown table: final and best return, env steps, minutes, and seconds to each threshold."""
    head = ["run", "env steps", "minutes", "final return", "best", *(f"s to {t:g}" for t in thresholds)]
    rows = [head, ["---"] * len(head)]
    for c in curves:
        reached = [first_reached(c, t) for t in thresholds]
        rows.append(
            [
                c["run"],
                f"{c['env_steps'][-1] / 1e6:.2f}M",
                f"{c['seconds'][-1] / 60:.1f}",
                f"{c['returns'][-1]:.0f}",
                f"{max(c['returns']):.0f}",
                *("-" if r is None else f"{r[0]:.0f}" for r in reached),
            ]
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def draw(curves: Sequence[dict[str, Any]], path: Path) -> None:
    """Evaluated return against env steps and against seconds, one line a run, one colour a task and algorithm."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    kinds = sorted({(c["task"], c["algo"]) for c in curves})
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, constrained_layout=True)
    panels = ((axes[0], "env_steps", 1e-6, "million env steps"), (axes[1], "seconds", 1, "seconds of training"))
    for axis, key, scale, label in panels:
        seen = set()
        for c in curves:
            kind = (c["task"], c["algo"])
            name = None if kind in seen else f"{c['task']}, {c['algo'].replace('_', '-').upper()}"
            seen.add(kind)
            x = [value * scale for value in c[key]]
            axis.plot(x, c["returns"], color=COLOURS[kinds.index(kind) % len(COLOURS)], lw=1.4, alpha=0.85, label=name)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("evaluated return, no noise")
    axes[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(runs: Sequence[str], out: str, thresholds: Sequence[float]) -> str:
    """Write <out>.png and <out>.json for these runs; returns the table."""
    from pql.files import write_atomically

    curves = [read_curve(run) for run in runs]
    draw(curves, Path(f"{out}.png"))
    write_atomically(Path(f"{out}.json"), json.dumps(curves))
    return table(curves, thresholds)
