"""Command lines of the form `key=value`: one dataclass per script names the keys, their defaults and their meaning."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
import sys
import textwrap
from typing import Any, Callable, Sequence, TypeVar

from scaling.errors import InputError, nearest, words_of

T = TypeVar("T")


def option(default: Any, help: str, parse: Callable[[str], Any] = str) -> Any:
    """A dataclass field with its help text and its parser from the command line."""
    if isinstance(default, (list, dict)):
        factory = type(default)
        return dataclasses.field(default_factory=lambda: factory(default), metadata={"help": help, "parse": parse})
    return dataclasses.field(default=default, metadata={"help": help, "parse": parse})


def boolean(text: str) -> bool:
    """true/false, yes/no, on/off, 1/0."""
    lowered = text.strip().lower()
    if lowered in ("true", "yes", "on", "1"):
        return True
    if lowered in ("false", "no", "off", "0"):
        return False
    raise ValueError("expected true or false")


def numbers(text: str) -> list[float]:
    """`1,2,3` or `[1, 2, 3]` to floats."""
    return [float(part) for part in text.strip().strip("[]()").split(",") if part.strip()]


def words(text: str) -> list[str]:
    """`a,b` or `[a, b]` to strings."""
    return [part.strip() for part in text.strip().strip("[]()").split(",") if part.strip()]


def parse(schema: type[T], argv: Sequence[str]) -> T:
    """An instance of `schema` from `key=value` words. Raises InputError for an unknown key or an unreadable value."""
    known = {field.name: field for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for word in argv:
        key, separator, text = word.partition("=")
        key = key.strip().lstrip("-")
        if not separator:
            raise InputError(f"{word!r} is not of the form key=value; {nearest(key, known)}")
        if key not in known:
            raise InputError(f"unknown key {key!r}; {nearest(key, known)}")
        try:
            unset = text.lower() in ("none", "null", "") and known[key].default is None
            values[key] = None if unset else known[key].metadata["parse"](text)
            if any(value != value for value in (values[key] if isinstance(values[key], list) else [values[key]])):
                raise ValueError("NaN is no number")
        except ValueError as error:
            raise InputError(f"{key}={text!r} cannot be read: {error}") from None
    return schema(**values)


def demand_positive(options: Any, *names: str) -> None:
    """Raises InputError where one that is given is not above 0."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name}={value}: use a finite number above 0")


def usage(schema: type, program: str, what: str) -> str:
    """The --help page: every key with its default and meaning, wrapped to the terminal (at most 100 columns)."""
    width = min(shutil.get_terminal_size((80, 24)).columns, 100)
    lines = [*textwrap.wrap(what, width), "", f"usage: {program} key=value ...", ""]
    fields = dataclasses.fields(schema)
    column = max(len(field.name) for field in fields) + 2
    for field in fields:
        default = field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore
        text = field.metadata["help"] + ("" if default in (None, "", [], {}) else f" [{default}]")
        wrapped = textwrap.wrap(text, width - column - 2) or [""]
        lines.append(f"  {field.name:<{column}}{wrapped[0]}")
        lines += [" " * (column + 2) + line for line in wrapped[1:]]
    return "\n".join(lines)


def main(
    schema: type[T], program: str, what: str, action: Callable[[T], Any], argv: Sequence[str] | None = None
) -> int:
    """Parse, act, print a user's mistake in one line. Returns the exit status: 0, or 2 for a mistake."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if any(word in ("-h", "--help", "help") for word in argv):
        print(usage(schema, program, what))
        return 0
    try:
        action(parse(schema, argv))
    except InputError as error:
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read our lines has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # a full disk, a name too long, no permission: nothing that a traceback tells better
        print(f"{program}: {words_of(error)}", file=sys.stderr)
        return 2
    return 0
