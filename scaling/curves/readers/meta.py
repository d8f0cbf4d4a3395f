"""What the user tells about runs whose files do not: meta=<csv>, a pattern over folder names, or values for all."""

from __future__ import annotations

import difflib
import re
import string
from pathlib import Path
from typing import Any

import pandas as pd

from scaling.curves.readers.base import Given
from scaling.errors import InputError

# Of a run, into the table; the first three have no use without a value.
IDENTITY = ("task", "seed", "utd", "batch_size", "learning_rate")
UNKNOWN = ("batch_size", "learning_rate")  # may be told to be unknown: =none
# Of its log, for its reader.
READING = {
    "num_envs": "environments stepped together",
    "env_steps_per_step": "env steps in one count of the log's axis",
    "env_steps_before": "env steps done before the log begins",
    "return_tag": "the tag, metric or file that holds the return",
    "reward_scale": "what the logged return was multiplied with",
    "max_episode_length": "steps of a whole episode; 0: no session began at random ages",
}
COLUMNS = ("run", "library", "on_policy", "env_steps", "episode_return")  # of the table, from the logs alone
NUMBERS = {*IDENTITY[2:], *READING} - {"return_tag"} | {"model_size"}
HELP = "meta=<csv: run, {keys}>, a pattern over folder names (meta=\"{{task}}__{{seed}}\") or values for all ({values})"


class Meta:
    """Comma-separated items, later ones count: a CSV with a column run; a pattern with {names}; key=value for all.

    A pattern fits whole folder names: `{task}__{}__{seed}`, `utd{utd}/seed{seed}`; `{}` fits anything. A CSV's run is a
    folder's name, or several joined by /. Any other key becomes a column of the table.
    """

    def __init__(self, text: str | None) -> None:
        self.items: list[Any] = []
        for item in (part.strip() for part in (text or "").split(",") if part.strip()):
            if "{" in item:
                self.items.append(_pattern(item))
            elif "=" in item and not Path(item).exists():
                key, value = (side.strip() for side in item.split("=", 1))
                self.items.append({_key(key): value})
            else:
                self.items.append(_table(Path(item)))
        self.used: set[Any] = set()

    def of(self, path: Path) -> Given:
        """What is told about the run whose log lies at `path`."""
        parts, told = path.resolve().parts[1:], {}
        for item in self.items:
            if isinstance(item, dict):
                told.update(item)
            elif isinstance(item, pd.DataFrame):
                row = _row(item, parts)
                if row is not None:
                    self.used.add(row["run"])
                    told.update({key: value for key, value in row.items() if key != "run" and value != ""})
            else:
                ends = ("/".join(parts[:end]) for end in range(len(parts), 0, -1))  # the innermost folder first
                match = next(filter(None, map(item.search, ends)), None)
                if match:
                    self.used.add(item)
                    told.update(match.groupdict())
        return Given({key: _value(key, value) for key, value in told.items()})

    def unused(self) -> list[str]:
        """Notes on rows of a CSV that name no run and on patterns that fit none."""
        rows = [run for item in self.items if isinstance(item, pd.DataFrame) for run in item["run"]]
        patterns = [item.pattern for item in self.items if isinstance(item, re.Pattern) and item not in self.used]
        return [
            *(f"meta names run {run}, which is not there" for run in rows if run not in self.used),
            *(f"meta's pattern fits no run's folder ({pattern})" for pattern in patterns),
        ]


def _key(name: str) -> str:
    """The name itself, unless it is a known one misspelt."""
    known = [*IDENTITY, *READING, "model_size", "set"]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    if near and name not in known:
        raise InputError(f"meta: unknown key {name!r}; did you mean {near[0]!r}?")
    if not name.isidentifier() or name in COLUMNS:
        raise InputError(f"meta: {name!r} is no name of a setting; use letters, digits and _, not {', '.join(COLUMNS)}")
    return name


def _pattern(text: str) -> re.Pattern:
    out, names = "", set()
    try:
        parts = list(string.Formatter().parse(text.strip("\"'")))
    except ValueError as error:
        raise InputError(f"meta: pattern {text!r} cannot be read ({error}); write it like {{task}}__{{seed}}") from None
    for literal, name, _, _ in parts:
        out += re.escape(literal)
        if name == "":
            out += "[^/]*?"
        elif name in names:
            raise InputError(f"meta: the pattern {text!r} names {name!r} twice; {{}} fits anything")
        elif name is not None:
            names.add(name)
            out += f"(?P<{_key(name)}>[^/]+?)"
    return re.compile(rf"(?:^|/){out}$")


def _table(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise InputError(f"meta: no file {path}; give a CSV with a column run, a pattern with {{names}} or key=value")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except Exception as error:  # a user's file may be broken in any way a parser can think of
        raise InputError(f"meta: {path} cannot be read as a CSV ({type(error).__name__}: {error})") from None
    if "run" not in table:
        raise InputError(f"meta: {path} has no column run (the folder's name); it has {', '.join(table.columns)}")
    table = table.rename(columns=lambda name: name if name == "run" else _key(name))
    table["run"] = table["run"].str.strip().str.strip("/")
    doubled = table["run"][table["run"].duplicated()]
    if len(doubled):
        raise InputError(f"meta: {path} names run {doubled.iloc[0]!r} twice; keep one row")
    return table


def _row(table: pd.DataFrame, parts: tuple[str, ...]) -> dict[str, str] | None:
    """The row whose run is part of the path; of several the innermost, then the longest."""
    best, at = None, (0, 0)
    for index, run in enumerate(table["run"]):
        names = tuple(run.split("/"))
        for end in range(len(parts), len(names) - 1, -1):
            if parts[end - len(names) : end] == names:
                if (end, len(names)) > at:
                    best, at = index, (end, len(names))
                break
    return None if best is None else table.iloc[best].to_dict()


def _value(key: str, text: str) -> Any:
    text = str(text).strip().strip("\"'")
    if text.lower() in ("none", "nan", "null"):
        if key not in UNKNOWN:
            raise InputError(f"meta: {key}={text}: only {' and '.join(UNKNOWN)} may be left unknown; give its value")
        return float("nan")
    if key not in NUMBERS:
        return int(text) if key == "seed" and text.isdigit() else text
    above, _, below = text.partition("/")
    try:
        return float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"meta: {key}={text!r} is not a number") from None
