"""Download what `make gpu-check WHEELS=<folder>` installs, for a machine without a registry; --help lists the keys."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import List

from pql import cli
from pql.config import key
from pql.errors import UserError, user_errors

ROOT = Path(__file__).resolve().parent.parent
SOURCE_ONLY = "antlr4-python3-runtime"  # pure Python, published without a wheel: built here
CHECK = ["pytest", "pytest-timeout", "setuptools"]  # what the check needs beside the project's own requirements


@dataclass
class Options:
    out: str = key("wheels", "the folder")
    python: str = key("3.12", "CPython of that machine")
    glibc: int = key(39, "minor version of its glibc: 2.39 is Ubuntu 24.04's")
    without: List[str] = key([], "packages that the machine has: neither they nor what only they need")  # noqa: UP006


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def name_of(requirement: str) -> str:
    return normal(re.match(r"[\w.-]+", requirement).group())


def roots() -> list[str]:
    """The project's requirements and those of its GPU simulator."""
    command = [sys.executable, "docker/requirements.py", "setup.py", "gpu"]
    asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [*asked, *CHECK]


def needed(roots: list[str], resolved: dict[str, dict], without: set[str]) -> list[str]:
    """`name==version` of what is reached from `roots` without passing through a package in `without`."""
    found: dict[str, str] = {}
    waiting = [name_of(root) for root in roots]
    while waiting:
        name = waiting.pop()
        if name in without or name in found or name not in resolved:  # not resolved: its marker is for others
            continue
        found[name] = f"{name}=={resolved[name]['version']}"
        waiting += [name_of(requirement) for requirement in resolved[name].get("requires_dist", [])]
    return sorted(found.values())


def main(argv: list[str]) -> int:
    options = cli.parse(argv, Options, 'make wheels ARGS="key=value ..."')
    cli.require(re.fullmatch(r"3\.\d+", options.python) is not None, "python", options.python, "3.12, say")
    without = {normal(name) for name in options.without}
    folder = Path(options.out).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    tags = [f"manylinux_2_{minor}_x86_64" for minor in range(options.glibc, 4, -1)] + ["manylinux2014_x86_64"]
    target = ["--python-version", options.python, "--implementation", "cp", "--only-binary=:all:"]
    target += [word for tag in tags for word in ("--platform", tag)]
    target += ["--find-links", str(folder)]
    pins = ["-c", str(ROOT / "docker/constraints.txt")]

    def pip(*words: str) -> None:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
        if subprocess.run(command, check=False).returncode:
            raise UserError(f"pip {words[0]} failed (its words are above); there must be a registry here")

    with tempfile.TemporaryDirectory() as scratch:
        if SOURCE_ONLY not in without:
            pip("wheel", "--no-deps", *pins, "-w", str(folder), SOURCE_ONLY)
        report = f"{scratch}/report.json"
        dry = ["--dry-run", "--ignore-installed", "--target", scratch, "--report", report]
        pip("install", *dry, *target, *pins, *roots())
        metadata = [item["metadata"] for item in json.loads(Path(report).read_text())["install"]]
    wanted = needed(roots(), {normal(entry["name"]): entry for entry in metadata}, without)
    pip("download", "--no-deps", *target, "-d", str(folder), *wanted)
    size = sum(path.stat().st_size for path in folder.glob("*.whl"))
    print(f"{folder}: {len(wanted)} wheels, {size / 2**20:.0f} MiB, for CPython {options.python}")
    return 0


if __name__ == "__main__":
    with user_errors():
        sys.exit(main(sys.argv[1:]))
