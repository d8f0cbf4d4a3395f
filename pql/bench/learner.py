"""How fast an update is, against a textbook implementation in the same run and against the roofline.

Ours is the real learner: beside what the textbook's update does (`pql.bench.textbook`, always eager float32) it
normalises observations, keeps metrics and publishes its weights. `modes=` says how it runs and how exact its products
are: `eager`, `graph` (a CUDA graph; on a CPU as eager), `host` (the same, with the ring in the host's memory) or
`compile` (compile=true), each alone for float32, or with `+medium` or `+tf32` (matmul_precision=medium or high) or
`+bf16` (autocast=true).
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, List

import torch

from pql import cli, config
from pql.bench import roofline
from pql.bench.textbook import Data, Textbook
from pql.config import key
from pql.config.devices import resolve_device
from pql.files import write_atomically
from pql.roles.build import make_replay, prepare
from pql.roles.diagnosis import EVERY
from pql.roles.p_learner import PLearner
from pql.roles.v_learner import VLearner
from tasks.base import Spaces

OBS_DIM, ACTION_DIM, ROWS = 60, 8, 100_000  # Ant's; rows of replay to sample from
EXECUTION = {
    "eager": ["compile=false", "cuda_graphs=false"],
    "graph": ["compile=false", "cuda_graphs=true"],
    "host": ["compile=false", "cuda_graphs=true", "algo.replay_device=cpu", "runtime=parallel"],
    "compile": ["compile=true", "cuda_graphs=true"],
}
PRECISION = {
    "": ["matmul_precision=highest"],
    "medium": ["matmul_precision=medium"],
    "tf32": ["matmul_precision=high"],
    "bf16": ["matmul_precision=highest", "autocast=true"],
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


@dataclass
class Options:
    algos: List[str] = key(["pql", "pql_d"], "pql, pql_d")  # noqa: UP006 - OmegaConf reads it under Python 3.8 too
    modes: List[str] = key(  # noqa: UP006
        ["eager", "compile", "compile+medium"], "eager, graph, host, compile, with +medium, +tf32, +bf16"
    )
    networks: List[str] = key(["relu+norm", "elu"], "activations, each with +norm or without")  # noqa: UP006
    hidden: List[int] = key([512, 256, 128], "widths of the hidden layers")  # noqa: UP006
    batch_sizes: List[int] = key([256, 8192], "transitions per update")  # noqa: UP006
    threads: List[int] = key([], "torch threads; empty: 1 and all cores")  # noqa: UP006
    device: str = key("auto", "auto, cpu, cuda")
    seconds: float = key(8.0, "of measurement for each line and side")
    clock: str = key("wall", "wall, or cpu: this process's CPU seconds, for one thread on a busy machine")
    out: str = key("", "also write this JSON file, row by row")


def learners(cfg: config.Config) -> tuple[VLearner, PLearner, Textbook]:
    """Ours, compiled and its products as exact as configured, and the textbook's on the same data."""
    device = torch.device(cfg.device)
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    discount = torch.full((ROWS,), cfg.algo.gamma**cfg.algo.n_step, device=device)
    obs, action = normal(ROWS, OBS_DIM), normal(ROWS, ACTION_DIM).tanh_()
    data = Data(obs, action, normal(ROWS), normal(ROWS, OBS_DIM), discount)
    algorithm, _, shared = prepare(cfg, Spaces(OBS_DIM, ACTION_DIM))
    replay = make_replay(cfg, algorithm, shared)
    for rows in zip(*(column.split(cfg.num_envs) for column in data[:4])):
        replay.append(*rows, steps=cfg.algo.n_step)
    v_learner = VLearner(cfg, algorithm, replay, shared)
    p_learner = PLearner(cfg, algorithm, replay, shared)
    return v_learner, p_learner, Textbook(cfg.algo, data)


