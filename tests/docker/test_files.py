"""The images' files agree with one another and with setup.py."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"


def pins(name: str) -> dict:
    """Names, normalised, to versions; every line pins exactly."""
    lines = [line.partition("#")[0].strip() for line in (DOCKER / name).read_text().splitlines()]
    found = {}
    for line in filter(None, lines):
        assert re.fullmatch(r"[\w.-]+==[\w.+]+", line), f"{name}: {line}"
        package, version = line.split("==")
        key = re.sub(r"[-_.]+", "-", package).lower()
        assert key not in found, f"{name} pins {package} twice"
        found[key] = version
    return found


def requirements(text: str) -> list:
    """The names, normalised, of requirements without a marker, one a line."""
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    return [re.sub(r"[-_.]+", "-", re.split(r"[=<>;\s]", line)[0]).lower() for line in lines if line and ";" not in line]


def asked() -> str:
    """What docker/requirements.py prints."""
    pytest.importorskip("setuptools", reason="docker/requirements.py runs setup.py, as an image does")
    command = [sys.executable, str(DOCKER / "requirements.py"), str(ROOT / "setup.py")]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_every_requirement_is_pinned_for_both_pythons():
    names = requirements(asked())
    assert {"torch", "numpy", "hydra-core"} <= set(names)
    both = pins("constraints.txt"), pins("constraints-py38.txt")
    for name in [*names, "pytest", "pytest-timeout", "setuptools"]:
        assert all(name in known for known in both), name
    for name in requirements((DOCKER / "requirements-isaacgym.txt").read_text()):
        assert name in both[1], name


def test_the_facts_that_isaac_gym_dictates_are_pinned():
    known = pins("constraints-py38.txt")
    assert known["torch"] == "2.4.1"
    assert known["numpy"] == "1.23.5"
    assert known["gym"] == "0.23.1"


def test_what_an_image_copies_is_there_and_not_ignored():
    for name in ("Dockerfile", "Dockerfile.isaacgym"):
        text = (DOCKER / name).read_text().replace("\\\n", " ")
        allowed = [line[1:] for line in (DOCKER / f"{name}.dockerignore").read_text().splitlines() if line[:1] == "!"]
        copies = re.findall(r"^COPY (?!--from)(.+)$", text, re.M)
        sources = [word for line in copies for word in line.split()[:-1]]
        assert {"setup.py", "pql", "tasks", "scaling", "cfg", "scripts"} <= set(sources)
        for source in sources:
            assert (ROOT / source).exists(), f"{name} copies {source}"
            assert any(Path(source).match(pattern) for pattern in allowed), f"{name}.dockerignore leaves out {source}"


def test_images_run_as_another_user_than_root_and_name_their_base_by_tag():
    for name in ("Dockerfile", "Dockerfile.isaacgym"):
        text = (DOCKER / name).read_text()
        assert re.findall(r"^USER (.+)$", text, re.M) == ["10001"]
        assert re.search(r"^HEALTHCHECK ", text, re.M)
        base = re.search(r"^ARG BASE=(\S+)$", text, re.M).group(1)
        assert re.fullmatch(r"nvidia/cuda:\d+\.\d+\.\d+-[\w.-]+(@sha256:[0-9a-f]{64})?", base)


def test_nothing_fetches_isaac_gym():
    """Stages named as the contexts keep a build that lacks one from looking on a registry."""
    text = (DOCKER / "Dockerfile.isaacgym").read_text()
    stages = re.findall(r"^FROM scratch AS (\w+)$", text, re.M)
    contexts = set(re.findall(r"--build-context \"(\w+)=", (DOCKER / "build.sh").read_text()))
    assert set(stages) == contexts == {"isaacgym", "isaacgymenvs"}
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert not re.search(r"curl|wget|git clone|https?://", code)
