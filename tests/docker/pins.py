"""Prove the images' pins without docker: every pin has a wheel that its image can take, and the Dockerfiles' own steps
make a working environment.

usage: pins.py [resolve] [open] [isaacgym] [--python-open PATH] [--python-isaacgym PATH]; without words, all three.

`resolve` asks the registry for each pin's wheel, for the image's CPython and glibc, and downloads none. `open` and
`isaacgym` follow that Dockerfile below a folder: COPY copies, RUN runs with /opt and /mnt moved there, in order, and at
the end what HEALTHCHECK and CMD say. What installs system packages or makes a user is left out; for Isaac Gym and
IsaacGymEnvs there are stand-ins. Each takes minutes and, while it runs, gigabytes in TMPDIR.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import stand_in  # beside this file

ROOT = Path(__file__).resolve().parents[2]
# Each image's pins, CPython, and the glibc of its base (Ubuntu 24.04 and 20.04): a wheel built for a later one would
# install on a newer machine and fail in the image.
IMAGES = {
    "open": ("Dockerfile", "constraints.txt", "3.12", 39),
    "isaacgym": ("Dockerfile.isaacgym", "constraints-py38.txt", "3.8", 31),
}
# Published as source only in the version that is pinned; `open` and `isaacgym` build them. Pure Python but for pysdf,
# which the image has g++ for.
SOURCE_ONLY = {
    "open": {"antlr4-python3-runtime"},
    "isaacgym": {"antlr4-python3-runtime", "gym", "networkx", "pycollada", "PyOpenGL", "pysdf"},
}
SKIPPED = ("apt-get", "useradd")  # what needs the base image's system, and root


def platforms(glibc: int) -> list[str]:
    """pip's tags for x86-64 Linux up to glibc 2.`glibc`, newest first; pip matches each exactly."""
    tags = [f"manylinux_2_{minor}_x86_64" for minor in range(glibc, 4, -1)]
    return [*tags, "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]


def resolve(image: str, interpreter: str) -> None:
    """Ask for a wheel of every pin; pip's last words name the first that has none, then CalledProcessError.

    pip runs under the image's own CPython, for it would hold a package's Requires-Python against any other.
    """
    _, pins, python, glibc = IMAGES[image]
    lines = [line.strip() for line in (ROOT / "docker" / pins).read_text().splitlines()]
    pinned = [line for line in lines if line and line[0] != "#"]
    wanted = [line for line in pinned if line.partition("==")[0] not in SOURCE_ONLY[image]]
    tags = [word for tag in platforms(glibc) for word in ("--platform", tag)]
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        command = [sys.executable, "-m", "pip", "--python", interpreter, "--disable-pip-version-check", "--quiet"]
        command += ["install", "--dry-run"]
        command += ["--no-deps", "--ignore-installed", "--only-binary=:all:", "--python-version", python, *tags]
        subprocess.run([*command, "--target", scratch, "--report", str(report), *wanted], check=True)
        found = json.loads(report.read_text())["install"]
    assert len(found) == len(wanted), f"{len(wanted)} pins, {len(found)} wheels"
    print(f"{pins}: {len(found)} pins have wheels for CPython {python}, glibc 2.{glibc}")


def instructions(dockerfile: str) -> list[tuple[str, str]]:
    """(name, arguments) of a Dockerfile, comments gone and lines joined."""
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.strip().partition(" ")[2].strip()) for line in joined if line.strip()]