def compare(cfg: config.Config, seconds: float, clock: Callable[[], float] = time.perf_counter) -> list[dict]:
    """One row for the critic's update, one for the policy's: rates, ratios, shares of the roofline. Sides take turns.

    The roofline is that of the update's own precision, the textbook's that of float32; both count what ours does, so
    that work which need not be done earns nothing.
    """
    device = torch.device(cfg.device)
    with precision(cfg.matmul_precision):
        v_learner, p_learner, textbook = learners(cfg)
    dtype = torch.bfloat16 if cfg.autocast else torch.float32
    product, product_flops = roofline.large_product(device, dtype)
    exact_product, _ = roofline.large_product(device, torch.float32)
    copy, copy_bytes = roofline.large_copy(device)

    def as_configured(call: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            with precision(cfg.matmul_precision):
                call()

        return run

    rows = []
    for name, learner, theirs, count in (
        ("critic", v_learner, textbook.update_critic, roofline.critic_update),
        ("policy", p_learner, textbook.update_policy, roofline.policy_update),
    ):
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        ours, look = as_configured(learner.update), as_configured(learner.graphed_diagnose)
        sides = (ours, theirs, as_configured(product), exact_product, copy, look)
        times = take_turns(sides, seconds, device, clock)
        fast, slow, product_s, exact_s, copy_s, look_s = (statistics.median(side) for side in times)
        work, exact = (count(cfg.algo, OBS_DIM, ACTION_DIM, size) for size in (dtype.itemsize, 4))
        rates = product_flops / product_s, copy_bytes / copy_s
        bound = work.seconds(*rates)
        rows.append(
            {
                "algo": cfg.algo.name,
                "mode": mode(cfg),
                "network": cfg.algo.activation + ("+norm" if cfg.algo.layer_norm else ""),
                "hidden": list(cfg.algo.hidden),
                "batch_size": cfg.algo.batch_size,
                "threads": torch.get_num_threads(),
                "device": str(device),
                "update": name,
                "updates_per_s": 1 / fast,
                "textbook_updates_per_s": 1 / slow,
                "diagnosis_share": look_s / (EVERY * fast),
                "speed_up": statistics.median(b / a for a, b in zip(*times[:2])),
                "flops": work.flops,
                "bytes": work.bytes,
                "matmul_flops_per_s": rates[0],
                "copy_bytes_per_s": rates[1],
                "bound_by": "products" if bound == work.flops / rates[0] else "memory",
                "share_of_roofline": bound / fast,
                "textbook_share_of_roofline": exact.seconds(product_flops / exact_s, rates[1]) / slow,
                "share_of_float32_matmul_rate": work.flops / fast / (product_flops / exact_s),
                "peak_memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
                "ring_bytes_on_device": sum(
                    part.numel() * part.element_size()
                    for part in learner.shared.ring.values() if part.device.type == device.type
                ),
                "turns": len(times[0]),
            }
        )
    return rows


def mode(cfg: config.Config) -> str:
    """The word of `modes=` that `cfg` answers to."""
    execution = "compile" if cfg.compile else "graph" if cfg.cuda_graphs else "eager"
    execution = execution if cfg.algo.replay_device is None else "host"
    names = {"highest": "", "high": "+tf32", "medium": "+medium"}
    return execution + ("+bf16" if cfg.autocast else names[cfg.matmul_precision])


@contextmanager
def precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def take_turns(
    sides: tuple[Callable[[], None], ...], seconds: float, device: torch.device, clock: Callable[[], float]
) -> list[list[float]]:
    """Seconds per call, turn by turn: each side runs for a moment, then the next, so that a neighbour meets all."""
    moment = min(0.25, seconds / 10)
    if device.type == "cuda":  # a learner records its CUDA graph in its first calls
        for side in sides:
            _time(side, 5, device, clock)
    calls = [max(1, round(moment / _time(side, 3, device, clock))) for side in sides]
    times: list[list[float]] = [[] for _ in sides]
    finish = clock() + 2 * seconds
    while len(times[0]) < 5 or clock() < finish:
        for side, n, found in zip(sides, calls, times):
            found.append(_time(side, n, device, clock))
    return times


def _time(call: Callable[[], None], calls: int, device: torch.device, clock: Callable[[], float]) -> float:
    _wait(device)
    start = clock()
    for _ in range(calls):
        call()
    _wait(device)
    return (clock() - start) / calls


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


HEADER = (
    f"{'algo':<6}{'mode':<15}{'network':<10} {'batch':>5}{'cores':>6} {'update':<6}"
    f"{'per s':>8}{'textbook':>9}{'ratio':>6}{'roof':>6}"
)


def line(row: dict) -> str:
    return (
        f"{row['algo']:<6}{row['mode']:<15}{row['network']:<10} {row['batch_size']:>5}{row['threads']:>6} "
        f"{row['update']:<6}{row['updates_per_s']:>8.1f}{row['textbook_updates_per_s']:>9.1f}{row['speed_up']:>6.2f}"
        f"{row['share_of_roofline']:>6.0%}"
    )


def main(argv: list[str]) -> int:
    """Measure, print a table, write JSON if asked."""
    options = cli.parse(argv, Options, "scripts/bench.py learner [key=value ...]")
    out = cli.output_file("out", options.out, ".json") if options.out else None
    cli.require(options.clock in CLOCKS, "clock", options.clock, "wall or cpu")
    for how in options.modes:
        execution, _, exactness = how.partition("+")
        known = execution in EXECUTION and exactness in PRECISION and how[-1] != "+"
        cli.require(known, "modes", how, "eager, graph, host or compile, alone or with +medium, +tf32 or +bf16")
    cli.require(options.seconds > 0, "seconds", options.seconds, "greater than 0")
    clock = CLOCKS[options.clock]
    device = resolve_device(options.device)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = options.threads or (sorted({1, cores}) if device.type == "cpu" else [1])
    rows, before = [], torch.get_num_threads()
    print(HEADER)
    try:
        for count in threads:
            torch.set_num_threads(count)
            for algo in options.algos:
                for network in options.networks:
                    for batch_size, how in itertools.product(options.batch_sizes, options.modes):
                        cfg = settings(algo, network, options.hidden, batch_size, device, how)
                        for row in compare(cfg, options.seconds, clock):
                            rows.append(row)
                            print(line(row), flush=True)
                        if out:
                            _write(out, rows, cores, options.clock)
    finally:
        torch.set_num_threads(before)
    print("ratio: ours to the textbook; roof: the least time that the update's float operations and bytes ask for, at")
    print("the rates of a large product and a large copy measured beside it, as a share of the time it takes")
    if out:
        print(f"written: {out}")
    return 0


def _write(out: Path, rows: list[dict], cores: int, clock: str) -> None:
    facts = {"torch": torch.__version__, "machine": platform.machine(), "cores": cores, "clock": clock}
    write_atomically(out, json.dumps({**facts, "rows": rows}, indent=1))


def settings(
    algo: str, network: str, hidden: list[int], batch_size: int, device: torch.device, how: str = "eager"
) -> config.Config:
    activation, _, norm = network.partition("+")
    execution, _, exactness = how.partition("+")
    return config.load(
        [
            f"algo={algo}",
            f"device={device}",
            *EXECUTION[execution],
            *PRECISION[exactness],
            "num_envs=1000",
            f"algo.replay_size={2 * ROWS}",
            f"algo.activation={activation}",
            f"algo.layer_norm={norm == 'norm'}",
            f"algo.hidden=[{','.join(map(str, hidden))}]",
            f"algo.batch_size={batch_size}",
        ]
    )
