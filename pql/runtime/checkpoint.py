"""Checkpoints: a folder per checkpoint, written whole or not at all, loaded without executing code.

    checkpoints/000002000000/   the number: env steps; critic updates on a fixed dataset
        actor.safetensors  v_learner.safetensors  p_learner.safetensors  replay.safetensors
        manifest.json           counters, sizes and CRC-32 of each file and of the manifest itself
    best/                       policy and normaliser alone, of the evaluation that returned most

The folder is made under a temporary name, each file is synced to disk, then the folder is renamed. The newest two
are kept; where the newest is damaged, `newest` falls back to the one before and says so. A checkpoint of a step that
has one already takes its name while the other is set aside as `<number>.old`, which counts where the name is missing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pql.files import write_atomically

MANIFEST = "manifest.json"
# 3: groups of parameters; 4: the manifest has a checksum of its own; 5: the replay ring holds an observation once
FORMAT, READS, RING_READS = 5, (3, 4, 5), (5,)
REPLAY = "replay.safetensors"
KEEP = 2
BEST = "best"
PART = 1 << 26  # bytes of a large file that are read at once


class DamagedCheckpoint(Exception):
    """A checkpoint that is incomplete or whose bytes are not those that were written."""


def save_tensors(folder: Path, name: str, tensors: dict[str, Tensor]) -> None:
    """One file of a checkpoint, synced to disk."""
    path = folder / f"{name}.safetensors"
    try:
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, path)
    except SafetensorError as error:  # a full disk is no OSError there
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
    _sync(path)


def partial(run_dir: Path | str) -> Path:
    """The folder in which a checkpoint grows until it is complete."""
    return Path(run_dir) / "checkpoints" / ".part"


def begin(run_dir: Path) -> Path:
    """Make that folder, empty: what a killed run left there is no checkpoint."""
    folder = partial(run_dir)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@contextmanager
def writing(run_dir: Path) -> Iterator[Path]:
    """`begin`; what then fails leaves nothing behind."""
    folder = begin(run_dir)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def finish(folder: Path, number: int, facts: dict[str, Any]) -> Path:
    """Write the manifest, give the checkpoint its name, drop all but the newest two.

    Args:
        number: env steps or, where `facts` tells of these, another count that grows.
    """
    target = _finish(folder, number, facts, folder.with_name(f"{number:012d}"))
    for old in found(target.parent.parent)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def keep_best(run_dir: Path, env_steps: int, facts: dict[str, Any], tensors: dict[str, dict[str, Tensor]]) -> Path:
    """What a policy needs to act, {file: tensors}, as the run's best; the one before it goes."""
    with writing(run_dir) as folder:
        for name, values in tensors.items():
            save_tensors(folder, name, values)
        return _finish(folder, env_steps, facts, Path(run_dir) / BEST)


def _finish(folder: Path, env_steps: int, facts: dict[str, Any], target: Path) -> Path:
    files = {path.name: {"bytes": path.stat().st_size, "crc32": _crc32(path)} for path in sorted(folder.iterdir())}
    manifest = {"format": FORMAT, "env_steps": env_steps, **facts, "files": files}
    manifest["crc32"] = _crc32_of(manifest)
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=1))
    aside = target.with_suffix(".old")
    if target.exists():  # the same step again: a run that was resumed and stopped at once
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(target, aside)
    os.rename(folder, target)
    _sync(target.parent)
    shutil.rmtree(aside, ignore_errors=True)
    return target


