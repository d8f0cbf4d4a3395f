"""Command lines of `key=value` words for scripts with few keys: typed by a dataclass, as the configuration is."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, List

from omegaconf import IntegerNode, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from pql.errors import UserError, nearest
from pql.keys import help_of, key

REQUIRED = "???"  # the default of a key that must be given


@dataclass
class OfRun:
    """The keys of every script that looks at a run."""

    run_dir: str = key(REQUIRED, "the run: the folder that training wrote")
    checkpoint: str = key("newest", "newest; best: the one whose evaluation while it trained returned most")
    plugins: List[str] = key([], "Python files or modules to import in place of those that the run names")
    trust: bool = key(False, "import the plugins that the run's config.yaml names, which runs their code")

    def check(self) -> None:
        require(self.checkpoint in ("newest", "best"), "checkpoint", self.checkpoint, "newest or best")

    def load(self, num_envs: int, seed: int = 0, sim: str = "") -> Any:
        """The run's policy, with environments, of another simulator if one is named. Raises UserError, TaskError."""
        from pql.run import evaluation

        return evaluation.load_run(self.run_dir, num_envs, seed, self.checkpoint, self.plugins, self.trust, sim)

    def beside(self, name: str) -> Path:
        """Where a file that belongs to the run goes: into its folder or, where nobody may write there, here."""
        path = Path(self.run_dir)
        return path / name if os.access(path, os.W_OK) else Path(f"{path.resolve().name}-{name}")


def parse(argv: list[str], schema: type, usage: str) -> Any:
    """An instance of the dataclass `schema` with what `argv` says over its defaults.

    Args:
        schema: a dataclass whose fields are made by `pql.config.key(default, meaning)`.
        usage: the first line of --help, which is printed and ends the program with exit code 0.

    Raises:
        UserError: a word that is no key=value, an unknown key (names the nearest), a wrong type, a key missing.
    """
    known = {f.name: f for f in fields(schema)}
    cfg = OmegaConf.structured(schema)
    if "--help" in argv or "-h" in argv:
        print(f"usage: {usage}\n")
        for name, f in known.items():
            value = cfg._get_node(name)._value()
            shown = "..." if value == REQUIRED else str(value).lower() if isinstance(value, bool) else value
            print(help_of(f"{name}={shown}", f.metadata["help"], 26))
        sys.exit(0)
    for word in argv:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise UserError(f"'{word}' is not of the form key=value; --help lists the keys")
        if name not in known:
            raise UserError(f"unknown key '{name}'{nearest(name, known)}; --help lists them all")
        try:
            cfg[name] = OmegaConf.create(value) if value.startswith("[") else _whole(cfg._get_node(name), value)
        except (OmegaConfBaseException, YAMLError) as error:
            raise UserError(f"{name}={value}: {str(error).splitlines()[0]}") from error
    for name in OmegaConf.missing_keys(cfg):
        raise UserError(f"{name}=... is missing: {known[name].metadata['help']}")
    try:
        return OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:  # ${...} means a reference here as in every configuration
        raise UserError(str(error).splitlines()[0]) from error


def _whole(node: Any, value: str) -> Any:
    """1e3 as a whole number where one is asked for."""
    try:
        return int(float(value)) if isinstance(node, IntegerNode) and float(value).is_integer() else value
    except ValueError:
        return value


def require(ok: bool, name: str, value: Any, rule: str) -> None:
    """Raises UserError that states the rule which `name=value` breaks."""
    if not ok:
        raise UserError(f"{name}={value}: must be {rule}")


def output_file(name: str, value: str, suffix: str) -> Path:
    """The path that `name=value` asks to write; raises UserError where its folder is missing or its ending differs."""
    path = Path(value)
    require(path.suffix == suffix and not path.is_dir(), name, value, f"a file that ends in {suffix}")
    require(path.parent.is_dir(), name, value, f"in a folder that exists; {path.parent} does not")
    require(os.access(path.parent, os.W_OK), name, value, "in a folder that can be written")
    return path
