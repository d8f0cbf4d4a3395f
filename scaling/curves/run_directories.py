"""A folder of run directories (DESIGN, contract 6) as a curves table and as measurements for the cost model.

The only thing training and science share. A broken run beside good ones costs a note, never the analysis.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from scaling.curves.fixed_data import NOTE, drop_derived, one_point
from scaling.curves.keys import differing
from scaling.curves.settings import held_first
from scaling.curves.table import Curves
from scaling.errors import InputError
from scaling.sweep.plan_file import load_plan

RATE = "algo.critic_lr"  # the key that the laws call the learning rate
WINDOWS_PER_RUN = 40  # stretches a run's log is cut into for the cost model


def pick(tree: Any, dotted: str, default: Any = None) -> Any:
    """Value at `a.b.c` of nested dictionaries, or the default."""
    for key in dotted.split("."):
        if not isinstance(tree, dict) or key not in tree:
            return default
        tree = tree[key]
    return default if tree is None else tree


def put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Set the value at `a.b.c` of nested dictionaries."""
    *path, last = dotted.split(".")
    for key in path:
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    tree[last] = value


def read_metrics(path: Path) -> pd.DataFrame:
    """metrics.jsonl as a table; unreadable lines (a run may have been killed in the middle of one) are skipped."""
    rows = []
    with path.open() as file:
        for line in file:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict):
                rows.append({k: v for k, v in row.items() if isinstance(v, (int, float)) and not isinstance(v, bool)})
    return pd.DataFrame(rows)


def windows_of(metrics: pd.DataFrame, batch_size: float, overlapped: bool) -> pd.DataFrame:
    """Differences between logs: transitions, updates, seconds. The first stretch (warm-up, compilation) is left out."""
    columns = ["env_steps", "critic_updates", "wall_time_s"]
    if not set(columns) <= set(metrics):
        return pd.DataFrame()
    log = metrics[columns].dropna().drop_duplicates("env_steps").sort_values("env_steps")
    log = log[log["critic_updates"] > 0]
    if len(log) < 3:
        return pd.DataFrame()
    log = log.iloc[np.unique(np.linspace(1, len(log) - 1, WINDOWS_PER_RUN + 1).round().astype(int))]
    step = log.diff().iloc[1:]
    return pd.DataFrame({
        "transitions": step["env_steps"], "updates": step["critic_updates"], "seconds": step["wall_time_s"],
        "batch_size": batch_size, "overlapped": overlapped,
    })  # fmt: skip


