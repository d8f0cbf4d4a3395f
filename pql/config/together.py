"""Which runs can be trained side by side in one process, and in which numbers they then differ."""

from __future__ import annotations

import dataclasses
from typing import Any, Mapping, Sequence

from pql.config.schema import Config, known_keys
from pql.keys import keys_of

OF_ONE_RUN = ("seed", "run_dir", "resume")  # what a run has of its own


def why_not_together(cfgs: Sequence[Config]) -> str | None:
    """Why these can't be trained side by side, in one line; None where they can."""
    first = cfgs[0]
    if first.runtime != "sync":
        return f"runtime={first.runtime} trains one run at a time (runtime=sync several side by side)"
    if first.device != "cpu":
        return f"device={first.device}: only on the CPU are runs trained side by side"
    if first.max_time is not None:
        return f"max_time={first.max_time:g} is each run's own time"
    if first.wandb:
        return "wandb=true logs one run at a time"
    numbers = numbers_of(first)
    for cfg in cfgs[1:]:
        mine, theirs = _flat(first), _flat(cfg)
        for name in {**mine, **theirs}:
            a, b = mine.get(name), theirs.get(name)
            if a != b and not (name in numbers and _is_number(a) and _is_number(b)):
                return f"they differ in {name} ({a} and {b}), which changes more than numbers"
    return None


def differing_numbers(cfgs: Sequence[Config]) -> dict[str, list[float]]:
    """Option of the algorithm -> its values, where not all are equal."""
    flat = [_flat(cfg) for cfg in cfgs]
    found = {name: [values[name] for values in flat] for name in numbers_of(cfgs[0])}
    return {name[len("algo.") :]: values for name, values in found.items() if len(set(values)) > 1}


def numbers_of(cfg: Config) -> set[str]:
    """Keys that are numbers in losses and optimizers and nothing else: no shape, no count, nothing in replay."""
    about = known_keys(cfg.algo.name)
    kinds = {f"algo.{name}": str(f.type) for name, (f, _) in keys_of(type(cfg.algo)).items()}
    return {
        name for name, kind in kinds.items()
        if "float" in kind and name != "algo.utd" and not about[name].get("identity")
    }  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _flat(cfg: Config) -> dict[str, Any]:
    def walk(tree: Mapping[str, Any], prefix: str) -> Any:
        for name, value in tree.items():
            if isinstance(value, dict) and value:
                yield from walk(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    return {name: value for name, value in walk(dataclasses.asdict(cfg), "") if name not in OF_ONE_RUN}
