"""Which runs can be trained side by side in one process, and in which numbers they then differ."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Iterator, Mapping, Sequence

from pql.config.compose import load, new_run_dir, parse
from pql.config.schema import Config, known_keys
from pql.errors import UserError
from pql.keys import keys_of

OF_ONE_RUN = ("seed", "run_dir", "resume")  # what a run has of its own


def load_each(overrides: list[str]) -> list[Config]:
    """The runs that a command line asks for: one, or one for each of `seeds=[...]`, in folders below its run_dir.

    `pack=FILE` names a JSON file with the words of each run, {"runs": [["task=Ant", ...], ...]}.

    Raises UserError as `load` does.
    """
    files = [word.partition("=")[2] for word in overrides if word.startswith("pack=")]
    if files:
        return _load_pack(Path(files[0]), overrides)
    words = [word for word in overrides if word.startswith("seeds=")]
    if not words:
        return [load(overrides)]
    seeds = parse(words[-1:])["seeds"]
    rule = "must be a list of different whole numbers of 0 or more: seeds=[0,1,2,3]"
    if not isinstance(seeds, list) or not seeds or len(set(map(str, seeds))) < len(seeds):
        raise UserError(f"{words[-1]}: {rule}")
    if any(type(seed) is not int or seed < 0 for seed in seeds):
        raise UserError(f"{words[-1]}: {rule}")
    rest = [word for word in overrides if word not in words]
    given = parse(rest)
    if "seed" in given:
        raise UserError(f"seed={given['seed']} and {words[-1]}: give one of them")
    folder = given.get("run_dir")
    if folder is not None and (Path(str(folder)) / "config.yaml").exists():
        raise UserError(f"run_dir={folder} is itself a run: name a folder for the runs of several seeds")
    if folder is None:
        folder = new_run_dir(load([*rest, f"seed={seeds[0]}"]), "seeds")
    rest = [word for word in rest if not word.startswith("run_dir=")]
    return [load([*rest, f"seed={seed}", f"run_dir='{folder}/s{seed}'"]) for seed in seeds]


def _load_pack(path: Path, overrides: list[str]) -> list[Config]:
    if len(overrides) > 1:
        raise UserError(f"pack={path}: the file says all there is to say: give no other word")
    try:
        runs = json.loads(path.read_text())["runs"]
        words = [[str(word) for word in run] for run in runs]
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise UserError(f'pack={path}: must be a file with {{"runs": [["key=value", ...], ...]}} ({what})') from error
    if not words:
        raise UserError(f"pack={path}: names no run")
    composed: dict[Any, Any] = {}
    return [load(run, composed) for run in words]


def why_not_together(cfgs: Sequence[Config]) -> str | None:
    """Why these can't be trained side by side, in one line; None where they can."""
    first = cfgs[0]
    if first.runtime != "sync":
        return f"runtime={first.runtime} trains one run at a time (runtime=sync several side by side)"
    if first.algo.v_device or first.algo.p_device:
        return "algo.v_device and algo.p_device give the learner of one run a GPU of its own"
    if first.algo.replay_device == "cpu" and first.device != "cpu":
        return "algo.replay_device=cpu on a GPU trains one run at a time"
    if first.data is not None:
        return "data= trains one run at a time"
    if first.max_time is not None:
        return f"max_time={first.max_time:g} is each run's own time"
    if first.profile:
        return "profile=true traces one run"
    if first.wandb:
        return "wandb=true logs one run at a time"
    numbers = numbers_of(first)
    for cfg in cfgs[1:]:
        mine, theirs = flat(first), flat(cfg)
        for name in {**mine, **theirs}:
            a, b = mine.get(name), theirs.get(name)
            if name not in OF_ONE_RUN and a != b and not (name in numbers and _is_number(a) and _is_number(b)):
                return f"they differ in {name} ({a} and {b}), which changes more than numbers"
    return None


def differing_numbers(cfgs: Sequence[Config]) -> dict[str, list[float]]:
    """Option of the algorithm -> its values, where not all are equal."""
    each = [flat(cfg) for cfg in cfgs]
    found = {name: [values[name] for values in each] for name in numbers_of(cfgs[0])}
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


def flat(cfg: Config) -> dict[str, Any]:
    """A configuration by dotted key."""

    def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in tree.items():
            if isinstance(value, dict) and value:
                yield from walk(value, f"{prefix}{name}.")
            else:
                yield prefix + name, value

    return dict(walk(dataclasses.asdict(cfg), ""))
