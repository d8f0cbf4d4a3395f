"""Objects of one class side by side: their tensors lie in common ones, and what all of them do is done at once.

Each object goes on as itself: its tensors are views of its row, so that it saves, loads and begins anew alone.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any, Callable, Mapping, Sequence

import torch
from torch import Tensor


class Together:
    """K objects with one history of calls.

    Args:
        parts: the objects.
        paths: what differs between them of what their methods read or write: dotted names of tensors, which become
            rows of common tensors (K, ...). All else is as in the first.
        more: dotted name -> (K, ...) tensor that the methods see in place of what the objects have.
    """

    def __init__(self, parts: Sequence[Any], paths: Sequence[str], more: Mapping[str, Tensor] | None = None):
        self.parts = parts
        self.rows = {path: in_rows(parts, path) for path in paths}
        self.rows.update(more or {})

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(part, *args)` for all parts; arguments and results are trees of tensors, (K, ...) here."""

        def one(rows: dict[str, Tensor], *args: Any) -> Any:
            found = function(stand_in(self.parts[0], rows), *args)
            return () if found is None else found

        with warnings.catch_warnings():  # of what is done one by one after all
            warnings.filterwarnings("ignore", "There is a performance drop")
            return torch.vmap(one)(self.rows, *args)


def in_rows(parts: Sequence[Any], path: str) -> Tensor:
    """The tensors at `path` as rows of one (K, ...): theirs, where they are rows of one already."""
    owners = [_owner(part, path) for part in parts]
    name = path.rpartition(".")[2]
    tensors = [_get(owner, name) for owner in owners]
    rows = tensors[0]._base
    whole = rows is not None and rows.shape == (len(parts), *tensors[0].shape)
    if not (whole and all(t.data_ptr() == row.data_ptr() and t._base is rows for t, row in zip(tensors, rows))):
        rows = torch.stack(tensors)
        for owner, row in zip(owners, range(len(parts))):
            _put(owner, name, rows[row])
    return rows


def as_one(parts: Sequence[Any], *paths: str) -> None:
    """Make what counts alike in all parts one tensor. Raises ValueError where they don't agree."""
    for path in paths:
        name = path.rpartition(".")[2]
        first = _get(_owner(parts[0], path), name)
        for part in parts[1:]:
            owner = _owner(part, path)
            if not torch.equal(_get(owner, name), first):
                raise ValueError(f"{path} differs: {_get(owner, name).tolist()} and {first.tolist()}")
            _put(owner, name, first)


def stand_in(part: Any, values: Mapping[str, Any]) -> Any:
    """A copy of `part` in which other values stand at these dotted names; what lies between is copied, too."""
    made = copy.copy(part)
    below: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        head, _, rest = path.partition(".")
        if rest:
            below.setdefault(head, {})[rest] = value
        else:
            _put(made, head, value)
    for head, inner in below.items():
        _put(made, head, stand_in(_get(part, head), inner))
    return made


def at(part: Any, path: str) -> Any:
    """What stands at a dotted name."""
    return _get(_owner(part, path), path.rpartition(".")[2])


def _owner(part: Any, path: str) -> Any:
    for name in path.split(".")[:-1]:
        part = _get(part, name)
    return part


def _get(owner: Any, name: str) -> Any:
    return owner[name] if isinstance(owner, dict) else getattr(owner, name)


def _put(owner: Any, name: str, value: Any) -> None:
    if isinstance(owner, dict):
        owner[name] = value
    else:
        setattr(owner, name, value)
