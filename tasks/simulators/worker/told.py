"""Numbers that environments tell in `info`, their success say: one number for each episode."""

from __future__ import annotations

import contextlib
import math
from typing import Any, Mapping, Sequence

import numpy as np

from .block import Block
from .errors import Mistake, did_you_mean

HOW = ("max", "mean")
NEAR = 0.75  # from here on another name is meant, though this one may yet be told at an episode's end


class Told:
    """What is told of each environment's newest episode that ended; NaN until one has.

    Args:
        names: keys of `info`: "key" as it is in an episode's last step, "key/max" and "key/mean" over the episode's
            steps. Steps that do not tell it, or tell no finite number, do not count.
        num_envs: how many environments.
        task: its name, for messages.
    """

    def __init__(self, names: Sequence[str], num_envs: int, task: str):
        self.names, self.count, self._task = list(dict.fromkeys(names)), len(set(names)), task
        parts = [name.rpartition("/") for name in self.names]
        self._keys = [key if key and how in HOW else name for name, (key, _, how) in zip(self.names, parts)]
        self._how = [how if key and how in HOW else "" for key, _, how in parts]
        self._unseen, self._others = set(self._keys), set()
        self._last, self._max, self._total, self._times = np.zeros((4, num_envs, self.count))
        self._forget(slice(None))

    def _forget(self, rows: Any) -> None:
        self._last[rows] = self._max[rows] = np.nan
        self._total[rows] = self._times[rows] = 0.0

    def reset(self, rows: Block) -> None:
        """All episodes begin anew."""
        rows.metrics[:] = np.nan
        self._forget(slice(None))

    def step(self, infos: Sequence[Mapping[str, Any]], ended: np.ndarray, rows: Block) -> None:
        """Note what a step of each environment told; where an episode `ended` (N,), sum it up.

        Raises:
            Mistake: for what is no number, and where nothing tells it: at once if something of a similar name is told,
                else when an episode has ended.
        """
        if self._unseen:
            self.look(infos, bool(ended.any()))
        values = np.array([[_number(info, key) for key in self._keys] for info in infos])
        told = np.isfinite(values)
        self._last[:] = np.where(told, values, np.nan)
        np.fmax(self._max, self._last, out=self._max)
        self._total += np.where(told, values, 0.0)
        self._times += told
        if ended.any():
            mean = np.divide(self._total, self._times, out=np.full_like(values, np.nan), where=self._times > 0)
            found = {"": self._last, "max": self._max, "mean": mean}
            for column, how in enumerate(self._how):
                rows.metrics[ended, column] = found[how][ended, column]
            self._forget(ended)

    def look(self, infos: Sequence[Mapping[str, Any]], ended: bool) -> None:
        """Which of the keys are told by now; raises Mistake for one that is not, see `step`."""
        for info in infos:
            for key in self._keys:
                _number(info, key)
            self._unseen.difference_update(info)
            self._others.update(key for key in info if _is_number(info, key))
        for key in sorted(self._unseen):
            hint = did_you_mean(key, self._others, 0.5 if ended else NEAR)
            if hint or ended:
                known = ", ".join(sorted(map(str, self._others))) or "none"
                raise Mistake(
                    f"{self._task}'s info tells no {key!r}, which sim.metrics asks for; {hint}numbers told: {known}"
                )


def _number(info: Mapping[str, Any], key: str) -> float:
    value = info.get(key)
    if value is None:
        return math.nan
    if isinstance(value, (int, float, np.integer, np.floating, np.bool_)):
        return float(value)
    with contextlib.suppress(TypeError, ValueError):
        found = np.asarray(value, np.float64)
        if found.size == 1:
            return float(found.item())
    raise Mistake(f"info[{key!r}], which sim.metrics asks for, is {type(value).__name__}: only numbers can be told")


def _is_number(info: Mapping[str, Any], key: str) -> bool:
    try:
        return info[key] is not None and math.isfinite(_number(info, key))
    except Mistake:
        return False