def with_own_seconds(metrics: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The lines whose wall_time_s is, or was modelled to be, what the run takes alone; a note where not all were.

    A run beside others tells of a model's seconds (time_alone_s); to what a part of it took alone they do not add.
    """
    if "runs_side_by_side" not in metrics or not metrics["runs_side_by_side"].notna().any():
        return metrics, []
    beside = metrics["runs_side_by_side"].notna() | metrics["wall_time_s"].isna()
    if "time_alone_s" in metrics and beside.all():
        note = "its seconds are modelled: it was one of several side by side, and one alone was timed for a moment"
        return metrics.assign(wall_time_s=metrics["time_alone_s"]), [note]
    return metrics[~beside], ["its seconds are those of several runs side by side, not its own: left out"]


def read_run(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, dict, list[str]]:
    """One run: its curve, its windows, facts for the cost model, notes. Raises ValueError if it cannot be used."""
    for name in ("config.yaml", "metrics.jsonl"):
        if not (folder / name).exists():
            raise ValueError(f"it has no {name} (never started, or deleted)")
    try:
        config = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"), resolve=False)
    except Exception as error:
        raise ValueError(f"config.yaml cannot be read ({type(error).__name__})") from None
    metrics = read_metrics(folder / "metrics.jsonl")
    summary, notes = {}, []
    first, until, changed = held_first(folder)
    data = pick(config, "data")
    if changed and data is None:  # its curve is that of its first settings, up to where they held
        for key, value in first.items():
            put(config, key, value)
        if "env_steps" in metrics:
            metrics = metrics[metrics["env_steps"] <= until]
        notes.append(f"resumed at {until:g} env steps with {', '.join(changed[:4])}: counts with what it began with, "
                     "up to there")  # fmt: skip
    if (folder / "summary.json").exists():
        summary = json.loads((folder / "summary.json").read_text())
    if summary.get("status") != "completed" and not changed and data is None:
        notes.append(f"not completed (status: {summary.get('status', 'no summary.json')}): used up to where it ended")
    task = pick(config, "task.name", pick(config, "task"))
    if not isinstance(task, str):
        raise ValueError("config.yaml names no task")
    column = next((c for c in ("eval_return", "train_return") if c in metrics and metrics[c].notna().any()), None)
    if column is None or "env_steps" not in metrics:
        raise ValueError("metrics.jsonl has no line with env_steps and eval_return or train_return")
    if column == "train_return":
        notes.append("no evaluations: the training return stands in")
    utd = pick(config, "algo.utd", pick(config, "utd"))
    if utd is None and pick(config, "algo.critic_updates_per_step") and pick(config, "num_envs"):
        utd = pick(config, "algo.critic_updates_per_step") / pick(config, "num_envs")
    utd = utd if utd is not None else summary.get("utd")
    if utd is None:
        raise ValueError("neither config.yaml (algo.utd) nor summary.json (utd) tells the update ratio")
    measured = summary.get("utd")
    if measured and not changed and data is None and abs(measured / float(utd) - 1) > 0.01:
        notes.append(f"measured utd {measured:.4g} is not the requested {float(utd):.4g}")
    curve = metrics[["env_steps", column]].dropna().rename(columns={column: "episode_return"})
    ahead = curve["env_steps"][::-1].cummin()[::-1].shift(-1)  # a resumed run logs some steps again: the later count
    curve = curve[~(curve["env_steps"] >= ahead)] if data is None else one_point(curve, summary.get("status"), changed)
    batch = pick(config, "algo.batch_size", pick(config, "batch_size", np.nan))
    curve = curve.assign(
        task=task, utd=float(utd), seed=pick(config, "seed", 0), batch_size=batch,
        learning_rate=pick(config, "algo.critic_lr", pick(config, "algo.lr", np.nan)),
        model_size=summary.get("critic_parameters", np.nan), agent_size=summary.get("agent_parameters", np.nan),
        run=folder.name,
    )  # fmt: skip
    if data is not None:
        curve = curve.assign(unit=f"{data} seed {pick(config, 'seed', 0)}")
        drop_derived(config)
    overlapped = pick(config, "runtime.name", pick(config, "runtime", "sync")) == "parallel"
    warmup, envs = pick(config, "algo.warmup_steps"), pick(config, "num_envs")  # no envs: a fixed dataset
    facts = {"flops_per_update": summary.get("critic_flops_per_update"), "batch_size": batch,
             "warmup": warmup * envs if warmup and envs else np.nan, "overlapped": overlapped,
             "model_size": summary.get("critic_parameters"), "agent_size": summary.get("agent_parameters"),
             "config": config, "data": data is not None}  # fmt: skip
    metrics, note = with_own_seconds(metrics)
    notes += note
    return curve, windows_of(metrics, float(batch), overlapped), facts, notes


def shared_settings(root: Path) -> dict[str, Any]:
    """What every cell of the sweep in `root` was told alike, and which keys followed the learning rate.

    Returns:
        {"fixed": {key: value}, "learning_rate_keys": [keys]}, or {} where there is no plan of a sweep.
    """
    try:
        cells = [cell.overrides for cell in load_plan(root).cells]
    except InputError:
        return {}
    laws = {"task", "seed", "max_env_steps", "algo.utd", "algo.critic_updates_per_step", "passes", "algo.batch_size",
            RATE}  # fmt: skip
    keys = [key for key in cells[0] if key not in laws and all(key in cell for cell in cells)]
    tied = [key for key in keys if len({c[RATE] for c in cells if RATE in c}) > 1 and
            all(c[key] == c.get(RATE) for c in cells)]  # fmt: skip
    fixed = {key: cells[0][key] for key in keys if key not in tied and all(c[key] == cells[0][key] for c in cells)}
    return {"fixed": fixed, "learning_rate_keys": tied}


def run_folders(root: Path, *names: str) -> list[Path]:
    """Every folder at or below `root`, links followed, that holds one of `names`: by default a metrics.jsonl."""
    found, seen = [], set()
    for folder, inner, files in os.walk(str(root), followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to what was read already, or back up
            inner.clear()
            continue
        seen.add(real)
        if set(names or ("metrics.jsonl",)) & set(files):
            found.append(Path(folder))
    return sorted(found)


def read_run_directories(root: Path, folders: list[Path] | None = None) -> Curves:
    """Every folder below `root` that holds a config.yaml and a metrics.jsonl, or the folders named."""
    if folders is None:
        folders = run_folders(root, "metrics.jsonl", "config.yaml")
    tables, windows, facts, notes = [], [], [], []
    for folder in folders:
        try:
            curve, window, fact, remarks = read_run(folder)
            if not np.isfinite(curve["episode_return"].to_numpy(dtype=float)).all():
                raise ValueError("its return is not finite")
        except Exception as error:  # whatever a broken run holds, it is named and the others go on
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            notes.append(f"run {folder.name}: left out, {text}")
            continue
        name = str(folder.relative_to(root))
        tables.append(curve.assign(run=name, unit=curve.get("unit", name)))
        windows.append(window.assign(run=name))
        facts.append(fact)
        notes += [f"run {folder.name}: {remark}" for remark in remarks]
    if not tables:
        if not folders:
            raise InputError(f"{root}: no run directory (config.yaml, metrics.jsonl) and no log of a known library")
        raise InputError(f"{root}: none of {len(folders)} run directories can be read; first problem: {notes[0]}")
    of_data = sum(fact.pop("data") for fact in facts)
    notes += [NOTE.format(of_data)] if of_data else []
    told, keys = differing([fact.pop("config") for fact in facts])
    table = pd.concat([curve.assign(**settings) for curve, settings in zip(tables, told)], ignore_index=True)
    if of_data:  # a curve's points lie in several folders
        table = table.sort_values("env_steps", kind="stable", ignore_index=True)
    for size in ("model_size", "agent_size"):
        if table[size].isna().any():
            table[size] = table[size].fillna(table[size].median())
    measured = [w for w in windows if len(w)]
    counted = pd.DataFrame(facts)
    ratio = counted["flops_per_update"].astype(float) / counted["batch_size"].astype(float)
    out = {"runs": len(tables), "overlapped": bool(counted["overlapped"].mean() > 0.5)}
    out["settings"], out["keys"] = shared_settings(root), keys
    if counted["warmup"].notna().any():  # transitions before the first update
        out["warmup"] = float(counted["warmup"].max())
    if ratio.notna().any():
        out["flops_per_sample"] = float(ratio.median())
    for size in ("model_size", "agent_size"):
        if counted[size].notna().any():
            out[size] = float(counted[size].astype(float).median())
    return Curves(table, notes, pd.concat(measured, ignore_index=True) if measured else None, out)
