"""A stub of docker on the PATH that records what it was given, and downloads as a user would have them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Callable

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> ModuleType:
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docker_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def calls(tmp_path) -> Callable[[], list]:
    """Returns the calls of docker so far, each a list of words."""
    log = tmp_path / "docker.log"
    return lambda: [call.splitlines() for call in log.read_text().split("\n--\n")[:-1]] if log.exists() else []


@pytest.fixture
def script(tmp_path) -> Callable[..., subprocess.CompletedProcess]:
    """Runs docker/NAME with words in tmp_path, with the stub first on the PATH; `lacks` says what docker lacks."""

    def run(name: str, *words: object, lacks: str = "", path: str | None = None) -> subprocess.CompletedProcess:
        env = {**os.environ, "DOCKER_LOG": str(tmp_path / "docker.log"), "DOCKER_LACKS": lacks, "TMPDIR": str(tmp_path)}
        env["PATH"] = path or f"{ROOT / 'tests/docker/stub'}:/usr/bin:/bin"
        return subprocess.run(
            ["/bin/bash", str(ROOT / "docker" / name), *map(str, words)],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        )

    return run


@pytest.fixture
def downloads(tmp_path) -> dict[str, Path]:
    """What a user of the Isaac Gym image has at hand."""
    stand_in = load("stand_in")
    return {
        "tarball": stand_in.isaacgym_tarball(tmp_path / "IsaacGym_Preview_4_Package.tar.gz"),
        "envs": stand_in.isaacgymenvs_checkout(tmp_path / "IsaacGymEnvs"),
    }


@pytest.fixture
def tarball() -> Callable[..., Path]:
    """Writes a tarball: (path, files)."""
    return load("stand_in").tarball


@pytest.fixture
def isaacgym_tarball() -> Callable[..., Path]:
    """Writes a tarball shaped as Isaac Gym's: (path, version)."""
    return load("stand_in").isaacgym_tarball
