"""The images' files are clean by the linters of their kinds."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted(path for path in (ROOT / "docker").glob("Dockerfile*") if path.suffix != ".dockerignore")
SCRIPTS = sorted([*(ROOT / "docker").glob("*.sh"), *(ROOT / "scripts").glob("*.sh")])


def tool(name: str) -> str:
    """The path of a linter beside this Python or on the PATH; skips where there is none."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed: pip install -e '.[dev]'")
    return found


def findings(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout + done.stderr + (f"exit code {done.returncode}" if done.returncode else "")


def test_dockerfiles_are_clean(tmp_path):
    hadolint = tool("hadolint")
    assert [path.name for path in DOCKERFILES] == ["Dockerfile", "Dockerfile.isaacgym"]
    assert findings(hadolint, "--no-color", *map(str, DOCKERFILES)) == ""
    bad = tmp_path / "Dockerfile"  # the linter does lint
    bad.write_text("FROM debian:latest\nRUN cd /tmp && apt-get install curl\n")
    assert "DL3007" in findings(hadolint, "--no-color", str(bad))


def test_scripts_are_clean(tmp_path):
    shellcheck = tool("shellcheck")
    assert {path.name for path in SCRIPTS} >= {"build.sh", "run.sh", "entrypoint.sh"}
    assert findings(shellcheck, *map(str, SCRIPTS), str(ROOT / "tests/docker/stub/docker")) == ""
    bad = tmp_path / "bad.sh"
    bad.write_text("#!/bin/sh\nrm $1\n")
    assert "SC2086" in findings(shellcheck, str(bad))
