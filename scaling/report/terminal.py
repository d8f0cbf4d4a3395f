"""Text for a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from typing import Sequence


def bullet(line: str, width: int = 80) -> str:
    """One wrapped list item."""
    return textwrap.fill(line, width, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False)


def shell(words: Sequence[str], width: int = 80) -> str:
    """A command of quoted words, broken between words with backslashes: it can still be copied and run."""
    lines = ["  " + words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + 3 <= width:
            lines[-1] += " " + word
        else:
            lines.append("    " + word)
    return " \\\n".join(lines)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned by their widest cell: the first to the left, the others to the right."""
    cells = [list(map(str, head)), *[list(map(str, row)) for row in rows]]
    widths = [max(len(row[k]) for row in cells) for k in range(len(head))]
    lines = []
    for row in cells:
        padded = [c.ljust(w) if k == 0 else c.rjust(w) for k, (c, w) in enumerate(zip(row, widths))]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def amount(value: float) -> str:
    """Three digits, in full below ten millions: 16,500, 4.21, 1.23e+07."""
    text = f"{float(value):.3g}"
    return f"{float(text):,.0f}" if 100 <= abs(float(text)) < 1e7 else text