def found(run_dir: Path) -> list[Path]:
    """The finished checkpoints of a run, oldest first."""
    folder = Path(run_dir) / "checkpoints"
    if not folder.is_dir():
        return []
    names = {p.name for p in folder.iterdir()}
    set_aside = {name for name in names if name.endswith(".old") and name[:-4] not in names}
    return sorted(folder / name for name in names if name.isdigit() or name in set_aside)


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint whose files are all as written. Raises DamagedCheckpoint."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        files = [(name, facts["bytes"], facts["crc32"]) for name, facts in manifest["files"].items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedCheckpoint(f"{folder.name}: its manifest cannot be read ({error})") from error
    if manifest.get("format") not in READS:
        raise DamagedCheckpoint(
            f"{folder.name}: it is of format {manifest.get('format')}, which another version of this program wrote and "
            f"reads; this one reads format {FORMAT}"
        )
    if manifest["format"] >= 4 and manifest.pop("crc32", None) != _crc32_of(manifest):
        raise DamagedCheckpoint(f"{folder.name}: its manifest is damaged (its checksum differs)")
    for name, size, crc32 in files:
        path = folder / name
        if not path.exists():
            raise DamagedCheckpoint(f"{folder.name}: {name} is missing")
        if path.stat().st_size != size or _crc32(path) != crc32:
            raise DamagedCheckpoint(f"{folder.name}: {name} is damaged (its checksum differs)")
    for name, counted, counter in _known(folder, manifest):
        if counted > manifest.get(counter, 0):
            raise DamagedCheckpoint(
                f"{folder.name}: its manifest says {counter} {manifest.get(counter, 0)}, {name} knows of {counted}"
            )
    return manifest


def _known(folder: Path, manifest: dict[str, Any]) -> Iterator[tuple[str, int, str]]:
    """What files know of counters, at least: which file, how many, the manifest's name for it."""
    keys = {"replay": (r"head", "env_steps")}  # rows written; the first windows give none
    # steps since the last reset
    keys["v_learner"] = (r"optimizer\..*\.step", "critic_updates")
    keys["p_learner"] = (r"optimizer\..*\.step", "policy_updates")
    for role, (pattern, counter) in keys.items():
        name = f"{role}.safetensors"
        if name not in manifest["files"]:
            continue
        with safe_open(folder / name, "pt") as file:
            for key in list(file.keys()):
                if re.fullmatch(pattern, key):
                    yield name, int(file.get_tensor(key)), counter


def newest(run_dir: Path, warn: Callable[[str], None] = print) -> tuple[Path, dict[str, Any]] | None:
    """The newest good checkpoint and its manifest; None where a run has none. Damaged ones are reported."""
    folders = found(run_dir)
    while folders:
        folder = folders.pop()
        try:
            return folder, verify(folder)
        except DamagedCheckpoint as error:
            warn(f"warning: checkpoint {error}; {'falling back to the one' if folders else 'there is none'} before")
    return None


def best(run_dir: Path, warn: Callable[[str], None] = print) -> tuple[Path, dict[str, Any]] | None:
    """The policy whose evaluation returned most, and its manifest; None where a run has none."""
    folder = Path(run_dir) / BEST
    for place in (folder, folder.with_suffix(".old")):
        if place.is_dir():
            try:
                return place, verify(place)
            except DamagedCheckpoint as error:
                warn(f"warning: checkpoint {error}")
    return None


def holds_ring(manifest: dict[str, Any]) -> bool:
    """Whether a checkpoint has a replay ring, in a form that is read."""
    return REPLAY in manifest["files"] and manifest["format"] in RING_READS


def load_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    return load_file(folder / f"{name}.safetensors")


def shapes(folder: Path, name: str) -> dict[str, tuple[int, ...]]:
    """Of the tensors in a file, by name."""
    with safe_open(folder / f"{name}.safetensors", "pt") as file:
        return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - it is no dict


def load_into(folder: Path, name: str, tensors: dict[str, Tensor]) -> None:
    """Fill the first rows of tensors from a file's, without a second copy of them in memory."""
    path = folder / f"{name}.safetensors"
    for key, mine in tensors.items():
        start, count = 0, 1
        while start < count:
            with safe_open(path, "pt") as file:  # anew for each part: what was read of a mapped file stays until closed
                part = file.get_slice(key)
                count, stop = part.get_shape()[0], start + max(1, PART // (mine[:1].numel() * mine.element_size()))
                mine[start:stop][: count - start].copy_(part[start : min(stop, count)])
            start = stop


def _crc32_of(manifest: dict[str, Any]) -> int:
    """Of all that a manifest says."""
    return zlib.crc32(json.dumps(manifest, sort_keys=True).encode())


def _crc32(path: Path) -> int:
    value = 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            value = zlib.crc32(chunk, value)
    return value


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
