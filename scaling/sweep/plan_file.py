"""A sweep's plan: axes and fixed overrides become cells, and the plan file says which cell runs where.

`plan.json` in the sweep's folder is the only truth: cell -> hash of its overrides -> run directory. It is written
atomically and carries a checksum, so that an edit by hand is noticed; cells are only ever added, never changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, List, Mapping, Sequence

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from scaling.errors import InputError, nearest
from scaling.sweep.locks import exclusive

CFG = Path(__file__).resolve().parents[2] / "cfg"
PLAN = "plan.json"
RESERVED = ("run_dir", "resume")  # the sweep sets these for every cell
UTD_KEYS = ("algo.utd", "algo.critic_updates_per_step")  # two names of one quantity: exactly one may be given
SWEEP_FIELDS = ("axes", "fixed", "assume")
Resolver = Callable[[List[str]], Mapping[str, Any]]


@dataclass(frozen=True)
class Cell:
    """One run of a sweep: `overrides` (config key -> value), `name` (its axes' values), `run_dir` below the sweep."""

    hash: str
    name: str
    run_dir: str
    overrides: dict[str, Any]

    def command_line(self, out: Path) -> list[str]:
        """The trainer's arguments; `resume=true` starts an absent run and continues an interrupted one."""
        items = {**self.overrides, "run_dir": str((out / self.run_dir).resolve()), "resume": True}
        return [f"{key}={to_override(value)}" for key, value in items.items()]


@dataclass
class Plan:
    """All cells of one sweep and the trainer that runs them (empty: this repository's scripts/train.py)."""

    cells: list[Cell]
    trainer: list[str] = field(default_factory=list)
    assume: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)  # of the first cell, resolved: what a restart needs to know

    def cell(self, cell_hash: str) -> Cell:
        return next(cell for cell in self.cells if cell.hash == cell_hash)


@dataclass
class Request:
    """What the user asked for: axes (joint keys -> values) and fixed overrides, before the grid is laid out."""

    axes: dict[tuple[str, ...], list[Any]]
    fixed: dict[str, Any]
    assume: dict[str, float]


# ---- from a sweep file and key=value overrides to cells


