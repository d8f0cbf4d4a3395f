"""What three processes gain: transitions and updates per second of `runtime=parallel` and `runtime=sync` at one ratio.

`sync` does one thing at a time, `parallel` overlaps simulation, critic and policy; both are held to the same updates
per transition, so the ratio of their transitions per second is what the overlap gains. A third side, `actor`, acts
and steps alone, without a learner: its rate against `parallel`'s is what the learners cost the simulation. Each side
is the real runtime; what it does is read off the counters at two moments after learning has begun, so that neither
start nor end counts. Sides take turns, `rounds` times.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, List

import torch

from pql import cli, config
from pql.config import key, make_env
from pql.files import write_atomically
from pql.roles.build import Parts, make_role, prepare
from pql.run.monitor import Monitor
from pql.runtime import parallel, sync
from pql.runtime.threads import cores, threads_of

SIDES = ("sync", "parallel", "actor")
FIXED = {  # nothing but the three roles runs, and no end comes before ours
    "max_env_steps": 10**12, "eval_interval": 0, "checkpoint_interval": 0, "checkpoint_replay": "false",
    "log_interval": 10**12, "eval_episodes": 1, "video": "false",
}  # fmt: skip


@dataclass
class Options:
    seconds: float = key(10.0, "of measurement for each side and round")
    settle: float = key(3.0, "seconds of steady learning before the first moment")
    rounds: int = key(2, "turns of each side")
    sides: List[str] = key(list(SIDES), "sync, parallel, actor")  # noqa: UP006 - OmegaConf reads it under Python 3.8
    sync: List[str] = key([], "training keys for the sync side alone: [threads.v_learner=2], say")  # noqa: UP006
    out: str = key("", "also write this JSON file, round by round")


class Stopwatch(Monitor):
    """A monitor that reads the counters `settle` seconds after the run is steady, and `seconds` later, and ends it.

    Steady: the learners have made up for the vector steps of the warm-up, so that the actor goes on.
    """

    def __init__(self, cfg: config.Config, parts: Parts, env: Any, options: Options):
        super().__init__(cfg, parts, env, None, blocking_evaluation=cfg.runtime == "sync")
        self.options, self.moments = options, []
        self.steady_from = self.shared.learning_starts + cfg.lead_steps + 1
        self.steady_since: float | None = None

    def tick(self) -> None:
        now = time.perf_counter()
        if self.steady_since is None:
            if int(self.shared.vector_steps) >= self.steady_from:
                self.steady_since = now
            return
        if not self.moments and now - self.steady_since >= self.options.settle:
            self.moments.append(self.read())
        elif len(self.moments) == 1 and now - self.moments[0]["time"] >= self.options.seconds:
            reading = self.read()
            if reading["transitions"] > self.moments[0]["transitions"]:  # a GPU may still be setting itself up
                self.moments.append(reading)
                self.shared.step_limit.fill_(0)

    def read(self) -> dict[str, float]:
        steps, critic_updates, policy_updates = self.counters
        waited = {f"wait_{role}": float(seconds) for role, seconds in self.shared.waited.items()}
        counts = {"transitions": steps * self.cfg.num_envs}
        counts.update(critic_updates=critic_updates, policy_updates=policy_updates)
        return {"time": time.perf_counter(), **counts, **waited, "device_memory_bytes": memory(self.cfg.device)}


def measure(overrides: list[str], options: Options, side: str) -> dict[str, Any]:
    """One turn of a side: rates per second, the measured ratio, each role's share of time spent waiting."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # what the side before has left
    with tempfile.TemporaryDirectory() as folder:
        cfg = load([*overrides, f"run_dir={folder}/run"], options, side)
        config.save(cfg, Path(cfg.run_dir) / "config.yaml")
        env = make_env(cfg, cfg.eval_episodes, 0)
        try:
            parts = prepare(cfg, env.spaces)
            if side == "actor":
                first, last = act_alone(cfg, parts, options)
            else:
                monitor = Stopwatch(cfg, parts, env, options)
                (sync if side == "sync" else parallel).run(cfg, monitor, None)
                monitor.writer.close()
                first, last = monitor.moments
        finally:
            env.close()
    seconds = last["time"] - first["time"]
    used = last.pop("device_memory_bytes")
    change = {name: last[name] - first[name] for name in last}
    found = {f"{name}_per_s": change[name] / seconds for name in ("transitions", "critic_updates", "policy_updates")}
    found["utd"] = change["critic_updates"] / change["transitions"]
    found.update({name: value / seconds for name, value in change.items() if name.startswith("wait_")})
    return {"side": side, "seconds": seconds, **found, "device_memory_bytes": used}


def act_alone(cfg: config.Config, parts: Parts, options: Options) -> tuple[dict, dict]:
    """The actor in this process, with the threads that it has beside the learners; readings at two moments."""
    threads, before, shared = threads_of(cfg), torch.get_num_threads(), parts.shared
    torch.set_num_threads(threads["actor"])
    actor = make_role("actor", cfg, parts.algorithm, shared, threads["sim"])
    try:
        for _ in range(cfg.algo.warmup_steps + 1):
            actor.step()
        moments = []
        for seconds in (options.settle, options.seconds):
            finish = time.perf_counter() + seconds
            while time.perf_counter() < finish:
                actor.step()
            if cfg.device.startswith("cuda"):
                torch.cuda.synchronize()
            reading = {"time": time.perf_counter(), "transitions": int(shared.vector_steps) * cfg.num_envs}
            reading.update(critic_updates=0, policy_updates=0, device_memory_bytes=memory(cfg.device))
            moments.append(reading)
        return moments[0], moments[1]
    finally:
        actor.env.close()
        torch.set_num_threads(before)