def follow(image: str, python: str, version: str, root: Path) -> None:
    """Do what the Dockerfile says below `root`; raises CalledProcessError where a step fails."""
    text = (ROOT / "docker" / IMAGES[image][0]).read_text()
    work = root / "opt" / "pql"
    tools = root / "bin"
    for folder in (work, tools, root / "home", root / "mnt"):
        folder.mkdir(parents=True)
    for name in ("python3", f"python{IMAGES[image][2]}"):  # the base's interpreter; a link would hide its library
        (tools / name).write_text(f'#!/bin/sh\nexec {shlex.quote(python)} "$@"\n')
        (tools / name).chmod(0o755)
    if image == "isaacgym":
        (root / "mnt" / "isaacgym").mkdir()
        stand_in.isaacgym_tarball(root / "mnt" / "isaacgym" / "isaacgym.tar.gz")
        stand_in.isaacgymenvs_checkout(root / "mnt" / "isaacgymenvs")
    env = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "HOME": str(root / "home"), "PYTHON_VERSION": version}
    env["PIP_CACHE_DIR"] = os.environ.get("PIP_CACHE_DIR") or str(Path.home() / ".cache" / "pip")

    def here(command: str) -> str:
        """The command with the image's folders moved below `root`."""
        return re.sub(r"(?<![\w./])/(opt|mnt|usr/local|usr/share)\b", rf"{root}/\1", command)

    def run(command: str) -> None:
        print(f"+ {command}", flush=True)
        subprocess.run(["bash", "-euo", "pipefail", "-c", here(command)], cwd=work, env=env, check=True)

    for name, rest in instructions(text):
        if name == "COPY" and not rest.startswith("--from"):
            *sources, target = rest.split()
            place = Path(here(target)) if target.startswith("/") else work / target
            for source in sources:
                copy(ROOT / source, place, into=target.endswith("/"))
        elif name == "RUN":
            command = re.sub(r"--mount=\S+\s*", "", rest).strip()
            if not command.startswith(SKIPPED):
                run(command)
        elif name == "ENV":
            pairs = [here(pair).partition("=") for pair in shlex.split(rest) if not pair.startswith(("HOME=", "USER="))]
            env.update({key: value.replace("$PATH", env["PATH"]) for key, _, value in pairs})
        elif name in ("HEALTHCHECK", "CMD"):
            run(shlex.join(json.loads(rest[rest.index("[") :])))


def copy(source: Path, target: Path, into: bool) -> None:
    """COPY of one source: a folder's contents become the target's, a file goes there or, `into`, below it."""
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        return
    place = target / source.name if into else target
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, place)


def interpreter(version: str) -> str:
    """A CPython of this version on the PATH or from pyenv; ends the program with a remedy where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for candidate in (f"python{version}", *map(str, sorted(pyenv.glob(f"{version}.*/bin/python")))):
        found = shutil.which(candidate)  # on the PATH may be a shim of pyenv's that does not run
        if found and subprocess.run([found, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return found
    raise SystemExit(mistake(f"needs CPython {version} (pyenv install {version}, say); or pass its path, see --help"))


def mistake(message: str) -> int:
    """Print a user's mistake; returns its exit code."""
    print(f"error: {message}", file=sys.stderr)
    return 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="resolve, open, isaacgym; default all three")
    for image in IMAGES:
        parser.add_argument(f"--python-{image}", help=f"for {image}, default CPython {IMAGES[image][2]}")
    args = parser.parse_args()
    every = ["resolve", *IMAGES]
    for word in args.what:
        if word not in every:
            raise SystemExit(mistake(f"'{word}' is none of {', '.join(every)}"))
    what = args.what or every
    for image, (dockerfile, _, version, _) in IMAGES.items():
        if "resolve" in what:
            resolve(image, interpreter(version))
        if image not in what:
            continue
        given = getattr(args, f"python_{image}")
        python = given or interpreter(version)
        show = "import sys; print('%d.%d' % sys.version_info[:2])"
        version = subprocess.run([python, "-c", show], capture_output=True, text=True, check=True).stdout.strip()
        with tempfile.TemporaryDirectory(prefix=f"pql-{image}-") as root:
            follow(image, python, version, Path(root).resolve())
        print(f"{dockerfile}: its steps ran in order under CPython {version}")


if __name__ == "__main__":
    main()
