"""Benchmarks: `scripts/bench.py sim | learner | peers | curves [key=value ...]`; --help after each lists its keys."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import List

from pql import cli
from pql.config import key
from pql.errors import user_errors


@dataclass
class SimOptions:
    tasks: List[str] = key([], "tasks; empty: all")  # noqa: UP006 - OmegaConf reads it under Python 3.8 too
    num_envs: List[int] = key([64, 256, 1024, 4096], "environments stepped together")  # noqa: UP006
    seconds: float = key(4.0, "of measurement for each line, half of it for each side")
    sim: str = key("auto", "simulator: auto, mujoco_warp, mujoco")
    device: str = key("auto", "auto: the simulator's own; cpu, cuda, cuda:1")
    out: str = key("", "also write this JSON file")


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
    rows = []
    print(f"{'task':<12} {'envs':>6} {'env steps/s':>12} {'bare physics':>13} {'ratio':>6}")
    for name in options.tasks or tasks.list():
        for num_envs in options.num_envs:
            row = bench_sim(name, num_envs, options.seconds, sim=options.sim, device=options.device)
            rows.append(row)
            rates = f"{row['env_steps_per_s']:>12.0f} {row['physics_steps_per_s']:>13.0f} {row['ratio']:>6.2f}"
            print(f"{name:<12} {num_envs:>6} {rates}", flush=True)
    if options.out:
        _write(options.out, rows)
    return 0


def learner(argv: list[str]) -> int:
    """Critic and policy updates per second against a textbook implementation."""
    from pql import bench

    return bench.main(argv)


def peers(argv: list[str]) -> int:
    """PQL, rsl_rl's PPO and stable-baselines3's SAC on one task."""
    from pql import peers

    return peers.main(argv)


def curves(argv: list[str]) -> int:
    """Learning curves of runs: a table and a picture."""
    from pql import curves

    options = cli.parse(argv, CurvesOptions, "scripts/bench.py curves runs=[...] [key=value ...]")
    cli.require(bool(options.runs), "runs", options.runs, "a list of run directories: runs=[runs/a,runs/b]")
    print(curves.main(options.runs, options.out, options.thresholds))
    return 0


def _write(path: str, values: object) -> None:
    from pql.checkpoint import write_atomically

    write_atomically(Path(path), json.dumps(values, indent=1))


COMMANDS = {"sim": sim, "learner": learner, "peers": peers, "curves": curves}


def main(argv: list[str]) -> int:
    if not argv or argv[0] not in COMMANDS:
        asked = argv and argv[0] not in ("-h", "--help")
        lines = [f"usage: scripts/bench.py {' | '.join(COMMANDS)} [key=value ...]"]
        lines += [f"  {name:<8} {command.__doc__}" for name, command in COMMANDS.items()]
        print("\n".join(lines), file=sys.stderr if asked else sys.stdout)
        return 2 if asked else 0
    with user_errors():
        return COMMANDS[argv[0]](argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
