"""A key of a configuration: a dataclass field with its default and what --help says of it."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import Field, field, fields
from typing import Any


def key(default: Any, meaning: str = "", identity: bool = False) -> Any:
    """A configuration key.

    Args:
        default: its value where nobody gives one; a list is copied for every instance.
        meaning: what --help says of it.
        identity: a resumed run must have the value that its checkpoint was written with.
    """
    about = {"help": meaning, "identity": identity} if meaning else {}
    if isinstance(default, (list, dict)):
        kind = type(default)
        return field(default_factory=lambda: kind(default), metadata=about)
    return field(default=default, metadata=about)


def keys_of(schema: type) -> dict[str, tuple[Field, dict[str, Any]]]:
    """A dataclass's fields by name, each with what `key` said of it, in a base where only the default is new."""
    found = {}
    for f in fields(schema):
        about = f.metadata
        for base in schema.__mro__:
            said = getattr(base, "__dataclass_fields__", {}).get(f.name)
            if not about and said is not None:
                about = said.metadata
        found[f.name] = (f, dict(about))
    return found


def help_of(word: str, meaning: str, column: int) -> str:
    """A line of --help, wrapped to the terminal (80 columns where there is none): a word, its meaning from `column`."""
    width = min(shutil.get_terminal_size((80, 24)).columns, 120)
    indent = " " * (column + 3)
    return textwrap.fill(
        f"{word:<{column}} {meaning}".rstrip(), width, initial_indent="  ", subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
