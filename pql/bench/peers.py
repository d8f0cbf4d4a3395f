"""PQL beside rsl_rl's PPO and stable-baselines3's SAC on one task: return against wall-clock and against env steps.

Each learner and seed is a cell: a process of its own on the same cores, one after the other, seed by seed, so that a
change of the machine meets all learners alike. A cell trains for a budget of wall-clock seconds and keeps a copy of
its policy every few seconds, which costs milliseconds. The copies are evaluated when training is over: without
noise, all from the same initial states. So no learner pays for its evaluations. Imports and the making of
environments and networks are not counted either; everything from the first step on is.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pql import cli
from pql.bench.peer_learners import TRAIN, Recorder
from pql.bench.peer_report import NAMES, plot, summary, table
from pql.config import key
from pql.errors import UserError, nearest

NEEDS = {"ppo": ("rsl_rl", "rsl-rl-lib"), "sac": ("stable_baselines3", "stable-baselines3")}


@dataclass
class Options:
    task: str = key("Ant", "the task")
    learners: str = key("pql,ppo,sac", "which learners, separated by commas: pql, flash_sac, our_sac, ppo, sac")
    seconds: float = key(300.0, "wall-clock seconds of training per learner and seed")
    seeds: int = key(3, "seeds per learner: 1, 2, ...")
    eval_every: float = key(10.0, "seconds between two evaluated policies")
    episodes: int = key(32, "episodes per evaluation, side by side, without noise")
    cores: int = key(0, "cores each learner may use; 0: all there are")
    pql: str = key("", "overrides for PQL, separated by blanks: pql='num_envs=256 algo.tau=0.05'")
    out: str = key("docs/results/peers", "results go to <out>.json and <out>.png")


def run_cell(options: Options, learner: str, seed: int, out: Path) -> None:
    """Train, then evaluate the copies; write the cell's JSON to `out`."""
    cores = _cores(options)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    import torch

    import tasks
    from pql.files import write_atomically
    from pql.run.evaluation import episodes, one_torch_thread

    torch.set_num_threads(cores)
    load = os.getloadavg()[0]
    recorder = Recorder(options.seconds, options.eval_every)
    act_with, settings = TRAIN[learner](options, seed, cores, recorder)
    env = tasks.make(options.task, options.episodes, sim="mujoco", seed=12345, threads=cores)
    start = env.state_dict()
    points = []
    with one_torch_thread(), torch.no_grad():
        for seconds, env_steps, state in recorder.copies:
            *_, result = episodes(env, act_with(state), start)
            points.append(
                {
                    "wall_time_s": round(seconds, 3),
                    "env_steps": env_steps,
                    "eval_return": float(result.returns.mean()),
                    "eval_return_std": float(result.returns.std()),
                    "eval_length": float(result.lengths.mean()),
                }
            )
    cell = {"learner": learner, "seed": seed, "load_before": load, "settings": settings, "points": points}
    write_atomically(out, json.dumps(cell))


def _cores(options: Options) -> int:
    have = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(options.cores or have, have)


def _cell_process(options: Options, learner: str, seed: int, folder: Path) -> dict | None:
    """Run a cell in a process group of its own; None, with the end of its log printed, where it failed."""
    out, log = folder / f"{learner}_{seed}.json", folder / f"{learner}_{seed}.log"
    asked = json.dumps(dataclasses.asdict(options))
    command = [sys.executable, "-m", "pql.bench.peers", learner, str(seed), str(out), asked]
    with open(log, "w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code: int | str = process.wait(options.seconds * 3 + 900)
        except subprocess.TimeoutExpired:
            code = "too slow"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if code == 0 and out.exists():
        return json.loads(out.read_text())
    print(f"{learner} seed {seed} failed ({code}):\n  " + "\n  ".join(log.read_text().splitlines()[-12:]))
    return None


def check(options: Options) -> list[str]:
    """The learners asked for. Raises UserError for what cannot be run, before anything is."""
    learners = [name.strip() for name in options.learners.split(",") if name.strip()]
    for name in learners:
        if name not in TRAIN:
            known = ", ".join(TRAIN)
            raise UserError(f"learners={options.learners}: no learner '{name}'{nearest(name, TRAIN)}; known: {known}")
        module, package = NEEDS.get(name, ("pql", ""))
        if importlib.util.find_spec(module) is None:
            raise UserError(
                f"learners={options.learners}: '{name}' needs {package}, which is not installed: "
                "pip install -c docker/constraints.txt -e '.[peers]', or leave it out of learners="
            )
    cli.require(bool(learners), "learners", options.learners, f"one or more of {', '.join(TRAIN)}")
    for name in ("seconds", "eval_every"):
        cli.require(getattr(options, name) > 0, name, getattr(options, name), "greater than 0")
    for name in ("seeds", "episodes"):
        cli.require(getattr(options, name) >= 1, name, getattr(options, name), "at least 1")
    cli.require(options.cores >= 0, "cores", options.cores, "0 or more")
    import tasks
    from pql import config

    tasks.get(options.task)
    config.load([f"task={options.task}", *options.pql.split()])
    return learners


def main(argv: list[str]) -> int:
    """`scripts/bench.py peers key=value ...`; returns the exit code. Raises UserError, TaskError."""
    options = cli.parse(argv, Options, "scripts/bench.py peers [key=value ...]")
    learners = check(options)
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    cells, failed = [], 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(1, options.seeds + 1):
            for learner in learners:
                cell = _cell_process(options, learner, seed, Path(folder))
                if cell is None:
                    failed += 1
                    continue
                cells.append(cell)
                last = cell["points"][-1]
                print(
                    f"{NAMES[learner]:<12} seed {seed}: return {last['eval_return']:.0f} after"
                    f" {last['wall_time_s']:.0f} s and {last['env_steps'] / 1e6:.2f}M env steps",
                    flush=True,
                )
                _write(out, options, cells)  # what there is survives an interruption
    if cells:
        print("\n" + table(cells))
        print(f"\n{out}.json  {out}.png")
    return 1 if failed else 0


def _write(out: Path, options: Options, cells: list[dict]) -> None:
    from pql.files import write_atomically

    facts = {
        "options": dataclasses.asdict(options),
        "cores": _cores(options),
        "python": platform.python_version(),
        "versions": _versions(),
        "reached": [dataclasses.asdict(row) for row in summary(cells)],
        "cells": cells,
    }
    write_atomically(Path(f"{out}.json"), json.dumps(facts, indent=1) + "\n")
    plot(cells, Path(f"{out}.png"), options.task)


def _versions() -> dict[str, str]:
    from importlib import metadata

    found = {}
    for package in ("torch", "mujoco", "rsl-rl-lib", "stable-baselines3"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    learner, seed, out, values = sys.argv[1:]
    run_cell(Options(**json.loads(values)), learner, int(seed), Path(out))