def load_group(group: str, name: str, folder: Path = CFG) -> dict[str, Any]:
    """Read `cfg/<group>/<name>.yaml`, or `name` itself if it is a path to a YAML file."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else folder / group / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in (folder / group).glob("*.yaml"))
        raise InputError(f"{group}={name}: no such file {path}; {nearest(name, known)}")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (OmegaConfBaseException, YAMLError) as error:
        raise InputError(f"{path}: not readable as YAML ({' '.join(str(error).split())}): correct it") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: empty or not a table of keys: see cfg/{group}/ for an example")
    return content


def make_request(sweep: Mapping[str, Any], overrides: Sequence[str], source: str = "sweep file") -> Request:
    """Join a sweep file's `axes` and `fixed` with the command line, which wins.

    `key=1,2,4` (commas outside brackets, as in Hydra's multirun) makes an axis, `key=3` fixes a value. An axis of
    joint keys, `a,b: [1, 2]`, gives both the same value; `a,b: [[1, 2], [3, 4]]` gives each its own.
    """
    for key in sweep:
        if key not in SWEEP_FIELDS:
            raise InputError(f"{source}: unknown field {key!r}; {nearest(str(key), SWEEP_FIELDS)}")
    axes = {tuple(str(key).replace(" ", "").split(",")): values for key, values in (sweep.get("axes") or {}).items()}
    fixed = dict(sweep.get("fixed") or {})
    for item in overrides:
        key, equals, text = item.partition("=")
        key = key.strip().lstrip("+")
        if not equals or not key:
            raise InputError(f"{item!r} is not key=value: write for instance seed=0,1,2")
        given = parse_values(key, text)
        listed = any(key in keys and not any(isinstance(v, list) for v in values) for keys, values in axes.items())
        if listed and len(given) == 1 and isinstance(given[0], list):
            raise InputError(f"{item}: brackets make one list value; write {key}={text.strip()[1:-1]} for an axis")
        for keys in [keys for keys in axes if key in keys]:
            rest = tuple(k for k in keys if k != key)
            if rest:
                raise InputError(f"{key} is tied to {','.join(rest)} in the {source}: change the axis there")
            del axes[keys]
        rival = next((k for k in UTD_KEYS if key in UTD_KEYS and k != key), None)
        if rival:  # the other name of the same quantity gives way to the one on the command line
            axes.pop((rival,), None)
            fixed.pop(rival, None)
        fixed.pop(key, None)
        if len(given) > 1:
            axes[(key,)] = given
        else:
            fixed[key] = given[0]
    request = Request(axes, fixed, dict(sweep.get("assume") or {}))
    _check(request)
    return request


def _check(request: Request) -> None:
    seen = list(request.fixed)
    for keys, values in request.axes.items():
        seen += keys
        if not isinstance(values, list) or not values:
            raise InputError(f"axis {','.join(keys)} has no values: give at least one, {keys[0]}=1,2 for instance")
        for value in values:
            if len(keys) > 1 and isinstance(value, list) and len(value) != len(keys):
                raise InputError(f"axis {','.join(keys)}: {value} has {len(value)} values for {len(keys)} keys")
        if len({json.dumps(_canonical(v)) for v in values}) < len(values):
            raise InputError(f"axis {','.join(keys)} names a value twice in {values}: name each once")
    for key in seen:
        if seen.count(key) > 1:
            raise InputError(f"{key} is given twice (axes and fixed): give it once")
        if key in RESERVED:
            raise InputError(f"{key} is set by the sweep for every cell: leave it out")
    if all(key in seen for key in UTD_KEYS):
        raise InputError(f"give exactly one of {' and '.join(UTD_KEYS)}: they are the same quantity")
    if "max_env_steps" not in seen:
        raise InputError("max_env_steps is missing: give max_env_steps=<environment steps per run>")
    steps = [v for k, vs in request.axes.items() if "max_env_steps" in k for v in vs] or [request.fixed.get(
        "max_env_steps")]
    for value in steps:
        if not isinstance(value, list) and not (isinstance(value, (int, float)) and value > 0):
            raise InputError(f"max_env_steps={value} is not a positive number: give environment steps per run")


def lay_out(request: Request) -> list[Cell]:
    """The grid's cells, the first axis slowest."""
    grid = itertools.product(*([_spread(keys, value) for value in values] for keys, values in request.axes.items()))
    return [_cell(request.fixed, dict(itertools.chain(*combination))) for combination in grid]


def resolve_request(request: Request, resolve: Resolver, skip: Sequence[str] = (),
                    say: Callable[[str], None] | None = None) -> Mapping[str, Any]:
    """Show every value of every axis to the trainer's own config; return the first cell, resolved.

    `resolve` (overrides -> flat resolved config) raises `InputError` for a key or a value that the trainer refuses.
    Keys in `skip` are not shown: a device that only the machine that will train can judge.
    """
    axes = [[_spread(keys, value) for value in values] for keys, values in request.axes.items()]
    axes = [_telling(axis) for axis in axes]
    resolved, told = [], time.monotonic()
    count = max((len(values) for values in axes), default=1)
    for i in range(count):  # along the diagonal: few checks, every value
        values = {**request.fixed, **dict(itertools.chain(*(axis[min(i, len(axis) - 1)] for axis in axes)))}
        resolved.append(resolve([f"{key}={to_override(value)}" for key, value in values.items() if key not in skip]))
        if say and time.monotonic() - told > 3:
            told = time.monotonic()
            say(f"checking the axes' values: {i + 1} of {count}")
    return resolved[0]


def _telling(axis: list[list[tuple[str, Any]]], most: int = 16) -> list[list[tuple[str, Any]]]:
    """Of a long axis of whole numbers the first, least and largest: what is refused is a sign, a range or a type."""
    numbers = [point[0][1] for point in axis]
    if len(axis) <= most or not all(len(point) == 1 and type(value) is int for point, value in zip(axis, numbers)):
        return axis
    return [axis[0], axis[numbers.index(min(numbers))], axis[numbers.index(max(numbers))]]


def _spread(keys: tuple[str, ...], value: Any) -> list[tuple[str, Any]]:
    values = value if len(keys) > 1 and isinstance(value, list) else [value] * len(keys)
    return list(zip(keys, values))


def _cell(fixed: Mapping[str, Any], axis_values: Mapping[str, Any]) -> Cell:
    overrides = {**fixed, **axis_values}
    digest = config_hash(overrides)
    short = {key: to_override(value).strip("'") for key, value in axis_values.items()}
    name = " ".join(f"{key.rsplit('.', 1)[-1]}={value}" for key, value in short.items()) or "single"
    slug = re.sub(r"[^A-Za-z0-9.+=-]", "", name.replace(" ", "-").replace("_", "")).replace("=", "")[:80]
    return Cell(digest, name, f"runs/{slug}-{digest[:8]}", overrides)


def config_hash(overrides: Mapping[str, Any]) -> str:
    """12 hex digits over keys and values; 1 and 1.0, 1e-3 and .001 are the same value, order does not matter."""
    items = {key: _canonical(value) for key, value in overrides.items() if key not in RESERVED}
    return hashlib.sha256(json.dumps(items, sort_keys=True).encode()).hexdigest()[:12]


def _canonical(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_canonical(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def parse_values(key: str, text: str) -> list[Any]:
    """The values of `key=text`: split at commas outside brackets and quotes, each read as YAML would (1e-4 a float)."""
    parts = re.findall(r"""(?:\[[^\]]*\]|\{[^}]*\}|'[^']*'|"[^"]*"|[^,])+""", text)
    if not text.strip() or len(parts) != text.count(",") - sum(p.count(",") for p in parts) + 1:
        raise InputError(f"{key}={text}: an empty value; give at least one, {key}=1,2 for instance")
    try:
        return [OmegaConf.to_container(OmegaConf.create(f"v: {part.strip()}"), resolve=False)["v"] for part in parts]
    except (OmegaConfBaseException, YAMLError):
        raise InputError(f"{key}={text}: cannot be read; quote text with special characters") from None


def to_override(value: Any) -> str:
    """Write a value in Hydra's override grammar; interpolations pass through."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(to_override(v) for v in value) + "]"
    if isinstance(value, (int, float)):
        return repr(_canonical(value))
    text = str(value)
    if re.fullmatch(r"[\w./+@:%-]+|\$\{[^{}]+\}", text, re.ASCII) and _is_text(text):
        return text
    # backslashes are doubled only where a quote follows: anywhere else the grammar takes them as they are
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text) + "'"


def _is_text(text: str) -> bool:
    """Whether a bare word is read back as text and not as a number, a truth value or nothing."""
    if text.lower() in ("null", "none", "true", "false", "nan", "inf"):
        return False
    return re.fullmatch(r"[+-]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][+-]?\d+)?|[+-]?(inf|nan)", text, re.I) is None


# ---- the plan file


def save_plan(out: Path, plan: Plan, extend: bool = False) -> Plan:
    """Create `out/plan.json`, or check that it holds the same cells, or with `extend` add to it; return what holds."""
    if out.exists() and not out.is_dir():
        raise InputError(f"out={out} is a file: give a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"out={out} cannot be made ({error.strerror}): give a folder you may write to") from None
    with exclusive(out / ".plan.lock"):
        if (out / PLAN).exists():
            old = load_plan(out)
            known = {cell.hash for cell in old.cells}
            new = [cell for cell in plan.cells if cell.hash not in known]
            if plan.trainer != old.trainer:
                raise InputError(f"{out} was planned for another trainer: give a new out folder")
            if (new or len(plan.cells) != len(known)) and not extend:
                raise InputError(f"{out} holds a plan with other cells ({len(new)} of {len(plan.cells)} asked for are "
                                 f"new, it has {len(known)}): give a new out folder, or extend=true to add cells")
            if not new:
                return old
            plan = Plan(old.cells + new, old.trainer, {**old.assume, **plan.assume}, plan.settings)
        _write(out / PLAN, plan)
        return plan


def _write(path: Path, plan: Plan) -> None:
    body = {"version": 1, "trainer": plan.trainer, "assume": plan.assume, "settings": plan.settings,
            "cells": [vars(cell) for cell in plan.cells]}
    write_json(path, {**body, "checksum": _checksum(body)})


def load_plan(out: Path) -> Plan:
    """Read `out/plan.json`; refuses one that was edited by hand or is damaged."""
    path = out / PLAN
    remedy = "restore it, or plan again into a new out folder"
    try:
        body = json.loads(path.read_text())
        checksum = body.pop("checksum")
        if checksum != _checksum(body):
            raise InputError(f"{path} was edited (its checksum differs): {remedy}")
        plan = Plan([Cell(**cell) for cell in body["cells"]], body["trainer"], body["assume"], body["settings"])
    except FileNotFoundError:
        raise InputError(f"{out} holds no {PLAN}: plan a sweep with sweep=<name> out={out}") from None
    except NotADirectoryError:
        raise InputError(f"out={out} is a file: give a folder") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged ({type(error).__name__}): {remedy}") from None
    for cell in plan.cells:
        parts = Path(cell.run_dir).parts
        if not parts or Path(cell.run_dir).is_absolute() or ".." in parts:
            raise InputError(f"{path} names a run outside the sweep ({cell.run_dir!r}): {remedy}")
        if cell.hash != config_hash(cell.overrides):
            raise InputError(f"{path} was edited (cell {cell.name} does not match its hash): {remedy}")
    return plan


def foreign_code(plan: Plan) -> list[str]:
    """What cells of this plan run beside this repository's trainer, in words; a plan may come from someone else."""
    out = [f"the trainer {shlex.join(plan.trainer)!r}"] if plan.trainer else []
    plugins = sorted({str(name) for cell in plan.cells for name in _listed(cell.overrides.get("plugins"))})
    pythons = sorted({str(cell.overrides["sim.python"]) for cell in plan.cells if cell.overrides.get("sim.python")})
    out += [f"the interpreters {', '.join(pythons)}"] if pythons else []
    return out + ([f"the plugins {', '.join(plugins)}"] if plugins else [])


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write atomically: a reader sees the old file or the new one, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "w") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:  # a full disk: leave no half of it behind
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
