"""stable-baselines3: TensorBoard, evaluations.npz, *.monitor.csv; hyperparameters from a saved model's JSON.

Its steps (num_timesteps) are env steps over all environments. Evaluations are logged twice, and a resume erases the
earlier ones in evaluations.npz alone: TensorBoard comes first. Monitor files hold episodes of training, and a session
writes over those of the one before: they serve where there is nothing else.
"""

from __future__ import annotations

import json
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from scaling.curves.readers.base import Files, Given, Log, Reader, Source, curve_of
from scaling.errors import InputError

EVALUATION, TRAINING = "eval/mean_reward", "rollout/ep_rew_mean"
SIGNATURES = ({EVALUATION, "eval/mean_ep_length"}, {TRAINING, "rollout/ep_len_mean"})
ON_POLICY = {"train/approx_kl", "train/policy_gradient_loss", "train/policy_loss"}
MONITOR = '#{"t_start"'
MAX_JSON = 64 << 20  # bytes of a model's member `data`


class StableBaselines3(Reader):
    """A run is a folder of event files, an evaluations.npz that none of these repeats, or a folder of monitor files."""

    library = "stable-baselines3"

    def find(self, files: Files) -> list[Source]:
        return [Source(path) for path in places(files)]

    def remarks(self, files: Files) -> list[str]:
        beside = sum(path.parent not in places(files) for path in monitors(files))
        return [f"{beside} monitor files lie beside TensorBoard or evaluations: not read"] if beside else []

    def read(self, files: Files, source: Source, given: Given) -> Log:
        path, notes = source.path, []
        settings, on_policy = settings_of(files, path)
        total = settings.pop("num_timesteps", 0)
        if path in files.event_folders:
            tags = files.events(path).tags
            tag = EVALUATION if EVALUATION in tags else TRAINING
            steps, returns = curve_of(files.events(path), tag, given)
            if tag == TRAINING and "return_tag" not in given:
                notes.append("no evaluations: the mean return of its last 100 training episodes stands in")
            if "train/learning_rate" in tags:
                settings.setdefault("learning_rate", float(files.events(path).curve("train/learning_rate")[1][0]))
            return Log(steps, returns, settings, notes, on_policy or bool(ON_POLICY & tags))
        if path.is_file():
            steps, returns = read_evaluations(path)
        else:
            steps, returns = read_monitors([file for file in monitors(files) if file.parent == path])
            notes.append("no evaluations: its training episodes stand in, averaged where several end together")
        if steps[-1] < total / 2 and "env_steps_before" not in given:
            raise InputError(
                f"it ends at {steps[-1]:g} env steps, its saved model at {total:g}: a resume wrote over the first; "
                'tell how many: meta="env_steps_before=..."'
            )
        return Log(steps, returns, settings, notes, on_policy)


def monitors(files: Files) -> list[Path]:
    """Monitor files by their first line."""
    return [path for path in files.named("*.csv") if files.first_line(path).startswith(MONITOR)]


@lru_cache(maxsize=None)
def places(files: Files) -> tuple[Path, ...]:
    """Where the runs lie: folders of event files, evaluations.npz files, folders of monitor files."""
    logs = [folder for folder in files.event_folders if any(pair <= files.events(folder).tags for pair in SIGNATURES)]
    alone = [path for path in files.named("evaluations.npz") if not any(repeats(files, f, path) for f in logs)]
    return tuple(logs + alone) or tuple(sorted({path.parent for path in monitors(files)}))


def repeats(files: Files, folder: Path, path: Path) -> bool:
    """Whether an evaluations.npz holds what a folder's event files hold as well: then it is the same run."""
    log = files.events(folder)
    if EVALUATION not in log.tags:
        return False
    try:
        steps, returns = read_evaluations(path)
    except InputError:
        return False
    logged = set(zip(*(column.tolist() for column in log.curve(EVALUATION))))
    return any((step, float(np.float32(value))) in logged for step, value in zip(steps.tolist(), returns))


