"""TorchRL's trainers: CSV (exp/scalars/NAME.csv without a head) or TensorBoard; frames are env steps.

What they log unasked is no return of an episode: r_training is a reward per step, r_total a running sum in the batch,
r_evaluation a mean per step, total_r_evaluation a mean over pieces of episodes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling.curves.readers.base import Ask, Files, Given, Log, Reader, Source
from scaling.errors import InputError

NO_RETURN = ("r_training", "r_total", "r_max", "r_training_std")
SIGNATURE = "r_training"


class TorchRL(Reader):
    """The ratio is counted (updates by transitions written); `utd_ratio` is that times the batch size."""

    library = "TorchRL"

    def find(self, files: Files) -> list[Source]:
        scalars = [path.parent for path in files.named("scalars/*.csv") if path.stem == SIGNATURE]
        events = [folder for folder in files.event_folders if SIGNATURE in files.events(folder).tags]
        return [Source(folder) for folder in scalars + events]

    def read(self, files: Files, source: Source, given: Given) -> Log:
        if source.path in files.event_folders:
            log = files.events(source.path)
            names = {tag for file in log.files for tag in file.scalars}
            curve = log.curve
        else:
            paths = {path.stem: path for path in files.paths if path.parent == source.path and path.suffix == ".csv"}
            names = set(paths)

            def curve(tag: str) -> tuple[np.ndarray, np.ndarray]:
                return headless(paths[tag], 2)

        tag = given.get("return_tag")
        if tag is None:
            raise Ask("return_tag", "r_training and r_total are no returns, r_evaluation is a reward per step",
                      counted(names, curve))  # fmt: skip
        if tag in NO_RETURN:
            raise InputError(f"{tag} is no return of an episode; name another: meta=\"return_tag=...\"")
        if tag not in names:
            raise InputError(f"no {tag!r} in it; there are {', '.join(sorted(names)[:12])}")
        notes = {
            "r_evaluation": ["r_evaluation is a mean reward per step, not an episode's return"],
            "total_r_evaluation": ["total_r_evaluation averages pieces of episodes, cut ones included"],
        }
        return Log(*curve(tag), counted(names, curve), notes.get(tag, []))


def headless(path: Path, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """(T,) steps and (T,) values: the last two columns of a CSV without a head."""
    try:
        table = pd.read_csv(path, header=None, dtype=float).to_numpy()
        if table.shape[1] != columns:
            raise ValueError(f"{table.shape[1]} columns, not {columns}")
    except ValueError as error:  # pandas' errors are such
        raise InputError(f"{path.name} cannot be read as {columns} columns of numbers ({error})") from None
    return table[:, -2], table[:, -1]


def counted(names: set[str], curve: Any) -> dict[str, Any]:
    """Ratio and batch size of the first session: a resume counts writes from 0 and keeps on counting updates."""
    if not {"update_count", "write_count", "utd_ratio"} <= names:
        return {}
    updates, writes, ratio = (curve(tag)[1] for tag in ("update_count", "write_count", "utd_ratio"))
    back = np.flatnonzero(np.diff(writes) < 0)
    end = back[0] + 1 if len(back) else len(writes)
    if end < 2 or len(updates) < end or writes[end - 1] == writes[0]:
        return {}
    utd = (updates[end - 1] - updates[0]) / (writes[end - 1] - writes[0])
    return {"utd": float(utd), "batch_size": float(round(ratio[0] / utd))} if utd > 0 else {}
