"""What a reader of another library's logs is given and what it gives back.

A reader is one small file: it knows one library's files by their content, what the library's step axis counts, and
which hyperparameters can be had from the files. What the files do not tell it asks for; it never invents.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from scaling.curves.readers.events import EventLog, read_event_folder
from scaling.errors import InputError

HEAD = 65536  # bytes of a text file's first line that are looked at


class Ask(Exception):
    """The files do not tell `key` (a setting that the user can give by meta=). `why` is half a sentence.

    settings: what they tell besides, so that one question asks for all the rest.
    """

    def __init__(self, key: str, why: str, settings: dict[str, Any] | None = None) -> None:
        super().__init__(f"{key}: {why}")
        self.key, self.why, self.settings = key, why, settings or {}


@dataclass(frozen=True)
class Source:
    """Where one run's log lies: a folder or a file, and which part of it where several runs share a file."""

    path: Path
    part: str = ""

    @property
    def label(self) -> Path:
        """The path that names the run: patterns and tables of settings are matched against it."""
        return self.path / self.part if self.part else self.path


@dataclass
class Log:
    """One run as its files tell it.

    env_steps, episode_return: (T,) in the order they were written, env steps over all environments; that steps go back
    or repeat is put right later, for tables and logs alike (scaling.curves.sessions). settings: what the files tell of
    task, seed, utd, batch_size, learning_rate. on_policy: its utd counts updates without a replay.
    """

    env_steps: np.ndarray
    episode_return: np.ndarray
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    on_policy: bool = False


class Given(dict):
    """What the user told about a run (meta=), by key."""

    def number(self, key: str, why: str) -> float:
        """A number that the files do not tell. Raises Ask where the user has not told it either."""
        if key not in self:
            raise Ask(key, why)
        return float(self[key])


class Files:
    """The files at or below a path, each looked into once."""

    def __init__(self, root: Path, leave_out: frozenset[Path] = frozenset()) -> None:
        """leave_out: folders that are read by other means."""
        self.root = root.parent if root.is_file() else root
        self.paths = [root] if root.is_file() else []
        for folder, inside, names in os.walk(self.root) if not root.is_file() else ():
            inside[:] = sorted(name for name in inside if Path(folder, name) not in leave_out)
            self.paths += [Path(folder, name) for name in sorted(names)]

    def named(self, pattern: str) -> list[Path]:
        """Files whose name fits a pattern with * and ?."""
        return [path for path in self.paths if path.match(pattern)]

    @property
    def event_folders(self) -> list[Path]:
        """Folders that hold TensorBoard event files directly."""
        return sorted({path.parent for path in self.paths if "tfevents" in path.name})

    @lru_cache(maxsize=None)  # noqa: B019 - lives as long as one reading
    def events(self, folder: Path) -> EventLog:
        """What the event files of a folder hold."""
        return read_event_folder([path for path in self.paths if path.parent == folder and "tfevents" in path.name])

    @lru_cache(maxsize=None)  # noqa: B019
    def first_line(self, path: Path) -> str:
        """The first line of a text file, without its end; empty where it is none."""
        try:
            with path.open("rb") as file:
                return file.readline(HEAD).decode("utf-8-sig").rstrip("\r\n")
        except (OSError, UnicodeDecodeError):
            return ""


class Reader:
    """One library's logs. `library` names it in notes and in the table's column of that name."""

    library = ""

    def find(self, files: Files) -> list[Source]:
        """The runs of this library that can be told by content."""
        raise NotImplementedError

    def remarks(self, files: Files) -> list[str]:
        """What of this library's files is not read, and why."""
        return []

    def read(self, files: Files, source: Source, given: Given) -> Log:
        """One of them. Raises Ask for what only the user can tell, InputError for what cannot be used."""
        raise NotImplementedError


class EventReader(Reader):
    """A library whose TensorBoard tags give it away."""

    def matches(self, tags: set[str]) -> bool:
        """Whether these tags (of scalars and texts) are this library's."""
        raise NotImplementedError

    def find(self, files: Files) -> list[Source]:
        return [Source(folder) for folder in files.event_folders if self.matches(files.events(folder).tags)]


def number_of_name(pattern: Any, name: str) -> int | None:
    """The one group of a compiled regular expression in a folder's name as a number."""
    match = pattern.search(name)
    return int(match.group(1)) if match else None


def curve_of(log: EventLog, tag: str, given: Given) -> tuple[np.ndarray, np.ndarray]:
    """(T,) steps and values of the return: `tag`, or the one that the user names (return_tag)."""
    tag = given.get("return_tag", tag)
    if tag not in log.tags:
        raise InputError(f"no points under {tag!r}; its tags: {', '.join(sorted(log.tags)[:12])}; name one: "
                         "meta=\"return_tag=...\"")  # fmt: skip
    return log.curve(tag)
