"""Which of the chain's choices predicts best on public sweeps, ratios held out: `python -m scaling.study.choices`.

    python -m scaling.study.choices compare=crossing data=<folder>   the three kinds of crossing
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd

from scaling.cli import main, option
from scaling.curves.shares import KINDS
from scaling.errors import InputError
from scaling.report.terminal import table
from scaling.study.public import Sweep, data_law, run_all, score, sweeps

ROW = ["source", "task", "train", "utd", "threshold"]


@dataclass
class Options:
    """The keys of the comparison."""

    compare: str = option("crossing", "what to compare: crossing")
    data: str | None = option(None, "folder of the public sweeps")
    samples: int = option(0, "bootstrap samples over seeds, for the coverage; 0 leaves it out", int)


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
    results = {kind: run_all(data, data_law, samples, kind) for kind in KINDS}
    show(results, "each where it is seen")
    results = common(results)
    show(results, "where all three are seen")
    top = {name: found[found["threshold"] == found.groupby(["source", "task"])["threshold"].transform("max")]
           for name, found in results.items()}  # fmt: skip
    show(top, "of these, the highest return of each task")
    return results


COMPARISONS = {"crossing": crossing}


def run(options: Options) -> dict[str, pd.DataFrame]:
    """The comparison asked for, printed."""
    if options.data is None:
        raise InputError("give data=<folder of the public sweeps>; docs/results/scaling/README.md says whose they are")
    if options.compare not in COMPARISONS:
        raise InputError(f"compare={options.compare!r}: use {', '.join(COMPARISONS)}")
    return COMPARISONS[options.compare](sweeps(options.data), options.samples)


if __name__ == "__main__":
    sys.exit(main(Options, "python -m scaling.study.choices", __doc__, run))
