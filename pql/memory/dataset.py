"""A fixed dataset in Minari's format (minari.farama.org): episodes on disk, steps one after the other in memory.

A dataset is data from someone else: its arrays and its JSON are read, nothing that it names is imported.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Sequence

import numpy as np

from pql.errors import UserError

UNBOUNDED = 1e6  # a bound of an action that is this large is none
OF_AN_EPISODE = 16384  # bytes that HDF5 takes besides its numbers
TASK = "pql_task"  # in the metadata of datasets of ours: {"name": ..., "sim": ..., "options": {...}}


class Steps(NamedTuple):
    """T transitions of whole episodes, one after the other; float32."""

    obs: np.ndarray  # (T, D)
    action: np.ndarray  # (T, A) in [-1, 1]
    reward: np.ndarray  # (T,)
    next_obs: np.ndarray  # (T, D) the true successor, where an episode ends too
    terminated: np.ndarray  # (T,) bool
    last: np.ndarray  # (T,) bool: the last step of its episode, terminated or cut

    def episodes(self) -> list[np.ndarray]:
        """The rewards of each episode."""
        return np.split(self.reward, np.flatnonzero(self.last)[:-1] + 1)


def read(data: str, most: int | None = None, seed: int = 0) -> Steps:
    """The steps of a dataset, actions rescaled from the bounds of its space to [-1, 1] (and cut off there).

    Args:
        data: a folder, or a name that Minari knows on this machine.
        most: so many transitions, of whole episodes in an order drawn by `seed`, the last of them cut; None: all.

    Raises:
        UserError: where there is none, or it holds what can't be learned from.
    """
    storage = _open(data)
    space = storage.action_space
    if not _continuous(space) or type(space).__name__ != "Box":
        raise UserError(f"data={data} has {_kind(space)} actions: only continuous ones (a Box) can be learned")
    if not _continuous(storage.observation_space):
        raise UserError(f"data={data} has {_kind(storage.observation_space)} observations: only Boxes of floats, and "
                        "dictionaries and tuples of them, can be learned from")  # fmt: skip
    low, high = (np.asarray(bound, np.float64).ravel() for bound in (space.low, space.high))
    if not max(np.abs(low).max(), np.abs(high).max()) < UNBOUNDED:
        raise UserError(f"data={data} has actions without bounds, which can't be rescaled to [-1, 1]")
    count, outside = storage.total_episodes, 0
    if type(count) is not int:
        raise UserError(f"data={data} is damaged: its metadata.json says total_episodes={count!r}")
    order = range(count) if most is None else np.random.default_rng(seed).permutation(count)
    parts, held = [], 0
    for number, episode in zip(order, _episodes(data, storage, order)):
        steps, beyond = _steps(data, number, episode, storage.observation_space, low, high)
        outside += beyond
        if most is not None:
            steps = Steps(*(part[: most - held] for part in steps))
        steps.last[-1:] = True
        parts.append(steps)
        held += len(steps.reward)
        if held == most:
            break
    if not held:
        raise UserError(f"data={data} is empty: it holds no transition")
    if outside > held / 100:
        print(f"note: {outside} of {held} actions lie beyond the bounds that data={data} tells, and are cut off there",
              file=sys.stderr)  # fmt: skip
    if most is not None and held < most:
        raise UserError(f"max_env_steps={most}: data={data} holds {held} transitions only")
    return Steps(*(np.concatenate(column) for column in zip(*parts)))


def task_of(data: str) -> tuple[str, str | None, dict[str, Any]]:
    """The task that a dataset says it is of, its simulator (None: any) and options. Raises UserError where it is none.

    Of a Gymnasium environment that is the id and the arguments, as Minari's `recover_environment` takes them; but where
    to import it from a dataset must not say.
    """
    metadata = _metadata(data)
    ours, spec = metadata.get(TASK), metadata.get("env_spec")
    try:
        if ours is not None:
            name, sim, options, wrappers = ours["name"], ours.get("sim"), dict(ours["options"]), []
        elif spec is not None:
            told = json.loads(spec)
            name, sim, options = told["id"], "gymnasium", dict(told.get("kwargs") or {})
            wrappers = [wrapper["name"] for wrapper in told.get("additional_wrappers") or ()]
            if told.get("max_episode_steps"):
                options["max_episode_steps"] = told["max_episode_steps"]
            options.pop("render_mode", None)
        else:
            raise UserError(f"data={data} does not say what it is of: give task=... to evaluate in")
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"data={data}: its environment can't be read ({error!r}): give task=... instead") from error
    if not isinstance(name, str) or ":" in name:
        raise UserError(f"data={data} is of {name}, to make which is to run code that it names: say so yourself with "
                        f"task={name}{f' sim={sim}' if sim else ''}")  # fmt: skip
    if wrappers:
        raise UserError(f"data={data} is of {name} within {', '.join(map(str, wrappers))}, which only code can make: "
                        "give task=... to evaluate in")  # fmt: skip
    return name, sim, options


def folder(data: str) -> Path:
    """Where a dataset's files lie. Raises UserError."""
    for path in (Path(data) / "data", Path(data)):
        if (path / "metadata.json").is_file():
            return path
    _minari()
    from minari.storage import get_dataset_path

    path = get_dataset_path(data) / "data"
    if not (path / "metadata.json").is_file():
        raise UserError(f"data={data}: there is no such dataset; name a folder that scripts/record.py wrote, or fetch "
                        "one of Minari's: minari download <name>")  # fmt: skip
    return path


