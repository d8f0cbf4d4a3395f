"""All readers of other libraries' logs, and a folder of such logs as one table."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling.curves.readers.base import Ask, Files, Log, Reader, Source
from scaling.curves.readers.cleanrl import CleanRL
from scaling.curves.readers.d3rlpy import D3rlpy
from scaling.curves.readers.meta import HELP, IDENTITY, READING, Meta
from scaling.curves.readers.rl_games import RlGames
from scaling.curves.readers.rsl_rl import RslRl
from scaling.curves.readers.skrl import Skrl
from scaling.curves.readers.stable_baselines3 import StableBaselines3
from scaling.curves.readers.tensorboard import TensorBoard
from scaling.curves.readers.tianshou import Tianshou
from scaling.curves.readers.torchrl import TorchRL
from scaling.curves.readers.wandb import WandB
from scaling.curves.table import Curves
from scaling.errors import InputError

READERS: list[Reader] = [StableBaselines3(), RslRl(), Skrl(), RlGames(), CleanRL(), TorchRL(), Tianshou(), D3rlpy(),
                         WandB(), TensorBoard()]  # fmt: skip
GAP = 10.0  # times the usual distance of two points


def register(reader: Reader) -> None:
    """Add a reader; what it finds no other is asked for. A plugin calls this."""
    READERS.insert(0, reader)


def import_plugins(paths: list[str]) -> None:
    """Run each file, so that the readers in it are registered. Raises InputError where there is none."""
    for path in map(Path, paths):
        name = f"plugin:{path.resolve()}"
        if name in sys.modules:
            continue
        if path.suffix != ".py" or not path.exists():
            raise InputError(f"plugins: {path} is no Python file; give plugins=[file.py]")
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module


def find(files: Files) -> list[tuple[Reader, Source]]:
    """Each run with the first reader that knows it; what lies in a run's folder but nobody knows belongs to the run."""
    found: dict[Source, Reader] = {}
    for reader in READERS:
        for source in reader.find(files):
            inside = isinstance(reader, TensorBoard) and any(s.path in source.path.parents for s in found)
            if source not in found and not inside:
                found[source] = reader
    return sorted(((reader, source) for source, reader in found.items()), key=lambda pair: str(pair[1].label))


def read_logs(files: Files, found: list[tuple[Reader, Source]], told: str | None) -> Curves:
    """The runs found as a curves table. Raises InputError with one question for all that they do not tell."""
    meta, rows, notes = Meta(told), [], []
    asked: dict[str, tuple[str, str]] = {}  # key -> first run, why
    for reader, source in found:
        name = source.label.relative_to(files.root).as_posix()
        name = files.root.resolve().name if name == "." else name
        given = meta.of(source.label)
        try:
            log = _finite(reader.read(files, source, given))
            settings = {**log.settings, **given}
        except Ask as ask:
            if isinstance(reader, TensorBoard) and any(not isinstance(other, TensorBoard) for other, _ in found):
                notes.append(f"run {name}: left out, event files of no known library; {ask.key} and env_steps_per_step "
                             "would make it readable")  # fmt: skip
                continue
            asked.setdefault(ask.key, (name, f"{reader.library}: {ask.why}"))
            settings, log = {**ask.settings, **given}, None
        except Exception as error:  # whatever a broken log holds, it is named and the others go on
            what = "" if isinstance(error, InputError) else f"it cannot be read, {type(error).__name__}: "
            notes.append(f"run {name}: left out, {what}{str(error).splitlines()[0] if str(error) else 'no reason'}")
            continue
        for key in IDENTITY:
            if key not in settings:
                asked.setdefault(key, (name, reader.library))
        if log is not None and not any(key not in settings for key in IDENTITY):
            rows.append(_rows(log, settings, name, reader.library))
            damage = _damage(files, source) if source.path in files.event_folders else []
            notes += [f"run {name}: {note}" for note in [*log.notes, *damage, *_remarks(log, given)]]
    if asked:
        raise InputError("; ".join([_question(files.root, asked), *meta.unused()]))
    if not rows:
        first = f"; first problem: {notes[0]}" if notes else ""
        raise InputError(f"{files.root}: none of {len(found)} logs can be used{first}")
    notes += [remark for reader in READERS for remark in reader.remarks(files)] + meta.unused()
    table = pd.concat(rows, ignore_index=True)
    if table["seed"].map(type).nunique() > 1:
        table["seed"] = table["seed"].astype(str)
    on_policy = table.loc[table["on_policy"], "run"].nunique()
    if on_policy:
        notes.append(f"{on_policy} runs are on-policy: their utd counts minibatches by env steps, without a replay")
    return Curves(table, notes)


def _finite(log: Log) -> Log:
    """Without what stands before the first episode ended. Raises InputError where a later return is no number."""
    number = np.isfinite(np.asarray(log.episode_return, dtype=float))
    if not number.any():
        raise InputError("it has no return")
    first = int(np.argmax(number))
    if not number[first:].all():
        raise InputError(f"its return is no number at {log.env_steps[first:][~number[first:]][0]:g} env steps")
    return replace(log, env_steps=log.env_steps[first:], episode_return=log.episode_return[first:])


def _rows(log: Log, settings: dict[str, Any], name: str, library: str) -> pd.DataFrame:
    columns = {key: value for key, value in settings.items() if key not in READING}
    steps = np.asarray(log.env_steps, dtype=float) + float(settings.get("env_steps_before", 0.0))
    rows = pd.DataFrame({"env_steps": steps, "episode_return": log.episode_return})
    return rows.assign(**columns, run=name, library=library, on_policy=log.on_policy)


def _remarks(log: Log, given: dict[str, Any]) -> list[str]:
    """What the user overrode, and gaps."""
    out = [f"its files say {key} {log.settings[key]}, meta {given[key]}: meta counts" for key in IDENTITY
           if key in given and key in log.settings and str(log.settings[key]) != str(given[key])
           and not _close(log.settings[key], given[key])]  # fmt: skip
    steps = np.unique(log.env_steps)
    if len(steps) > 3:
        usual = float(np.median(np.diff(steps)))
        wide = np.flatnonzero(np.diff(steps) > GAP * usual)
        out += [f"no points from {steps[i]:g} to {steps[i + 1]:g} env steps: a crossing there is interpolated"
                for i in wide[:3]]  # fmt: skip
        if steps[0] > max(5.0 * usual, 0.05 * steps[-1]):
            out.append(f"its first point is at {steps[0]:g} env steps: a return reached by then was reached before")
    return out


def _damage(files: Files, source: Source) -> list[str]:
    """Event files that end in something unreadable."""
    return [f"{file.path.name}: its last {file.unread} bytes cannot be read, its writer was killed or it is damaged"
            for file in files.events(source.path).files if file.unread]  # fmt: skip


def _close(a: Any, b: Any) -> bool:
    try:
        return bool(np.isclose(float(a), float(b), rtol=1e-6))
    except (TypeError, ValueError):
        return False


def _question(root: Path, asked: dict[str, tuple[str, str]]) -> str:
    keys = [*(key for key in READING if key in asked), *(key for key in IDENTITY if key in asked)]
    run, why = asked[keys[0]]
    values = ",".join(f"{key}=..." for key in keys)
    return (f"{root}: its files do not tell {', '.join(keys)}, first of run {run} ({why}); give "
            + HELP.format(keys=", ".join(keys), values=f'meta="{values}"'))  # fmt: skip
