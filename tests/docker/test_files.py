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
    names = [re.split(r"[=<>\s]", line)[0] for line in lines if line and ";" not in line]
    return [re.sub(r"[-_.]+", "-", name).lower() for name in names]


def asked(*extras: str) -> str:
    """What docker/requirements.py prints."""
    pytest.importorskip("setuptools", reason="docker/requirements.py runs setup.py, as an image does")
    command = [sys.executable, str(DOCKER / "requirements.py"), str(ROOT / "setup.py"), *extras]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_every_requirement_is_pinned_for_both_pythons():
    names = requirements(asked())
    assert {"torch", "numpy", "hydra-core"} <= set(names)
    both = pins("constraints.txt"), pins("constraints-py38.txt")
    for name in [*names, "pytest", "pytest-timeout", "pytest-xdist", "execnet", "setuptools"]:
        assert all(name in known for known in both), name
    for name in requirements((DOCKER / "requirements-isaacgym.txt").read_text()):
        assert name in both[1], name


def test_the_open_image_has_the_gpu_simulator_in_the_pinned_versions():
    assert "docker/requirements.py docker/setup.py gpu >requirements.txt" in (DOCKER / "Dockerfile").read_text()
    known = pins("constraints.txt")
    new = set(asked("gpu").splitlines()) - set(asked().splitlines())
    assert {line.partition(";")[0] for line in new} == {
        f"{name}=={known[name]}" for name in ("mujoco-warp", "warp-lang")
    }


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


def test_the_proof_of_the_pins_follows_every_pip_step(monkeypatch):
    """`make test-docker-pins` takes minutes and is not run here; that it reads the Dockerfiles is."""
    monkeypatch.syspath_prepend(str(ROOT / "tests/docker"))
    import pins as proof

    for image, (name, constraints, _, _) in proof.IMAGES.items():
        text = (DOCKER / name).read_text()
        steps = [rest for instruction, rest in proof.instructions(text) if instruction == "RUN"]
        followed = [step for step in steps if "/opt/venv/bin/pip" in step]
        pip = "/opt/venv/bin/pip install"
        assert sum(step.count(pip) for step in followed) == text.count(pip)
        assert not any(re.sub(r"--mount=\S+\s*", "", step).startswith(proof.SKIPPED) for step in followed)
        installs = [step for step in followed if "--no-deps" not in step]
        assert all(f"-c docker/{constraints}" in step for step in installs), f"{image} installs without its pins"
        assert len(installs) >= 2


def test_a_wheel_for_a_later_glibc_than_the_images_is_not_taken(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tests/docker"))
    import pins as proof

    tags = proof.platforms(31)
    assert tags[0] == "manylinux_2_31_x86_64" and "manylinux2014_x86_64" in tags
    assert not any("_2_34_" in tag for tag in tags)