@contextmanager
def writing(out: str) -> Iterator[Path]:
    """A new folder in which a dataset grows (`write`), which then takes the name `out`; what fails leaves nothing.

    Raises UserError for a name that Minari takes for no dataset's, or that is taken, and where nothing can be written.
    """
    _minari()
    path = Path(out).resolve()  # Minari 0.5.4 looks for a relative one's files below itself
    if path.exists():
        raise UserError(f"out={out} exists: name another folder")
    if re.fullmatch(r"[-\w]+-v\d+", path.name) is None:
        raise UserError(f"out={out}: a dataset's name ends in its version, as in {path.name or 'ant'}-v0")
    folder = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"out={out} cannot be written ({error.strerror}): name another folder") from error
    try:
        yield folder
        folder.rename(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write(
    folder: Path, name: str, episodes: Sequence[dict[str, np.ndarray]], task: dict[str, Any], about: str
) -> None:
    """Write episodes as a dataset of Minari's.

    Args:
        folder: an empty one, see `writing`.
        name: the dataset's.
        episodes: each with observations (T + 1, D), actions (T, A) in [-1, 1], rewards, terminations, truncations (T,).
        task: name and options, for `task_of`.
        about: a description.
    """
    minari = _minari()
    from gymnasium.spaces import Box
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    _demand_room(folder, episodes)
    first = episodes[0]
    seen, action = (first[column].shape[1] for column in ("observations", "actions"))
    (folder / "data").mkdir()
    storage = MinariStorage.new(
        folder / "data", Box(-np.inf, np.inf, (seen,), np.float32), Box(-1.0, 1.0, (action,), np.float32)
    )
    told = {"dataset_id": name, "minari_version": minari.__version__, "description": about, TASK: task}
    storage.update_metadata(told)
    storage.update_episodes(EpisodeBuffer(**episode) for episode in episodes)


def _demand_room(folder: Path, episodes: Sequence[dict[str, np.ndarray]]) -> None:
    """Raises OSError where the disk is too full: HDF5 itself ends the whole process there."""
    needed = sum(OF_AN_EPISODE + sum(column.nbytes for column in episode.values()) for episode in episodes)
    if shutil.disk_usage(folder).free < needed:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} ({needed >> 10} KiB are needed)", str(folder.parent))


def _minari() -> Any:
    try:
        import h5py  # noqa: F401 - in which Minari writes
        import minari
    except ImportError as error:
        raise UserError(f"datasets need the package minari ({error}): pip install -e '.[offline]'") from error
    return minari


