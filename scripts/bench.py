"""Benchmarks: `scripts/bench.py NAME [NAME ...] [key=value ...]`; --help after a name lists its keys.

Several run one after the other, each with all of the keys given.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import List, Optional

from pql import cli
from pql.config import key
from pql.errors import nearest, user_errors
from pql.keys import help_of


@dataclass
class SimOptions:
    tasks: List[str] = key([], "tasks; empty: all")  # noqa: UP006 - OmegaConf reads it under Python 3.8 too
    num_envs: List[int] = key([64, 256, 1024, 4096], "environments stepped together")  # noqa: UP006
    sim: str = key("auto", "simulator; auto: the best that runs here")
    device: str = key("auto", "auto, cpu, cuda")
    threads: Optional[int] = key(None, "of the simulator; null: all cores")  # noqa: UP045
    loop: bool = key(False, "of ports: also the original, one environment in a Python loop")
    seconds: float = key(4.0, "of measurement for each line, shared by its sides")
    out: str = key("", "also write this JSON file, row by row")


@dataclass
class CurvesOptions:
    runs: List[str] = key([], "run directories")  # noqa: UP006
    thresholds: List[float] = key([1000.0, 3000.0, 5000.0], "returns whose first evaluation is timed")  # noqa: UP006
    out: str = key("curves", "writes <out>.png and <out>.json")


def sim(argv: list[str]) -> int:
    """Environment steps per second of tasks, against the bare physics stepped alone in the same run."""
    import tasks
    from tasks.bench import bench_sim

    options = cli.parse(argv, SimOptions, "scripts/bench.py sim [key=value ...]")
    if options.loop:
        os.environ.setdefault("MUJOCO_GL", "disable")  # or dm_control looks for a window, and says that there is none
    names, rows = options.tasks or tasks.list(), []
    wide = max(map(len, [*names, "task"])) + 1
    loop = f" {'in a loop':>10} {'ratio':>6}" * options.loop
    print(f"{'task':<{wide}} {'envs':>6} {'env steps/s':>12} {'bare physics':>13} {'ratio':>6}{loop}")
    for name in names:
        for num_envs in options.num_envs:
            made = {"sim": options.sim, "device": options.device, "threads": options.threads}
            row = bench_sim(name, num_envs, options.seconds, loop=options.loop, **made)
            rows.append(row)
            if options.out:
                _write(options.out, rows)
            rates = f"{row['env_steps_per_s']:>12.0f} {row['physics_steps_per_s']:>13.0f} {row['ratio']:>6.2f}"
            if options.loop:
                rates += f" {row['loop_steps_per_s']:>10.0f} {row['loop_ratio']:>6.1f}"
            print(f"{name:<{wide}} {num_envs:>6} {rates}", flush=True)
    return 0


def learner(argv: list[str]) -> int:
    """Critic and policy updates per second against a textbook implementation and the roofline."""
    from pql.bench import learner

    return learner.main(argv)


def pipeline(argv: list[str]) -> int:
    """Three processes against one: transitions and updates per second at the same ratio."""
    from pql.bench import pipeline

    return pipeline.main(argv)


def peers(argv: list[str]) -> int:
    """PQL, rsl_rl's PPO and stable-baselines3's SAC on one task."""
    from pql.bench import peers

    return peers.main(argv)


def curves(argv: list[str]) -> int:
    """Learning curves of runs: a table and a picture."""
    from pql.bench import curves

    options = cli.parse(argv, CurvesOptions, "scripts/bench.py curves runs=[...] [key=value ...]")
    cli.require(bool(options.runs), "runs", options.runs, "a list of run directories: runs=[runs/a,runs/b]")
    print(curves.main(options.runs, options.out, options.thresholds))
    return 0


def _write(path: str, values: object) -> None:
    from pql.files import write_atomically

    write_atomically(Path(path), json.dumps(values, indent=1))


COMMANDS = {"sim": sim, "learner": learner, "pipeline": pipeline, "peers": peers, "curves": curves}


def main(argv: list[str]) -> int:
    names = list(itertools.takewhile(lambda word: "=" not in word and not word.startswith("-"), argv))
    unknown = [name for name in names if name not in COMMANDS]
    if not names or unknown:
        asked = argv and argv[0] not in ("-h", "--help")
        lines = [f"error: no benchmark is called '{unknown[0]}'{nearest(unknown[0], COMMANDS)}"] if unknown else []
        lines += ["usage: scripts/bench.py NAME [NAME ...] [key=value ...]"]
        lines += [help_of(name, command.__doc__, 8) for name, command in COMMANDS.items()]
        print("\n".join(lines), file=sys.stderr if asked else sys.stdout)
        return 2 if asked else 0
    with user_errors():
        return max([COMMANDS[name](argv[len(names) :]) for name in names])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