@lru_cache(maxsize=None)
def read_evaluations(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(T,) env steps and (T,) mean returns of an evaluations.npz: `timesteps` (T,), `results` (T, episodes)."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            steps, results = arrays["timesteps"].astype(float), arrays["results"].astype(float)
    except Exception as error:  # a broken archive raises what it will
        raise InputError(f"{path.name} is no readable evaluations.npz ({type(error).__name__})") from None
    if steps.ndim != 1 or results.ndim != 2 or len(steps) != len(results) or not len(steps):
        raise InputError(f"{path.name} holds timesteps {steps.shape} and results {results.shape}, not (T,) and (T, n)")
    return steps, results.mean(axis=1)


def read_monitors(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """(T,) env steps and (T,) returns of a folder's monitor files, one per environment.

    Environments step together, so an episode that ends after k steps of its own environment ends after k x environments
    env steps. `t` begins anew with each session that was appended to a file; the order in the file is the right one.
    """
    ends, returns = [], []
    for path in paths:
        rows = []
        lines = path.read_bytes().decode(errors="replace").rstrip("\n").split("\n")  # \r inside a line is damage too
        for number, line in enumerate(lines[2:], 3):
            try:
                rows.append([float(cell) for cell in line.split(",")[:3]])
                if len(rows[-1]) != 3:
                    raise ValueError
            except ValueError:
                raise InputError(
                    f"{path.name}: line {number} ({line[:40]!r}) is no r,l,t: several environments wrote into one "
                    "file, which loses episodes; give each its own file (Monitor(env, f'{folder}/{index}'))"
                ) from None
        if rows:
            table = np.array(rows)
            ends.append(np.cumsum(table[:, 1]) * len(paths))
            returns.append(table[:, 0])
    if not ends:
        raise InputError("its monitor files hold no episode")
    steps, values = np.concatenate(ends), np.concatenate(returns)
    order = np.argsort(steps, kind="stable")
    return steps[order], values[order]


@lru_cache(maxsize=None)
def read_model(path: Path) -> dict[str, Any] | None:
    """The JSON member `data` of a saved model, or None. What is pickled in it stays a string."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("data").file_size > MAX_JSON:
                return None
            data = json.loads(archive.read("data"))
            return data if data["num_timesteps"] > 0 else None
    except Exception:  # some other zip
        return None


def settings_of(files: Files, path: Path) -> tuple[dict[str, Any], bool]:
    """What saved models and monitor files of this run tell, and whether it is on-policy."""
    evaluations = files.named("evaluations.npz") if path in files.event_folders else []
    same = [path, *(file for file in evaluations if repeats(files, path, file))]
    others = [place for place in places(files) if place not in same]
    settings, on_policy = {}, False
    models = nearest(files, same, [p for p in files.named("*.zip") if read_model(p)], others)
    if models:
        newest = max((read_model(model) for model in models), key=lambda data: data["num_timesteps"])
        settings, on_policy = of_model(newest), "learning_starts" not in newest
    heads = nearest(files, same, monitors(files), others)
    if heads:
        settings["task"] = json.loads(files.first_line(heads[0])[1:]).get("env_id")
    return {key: value for key, value in settings.items() if value is not None}, on_policy


def nearest(files: Files, places: list[Path], candidates: list[Path], others: list[Path]) -> list[Path]:
    """The candidates in the innermost folder around a run that holds any; none if it holds another run as well."""
    for place in places:
        for folder in (place, *place.parents):
            inside = [path for path in candidates if folder in path.parents]
            if inside:
                if not any(folder in (other, *other.parents) for other in others):
                    return inside
                break
            if folder == files.root:
                break
    return []


def of_model(data: dict[str, Any]) -> dict[str, Any]:
    """Hyperparameters of a saved model's JSON. A scheduled learning rate is no number there."""
    out = {key: data[key] for key in ("seed", "batch_size", "num_timesteps") if isinstance(data.get(key), int)}
    if isinstance(data.get("learning_rate"), float):
        out["learning_rate"] = data["learning_rate"]
    rollout = data.get("n_steps", 0) * data.get("n_envs", 1)
    if "learning_starts" in data:
        learned = data["num_timesteps"] - data["learning_starts"]
        if learned > 0 and data.get("_n_updates", 0) > 0:
            out["utd"] = rounded(data["_n_updates"] / learned, data.get("gradient_steps", 0), data.get("n_envs", 1))
    elif "n_epochs" in data and rollout and "batch_size" in out:  # PPO's _n_updates counts epochs
        out["utd"] = data["n_epochs"] * -(-rollout // out["batch_size"]) / rollout
    return out


def rounded(measured: float, gradient_steps: int, num_envs: int) -> float | None:
    """The ratio as set, gradient_steps / (train_freq x environments), where an integer train_freq explains it to 5 %.

    A run ends between two trainings: unrounded, seeds of one cell would differ in the last digits. None where the model
    has learned more than it can have: its env steps were counted from 0 again (reset_num_timesteps).
    """
    if gradient_steps <= 0:  # as many as env steps since the last training
        return 1.0 if abs(measured - 1) < 0.05 else measured
    if measured > 1.05 * gradient_steps / num_envs:
        return None
    train_freq = max(1, round(gradient_steps / num_envs / measured))
    exact = gradient_steps / num_envs / train_freq
    return exact if abs(measured / exact - 1) < 0.05 else measured