def _metadata(data: str) -> dict[str, Any]:
    path = folder(data)
    try:
        found = json.loads((path / "metadata.json").read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"data={data}: {path / 'metadata.json'} can't be read ({error})") from error
    if not isinstance(found, dict):
        raise UserError(f"data={data}: {path / 'metadata.json'} is not of a dataset")
    return found


def _open(data: str) -> Any:
    _minari()
    from minari.dataset.minari_storage import MinariStorage

    metadata = _metadata(data)
    for space in ("observation_space", "action_space"):
        if not isinstance(metadata.get(space), str):  # Minari would make the environment, and so import what it names
            raise UserError(f"data={data} does not tell its {space}: write it anew with a newer Minari")
    try:
        return MinariStorage.read(folder(data))
    except Exception as error:  # whatever a damaged file makes of it
        raise UserError(f"data={data} can't be read: {_first_line(error)}") from error


def _episodes(data: str, storage: Any, order: Sequence[int]) -> Iterator[dict[str, Any]]:
    try:
        yield from storage.get_episodes(order)
    except Exception as error:
        raise UserError(f"data={data} is damaged: {_first_line(error)}") from error


def _steps(
    data: str, number: int, episode: dict[str, Any], space: Any, low: np.ndarray, high: np.ndarray
) -> tuple[Steps, int]:
    """One episode, and how many of its actions lie out of bounds."""
    where = f"data={data}, episode {number}"
    with np.errstate(over="ignore"):  # what float32 can't hold is told below
        reward = np.asarray(episode["rewards"], np.float32)
    count = len(reward)
    obs = flat(space, episode["observations"])
    action = np.asarray(episode["actions"], np.float64).reshape(len(episode["actions"]), -1)
    terminated, truncated = (np.asarray(episode[name], bool) for name in ("terminations", "truncations"))
    if len(obs) != count + 1 or {len(action), len(terminated), len(truncated)} != {count}:
        raise UserError(f"{where} has {count} rewards, {len(obs)} observations and {len(action)} actions: of n "
                        "transitions there must be n, n + 1 and n")  # fmt: skip
    if action.shape[1] != len(low):
        raise UserError(f"{where} has actions of {action.shape[1]} numbers, its space of {len(low)}")
    finite = np.isfinite(obs[:-1]).all(1) & np.isfinite(obs[1:]).all(1) & np.isfinite(action).all(1)
    finite &= np.isfinite(reward)
    if not finite.all():
        raise UserError(f"{where} holds NaN or infinity in {int((~finite).sum())} of {count} transitions (first: "
                        f"{int((~finite).argmax())}): leave such episodes out")  # fmt: skip
    action = 2 * (action - low) / np.where(high > low, high - low, 1.0) - 1
    outside = int((np.abs(action) > 1.001).any(1).sum())
    action = np.clip(action, -1.0, 1.0).astype(np.float32)
    return Steps(obs[:-1], action, reward, obs[1:], terminated, terminated | truncated), outside


def flat(space: Any, values: Any) -> np.ndarray:
    """(T, D) float32: dictionaries and tuples in the order of their space, as `gymnasium.spaces.flatten` has it."""
    parts = getattr(space, "spaces", None)
    if parts is None:
        values = np.asarray(values, np.float32)
        return values.reshape(len(values), -1)
    keys = parts.keys() if hasattr(parts, "keys") else range(len(parts))
    return np.concatenate([flat(parts[key], values[key]) for key in keys], 1)


def _continuous(space: Any) -> bool:
    """Whether it is a Box of floats, or of such; a picture's bytes are none."""
    parts = getattr(space, "spaces", None)
    if parts is not None:
        return all(_continuous(part) for part in (parts.values() if hasattr(parts, "values") else parts))
    return type(space).__name__ == "Box" and np.issubdtype(space.dtype, np.floating)


def _kind(space: Any) -> str:
    dtype = f" of {space.dtype}" if type(space).__name__ == "Box" else ""
    return f"{type(space).__name__}{dtype}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
