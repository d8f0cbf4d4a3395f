"""Which cells of a sweep one process trains side by side, and how many: packs."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Callable, List, Mapping, NamedTuple, Sequence

from scaling.errors import InputError
from scaling.sweep.plan_file import Cell, Plan, config_hash, to_override

SHAPES = 6  # that are asked about, half a second each; of more the smallest answer holds


class Fit(NamedTuple):
    """What the trainer says of cells of one shape."""

    keys: frozenset  # in which they may differ
    best: int  # how many side by side are worth it
    fits: int  # how many the memory has room for


Packs = Callable[[List[str], int], Fit]  # a cell's words and how many packs run at a time; InputError: none can


@dataclass(frozen=True)
class Packing:
    """How many cells one process may train side by side, and the keys in which they may then differ.

    Args:
        most_of: how many cells like this one; `most` bounds it.
    """

    most: int
    keys: frozenset[str] = frozenset()
    most_of: Callable[[Cell], int] | None = None
    _shapes: dict[str, str] = field(default_factory=dict, compare=False)
    _most: dict[str, int] = field(default_factory=dict, compare=False)

    def shape(self, cell: Cell) -> str:
        """What cells of one pack agree in."""
        if cell.hash not in self._shapes:
            kept = {key: value for key, value in cell.overrides.items() if key not in self.keys}
            self._shapes[cell.hash] = config_hash(kept)
        return self._shapes[cell.hash]

    def sizes(self, cells: Sequence[Cell]) -> dict[str, int]:
        """Shape -> cells in a pack, so that its packs are about equally large."""
        found, first = {}, {self.shape(cell): cell for cell in reversed(cells)}
        for shape, count in Counter(map(self.shape, cells)).items():
            packs = math.ceil(count / self._of(shape, first[shape]))
            found[shape] = math.ceil(count / packs)
        return found

    def _of(self, shape: str, cell: Cell) -> int:
        if self.most_of is None or self.most == 1:
            return self.most
        if shape not in self._most:
            known = self._most.values()
            self._most[shape] = min(known) if len(known) >= SHAPES else self.most_of(cell)
        return max(1, min(self.most, self._most[shape]))

    def groups(self, cells: Sequence[Cell]) -> list[list[Cell]]:
        """All of them in packs, in the order of the packs' first cells."""
        sizes, packs, filling = self.sizes(cells), [], {}
        for cell in cells:
            shape = self.shape(cell)
            if len(filling.get(shape, ())) in (0, sizes[shape]):
                filling[shape] = []
                packs.append(filling[shape])
            filling[shape].append(cell)
        return packs

    def spread(self, cells: int, parallel: int) -> Packing:
        """The same, but that no pack is so large that another process has nothing to do."""
        return Packing(max(1, min(self.most, -(-cells // max(1, parallel)))), self.keys, self.most_of)


ALONE = Packing(1)
MOST = 1 << 20  # as many as there are


def packing_of(text: str, plan: Plan, options: Mapping[str, Any], packs: Packs | None, parallel: int, cells: int,
               say: Callable[[str], None]) -> Packing:
    """What `pack=text` means for this plan: "auto", or how many. `cells` are to be run, `parallel` processes at a time.

    Raises:
        InputError: a bad number, or one for which there is no memory; the message says how many there are room for.
    """
    auto = text == "auto"
    if not auto and (not text.isdigit() or int(text) < 1):
        raise InputError(f"pack={text}: must be how many cells one process trains side by side, pack=16 say, or auto")
    if text == "1" or (auto and (plan.trainer or packs is None or not cells)):
        return ALONE
    if plan.trainer or packs is None:
        raise InputError(f"pack={text}: only scripts/train.py trains cells side by side: leave pack or trainer out")
    here = options["kind"] == "local"
    if auto and not here and (options["gpus"] or plan.cells[0].overrides.get("device") != "cpu"):
        return ALONE  # this node can't tell on what that one would train

    def ask(cell: Cell) -> Fit:
        return packs([f"{key}={to_override(value)}" for key, value in cell.overrides.items()], parallel if here else 1)

    try:
        found = ask(plan.cells[0])
    except InputError as error:
        if not auto:
            say(f"note: pack={text}: {error}: cells are trained one by one")
        return ALONE
    if auto:
        return Packing(MOST, found.keys, lambda cell: min(ask(cell)[1:])).spread(cells, parallel)
    if here and int(text) > found.fits:
        raise InputError(f"pack={text}: the replay rings of {parallel} x {text} cells have no room in the free memory: "
                         f"pack={found.fits} fits, or lower algo.replay_size")  # fmt: skip
    return Packing(int(text), found.keys)
