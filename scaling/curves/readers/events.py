"""TensorBoard event files, every point of them, by TensorBoard's own loader.

Not its EventAccumulator: that keeps a random 10,000 points of a tag, and makes one curve of a folder's files.
"""

from __future__ import annotations

import logging
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.util import tb_logging, tensor_util

from scaling.errors import InputError

FRAME = 16  # bytes around a record: its length and two checksums


@dataclass
class EventFile:
    """One file. scalars: tag -> (T, 2) step, value in the order written. texts: tag -> first text.

    begin, end: wall times, in seconds. unread: bytes from the first damaged record on.
    """

    path: Path
    scalars: dict[str, np.ndarray] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    begin: float = np.inf
    end: float = -np.inf
    unread: int = 0


@dataclass
class EventLog:
    """A folder's event files in the order of their first wall time: sessions of one run."""

    files: list[EventFile]

    @property
    def tags(self) -> set[str]:
        return {tag for file in self.files for tag in (*file.scalars, *file.texts)}

    def sessions(self, tag: str) -> list[np.ndarray]:
        """(T, 2) step, value of a scalar, one array per file that has it.

        Raises InputError where two files were written at the same time: two runs in one folder are no curve.
        """
        holding = [file for file in self.files if tag in file.scalars]
        for before, after in zip(holding, holding[1:]):
            if after.begin < before.end:
                raise InputError(
                    f"{before.path.name} and {after.path.name} were written at the same time: two runs in one folder; "
                    "give each its own folder"
                )
        return [file.scalars[tag] for file in holding]

    def curve(self, tag: str) -> tuple[np.ndarray, np.ndarray]:
        """(T,) steps and (T,) values, session after session."""
        sessions = self.sessions(tag)
        joined = np.concatenate(sessions) if sessions else np.empty((0, 2))
        return joined[:, 0], joined[:, 1]

    def text(self, tag: str) -> str:
        """The first text under a tag, or nothing."""
        return next((file.texts[tag] for file in self.files if tag in file.texts), "")


def read_event_file(path: Path) -> EventFile:
    """Every scalar and each tag's first text, up to a record that is damaged: a kill cuts the last one short."""
    tb_logging.get_logger().setLevel(logging.ERROR)  # else it tells of each such record
    columns: dict[str, array] = {}
    out = EventFile(path, unread=path.stat().st_size)
    try:
        for record in RawEventFileLoader(str(path)).Load():
            event = Event.FromString(record)
            out.unread -= len(record) + FRAME
            if not event.HasField("summary"):
                continue
            out.begin, out.end = min(out.begin, event.wall_time), max(out.end, event.wall_time)
            for value in event.summary.value:
                kind = value.WhichOneof("value")
                if kind == "simple_value":
                    number = value.simple_value
                elif kind == "tensor" and value.metadata.plugin_data.plugin_name == "text":
                    text = value.tensor.string_val
                    out.texts.setdefault(value.tag, text[0].decode("utf-8", "replace") if text else "")
                    continue
                elif kind == "tensor" and not value.tensor.string_val:  # TensorFlow 2's scalars
                    content = tensor_util.make_ndarray(value.tensor)
                    if content.size != 1:
                        continue
                    number = float(content.reshape(()))
                else:
                    continue
                columns.setdefault(value.tag, array("d")).extend((event.step, number))
    except Exception:  # whatever a broken file makes a parser say: what was read before holds
        pass
    out.scalars = {tag: np.array(column).reshape(-1, 2) for tag, column in columns.items()}
    return out


def read_event_folder(paths: list[Path]) -> EventLog:
    """All event files of one folder."""
    return EventLog(sorted((read_event_file(path) for path in paths), key=lambda file: (file.begin, file.path.name)))