def memory(device: str) -> int | None:
    """Bytes in use on the whole GPU at this moment, by all processes; None on a CPU."""
    if not device.startswith("cuda"):
        return None
    free, total = torch.cuda.mem_get_info(device)
    return total - free


def load(overrides: list[str], options: Options, side: str) -> config.Config:
    """The run's configuration. Raises UserError."""
    mine = [*overrides, *(options.sync if side == "sync" else [])]
    runtime = "sync" if side == "sync" else "parallel"
    fixed = [f"{name}={value}" for name, value in FIXED.items()]
    return config.load([*fixed, *mine, f"runtime={runtime}"])


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over rounds, and the two ratios: of neighbours in time, medians over rounds."""
    sides = {}
    for side in dict.fromkeys(found["side"] for found in rounds):
        mine = [found for found in rounds if found["side"] == side]
        numbers = [name for name, value in mine[0].items() if isinstance(value, (int, float))]
        sides[side] = {name: statistics.median(found[name] for found in mine) for name in numbers}
    rate = {side: [x["transitions_per_s"] for x in rounds if x["side"] == side] for side in sides}
    ratios = {}
    for name, above, below in (
        ("overlap_gain", "parallel", "sync"),
        ("actor_share_beside_learners", "parallel", "actor"),
    ):
        pairs = list(zip(rate.get(above, []), rate.get(below, [])))
        ratios[name] = statistics.median(a / b for a, b in pairs) if pairs else None
    return {**ratios, "sides": sides}


HEADER = (
    f"{'side':<10}{'transitions/s':>14}{'critic/s':>10}{'policy/s':>10}{'utd':>10}"
    f"{'waits: actor':>14}{'V':>6}{'P':>6}"
)


def line(found: dict[str, Any]) -> str:
    waits = [found.get(f"wait_{role}") for role in ("actor", "v_learner", "p_learner")]
    shown = ["-" if found["side"] != "parallel" or value is None else f"{value:.0%}" for value in waits]
    return (
        f"{found['side']:<10}{found['transitions_per_s']:>14.0f}{found['critic_updates_per_s']:>10.1f}"
        f"{found['policy_updates_per_s']:>10.1f}{found['utd']:>10.6f}{shown[0]:>14}{shown[1]:>6}{shown[2]:>6}"
    )


def main(argv: list[str]) -> int:
    """`scripts/bench.py pipeline key=value ...`: its own keys, and any of training's. Raises UserError, TaskError."""
    own = {f.name for f in fields(Options)}
    mine = [word for word in argv if word.partition("=")[0] in own or word in ("-h", "--help")]
    usage = "scripts/bench.py pipeline [key=value ...]; those of train.py too"
    options = cli.parse(mine, Options, usage)
    overrides = [word for word in argv if word not in mine]
    out = cli.output_file("out", options.out, ".json") if options.out else None
    cli.require(options.seconds > 0, "seconds", options.seconds, "greater than 0")
    cli.require(options.settle >= 0, "settle", options.settle, "0 or more")
    cli.require(options.rounds >= 1, "rounds", options.rounds, "at least 1")
    for side in options.sides:
        cli.require(side in SIDES, "sides", side, f"some of {', '.join(SIDES)}")
    for word in overrides:
        name = word.partition("=")[0]
        cli.require(name not in {*FIXED, "runtime", "run_dir", "resume"}, name, word.partition("=")[2], "left out here")
    cfg = load(overrides, options, "parallel")
    a = cfg.algo
    print(f"{cfg.task.name}, {a.name}, {cfg.num_envs} environments on {cfg.device}, asked utd {a.utd:.6f}")
    print(HEADER)
    rounds: list[dict[str, Any]] = []
    for _ in range(options.rounds):
        for side in options.sides:
            rounds.append(measure(overrides, options, side))
            print(line(rounds[-1]), flush=True)
        if out:
            _write(out, cfg, rounds)
    found = summary(rounds)
    if found["overlap_gain"]:
        print(f"overlap: parallel does {found['overlap_gain']:.2f} times sync's transitions per second")
    if found["actor_share_beside_learners"]:
        print(f"beside both learners the actor does {found['actor_share_beside_learners']:.0%} of what it does alone")
    if out:
        print(f"written: {out}")
    return 0


def _write(out: Path, cfg: config.Config, rounds: list[dict[str, Any]]) -> None:
    facts = {"task": cfg.task.name, "algo": cfg.algo.name, "device": cfg.device, "num_envs": cfg.num_envs}
    facts.update(utd_requested=cfg.algo.utd, batch_size=cfg.algo.batch_size, cores=cores())
    write_atomically(out, json.dumps({**facts, **summary(rounds), "rounds": rounds}, indent=1))
