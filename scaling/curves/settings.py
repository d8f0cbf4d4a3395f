"""A run's settings over time (DESIGN, contract 12): what a resume changed, and from which env step on.

settings.jsonl in the run directory: one JSON object per line, written at each start and resume: `env_steps` that the
run had then, and settings by dotted key (all, or all that changed). config.yaml has the last ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LEARNING = ("algo.", "task.", "sim.", "seed", "num_envs", "runtime", "lead_steps", "autocast", "matmul_precision")


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries by dotted key."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            out.update(flat(value, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = value
    return out


def settings_over_time(folder: Path) -> list[tuple[float, dict[str, Any]]]:
    """(env step from which on, settings by dotted key), in order; empty where nothing is recorded.

    A resume from an earlier checkpoint undoes what was recorded after it. Lines cut short by a kill are passed over.
    """
    path = folder / "settings.jsonl"
    history: list[tuple[float, dict[str, Any]]] = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            entry = json.loads(line)
            begin = float(entry.pop("env_steps"))
        except (ValueError, KeyError, AttributeError, TypeError):
            continue
        while history and history[-1][0] > begin:
            history.pop()
        before = history[-1][1] if history else {}
        if history and history[-1][0] == begin:
            history.pop()
        history.append((begin, {**before, **flat(entry)}))
    return history


def held_first(folder: Path) -> tuple[dict[str, Any], float, list[str]]:
    """The settings a run began with, the env step up to which they held (inf: all along), and what changed there.

    Raises ValueError where a change is recorded but not what was before it.
    """
    history = settings_over_time(folder)
    if not history:
        return {}, float("inf"), []
    begin, first = history[0]
    if begin > 0:
        raise ValueError(f"settings.jsonl does not tell the settings before env step {begin:g}")
    for begin, settings in history[1:]:
        keys = [key for key in settings if key.startswith(LEARNING) and settings[key] != first.get(key, KeyError)]
        unknown = [key for key in keys if key not in first]
        if unknown:
            raise ValueError(f"settings.jsonl does not tell {unknown[0]} before env step {begin:g}")
        if keys:
            return first, begin, [f"{key} {first[key]} -> {settings[key]}" for key in keys]
    return first, float("inf"), []
