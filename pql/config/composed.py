"""Configurations of many runs that differ in numbers alone: composed from their files once."""

from __future__ import annotations

import copy
from typing import Any, Callable, Mapping, Sequence

from omegaconf import DictConfig, OmegaConf

PATHS = ("run_dir", "init_from", "data")


def composed_once(
    known: dict[Any, DictConfig] | None, words: Sequence[str], given: Mapping[str, Any],
    compose: Callable[[], DictConfig],
) -> DictConfig:  # fmt: skip
    """What `compose` gives for these words; a copy where but a seed, paths and an algorithm's options are new.

    Args:
        known: what was composed so far, by the words that decide which files are read; None: nothing is remembered.
        given: the words, read.
    """
    if known is None:
        return compose()
    own = [name for name in given if name == "seed" or (name.startswith("algo.") and name != "algo.name")]
    paths = [name for name in PATHS if name in given]
    rest = (word for word in words if word.lstrip("+").partition("=")[0] not in (*own, *paths))
    key = (*rest, None, *sorted(own), None, *paths)
    if key not in known:
        known[key] = compose()
    cfg = copy.deepcopy(known[key])
    for name in (*own, *paths):
        OmegaConf.update(cfg, name, given[name])
    return cfg
