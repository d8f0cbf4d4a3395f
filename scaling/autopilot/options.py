"""What an autopilot is asked for: a return, a budget, and how much of it pilots may use."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Sequence

from scaling.cli import boolean, numbers, option, parse
from scaling.errors import InputError
from scaling.report.plan import parse_budget
from scaling.sweep.plan_file import parse_values, write_json

STATE, RUN = "autopilot.json", "run.yaml"
AIMS = {"target", "budget", "share", "precision", "rounds", "defaults"}
SWEEP_WORDS = ("launcher", "trainer")  # and launcher.<field>: the sweep's own
FIRST_RATIOS = (0.5, 1.0, 2.0, 4.0)  # multiples of the settings' own, which are chosen for speed: low


@dataclass
class Options:
    """The keys of scripts/autopilot.py; every other word is a training key, the same in all runs."""

    target: float | None = option(None, "return to reach, as evaluations measure it", float)
    budget: str | None = option(None, "what all runs together may take, with its unit: 20m, 2h (seconds of training, "
                                      "summed over runs) or 5e6steps")  # fmt: skip
    out: str = option("autopilot", "folder for the pilot's sweep, its laws, the run and the log; given again, goes on")
    share: float = option(0.5, "of the budget that pilots may take", float)
    precision: float = option(1.5, "pilots end when the 90 % interval of the steps spans less than this factor", float)
    seeds: int = option(2, "seeds of each pilot", int)
    seed: int = option(0, "the first of these: other pilots, and another run, of the same task", int)
    rounds: int = option(5, "pilot rounds at most", int)
    utd: list | None = option(None, "ratios of the first pilots; by default half, once, twice and 4 times the "
                                    "settings' own", numbers)  # fmt: skip
    sweep: str | None = option(None, "first pilots from a file of cfg/sweep/ instead: its batch sizes too, say")
    defaults: bool = option(False, "then also train with the settings as they are, to compare", boolean)
    dry_run: bool = option(False, "say what the first round would cost and stop", boolean)

    @property
    def amount(self) -> float:
        return parse_budget(self.budget)[0]

    @property
    def unit(self) -> str:
        """`seconds` or `steps`."""
        return parse_budget(self.budget)[1]


def split(argv: Sequence[str]) -> tuple[Options, list[str], list[str]]:
    """(options, training words, words for the sweep). Raises InputError."""
    own = {field.name for field in dataclasses.fields(Options)}
    mine, training, sweep = [], [], []
    for word in argv:
        key, equals, value = word.partition("=")
        if not equals or key in own:
            mine.append(word)
        elif key in SWEEP_WORDS or key.startswith("launcher."):
            sweep.append(word)
        else:
            meant = get_close_matches(key, own, 1, 0.8)
            if meant:
                raise InputError(f"unknown key {key!r}; did you mean {meant[0]!r}?")
            if len(parse_values(key, value)) > 1:
                raise InputError(f"{word}: an autopilot lays out its own runs; give {key} one value")
            training.append(word)
    options = parse(Options, mine)
    _check(options, training)
    return options, training, sweep


def _check(options: Options, training: Sequence[str]) -> None:
    if options.target is None or options.budget is None:
        raise InputError("give target=<return> and budget=<20m, 2h or 5e6steps>")
    if not math.isfinite(options.target):
        raise InputError(f"target={options.target}: give a finite number")
    if options.unit == "flops":
        raise InputError(f"budget={options.budget}: give seconds of training (20m, 2h) or steps (5e6steps)")
    if not 0 < options.share < 1:
        raise InputError(f"share={options.share}: give a part of 1, .5 for a half")
    if options.precision <= 1:
        raise InputError(f"precision={options.precision}: give a factor above 1, 1.5 for half as much again")
    if options.seeds < 2:
        raise InputError(f"seeds={options.seeds}: an interval needs two or more")
    if options.seed < 0:
        raise InputError(f"seed={options.seed}: give 0 or more")
    if options.rounds < 1:
        raise InputError(f"rounds={options.rounds}: give 1 or more")
    if options.utd is not None and options.sweep is not None:
        raise InputError("utd= and sweep= both name the first pilots: give one")
    if options.utd is not None and (len(set(options.utd)) < 3 or not all(0 < r < math.inf for r in options.utd)):
        raise InputError(f"utd={options.utd}: a law needs three positive ratios or more")
    chosen = {"algo.utd", "algo.critic_updates_per_step", "max_env_steps", "max_time", "run_dir", "resume"}
    for word in training:
        if word.partition("=")[0] in chosen:
            raise InputError(f"{word}: the autopilot chooses that; leave it out")


def claim(options: Options, words: Sequence[str]) -> None:
    """Begin in `out`, or go on with what was asked for before. Raises InputError where that was something else.

    Until its run has begun, AIMS may change: the pilots that flew are of use to another target or budget, too.
    """
    out, asked = Path(options.out), {**dataclasses.asdict(options), "words": list(words)}
    del asked["out"], asked["dry_run"]
    path = out / STATE
    if path.exists():
        try:
            before = json.loads(path.read_text())
        except ValueError:
            raise InputError(f"{path} is damaged: name another out folder") from None
        unsaid = {field.name: field.default for field in dataclasses.fields(options)}  # of a file from before the key
        changed = [key for key in asked if before.get(key, unsaid.get(key)) != asked[key]]
        if changed and ((out / RUN).exists() or not AIMS.issuperset(changed)):
            first = min(changed, key=lambda key: key in AIMS)
            raise InputError(f"{out} was begun with {first}={_shown(before.get(first))}: name another out"
                             " folder, or give the same words")  # fmt: skip
        if changed:
            write_json(path, asked)
        return
    if out.exists() and not out.is_dir():
        raise InputError(f"out={out} is a file: name a folder")
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"out={out} holds something else: name a new folder")
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, asked)


def _shown(value: Any) -> str:
    return " ".join(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else str(value)
