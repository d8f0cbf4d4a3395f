"""How fast an update is, against a textbook implementation in the same run, and what bounds it.

The textbook is what one writes first: two critics as `nn.Sequential`, losses spelled out, `AdamW` and
`clip_grad_norm_` on lists of parameters, a loop for the soft target, and for PQL-D the projection with `index_add_` of
both twins. It has the same mathematics, sizes, activation and normalisation as ours, in float32. Ours is the real
learner: it also normalises observations, keeps metrics and publishes its weights. `modes=` says how it runs: `eager`,
`compile` (compile=true), and either with matmul_precision=medium, `eager+medium` or `compile+medium`.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import os
import platform
import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable, Iterator, List

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pql import cli, config
from pql.algorithms import make
from pql.checkpoint import write_atomically
from pql.config import key
from pql.p_learner import PLearner
from pql.replay import Transition
from pql.trainer import make_replay, make_shared
from pql.v_learner import VLearner

OBS_DIM, ACTION_DIM, ROWS = 60, 8, 100_000  # Ant's; rows of replay to sample from
MODES = ("eager", "compile", "eager+medium", "compile+medium")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
MATMUL = 2048  # rows and columns of the product whose rate the updates are held against


@dataclass
class Options:
    algos: List[str] = key(["pql", "pql_d"], "pql, pql_d")  # noqa: UP006 - OmegaConf reads it under Python 3.8 too
    modes: List[str] = key(["eager", "compile", "compile+medium"], "eager or compile, each with +medium")  # noqa: UP006
    networks: List[str] = key(["relu+norm", "elu"], "activations, each with +norm or without")  # noqa: UP006
    hidden: List[int] = key([512, 256, 128], "widths of the hidden layers")  # noqa: UP006
    batch_sizes: List[int] = key([256, 8192], "transitions per update")  # noqa: UP006
    threads: List[int] = key([], "torch threads; empty: 1 and all cores")  # noqa: UP006
    device: str = key("auto", "auto, cpu, cuda")
    seconds: float = key(8.0, "of measurement for each line and side")
    clock: str = key("wall", "wall, or cpu: this process's CPU seconds, for one thread on a busy machine")
    out: str = key("", "also write this JSON file")


class Textbook:
    """PQL and PQL-D, update by update, in eager torch."""

    def __init__(self, cfg: config.AlgoConfig, batch: Transition, device: torch.device):
        self.cfg, self.data = cfg, batch
        self.atoms = cfg.num_atoms if cfg.name == "pql_d" else 1
        self.support = torch.linspace(cfg.v_min, cfg.v_max, cfg.num_atoms, device=device)
        self.q1, self.q2 = (self.mlp(OBS_DIM + ACTION_DIM, self.atoms).to(device) for _ in range(2))
        self.target1, self.target2 = copy.deepcopy(self.q1), copy.deepcopy(self.q2)
        self.policy = nn.Sequential(*self.mlp(OBS_DIM, ACTION_DIM), nn.Tanh()).to(device)
        self.critic_parameters = [*self.q1.parameters(), *self.q2.parameters()]
        self.target_parameters = [*self.target1.parameters(), *self.target2.parameters()]
        decay = cfg.weight_decay
        self.critic_adam = torch.optim.AdamW(self.critic_parameters, lr=cfg.critic_lr, weight_decay=decay)
        self.policy_adam = torch.optim.AdamW(self.policy.parameters(), lr=cfg.actor_lr, weight_decay=decay)

    def mlp(self, width: int, out: int) -> nn.Sequential:
        layers = []
        for size in self.cfg.hidden:
            layers.append(nn.Linear(width, size))
            if self.cfg.layer_norm:
                layers.append(nn.LayerNorm(size, elementwise_affine=False))
            layers.append({"relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}[self.cfg.activation]())
            width = size
        return nn.Sequential(*layers, nn.Linear(width, out))

    def sample(self) -> Transition:
        index = torch.randint(ROWS, (self.cfg.batch_size,), device=self.data.obs.device)
        return Transition(*(column[index] for column in self.data))

    def update_critic(self) -> None:
        b = self.sample()
        with torch.no_grad():
            noise = (torch.randn_like(b.action) * self.cfg.target_noise).clamp(
                -self.cfg.target_noise_clip, self.cfg.target_noise_clip
            )
            x = torch.cat([b.next_obs, (self.policy(b.next_obs) + noise).clamp(-1, 1)], 1)
            y = self.target_distribution(x, b) if self.atoms > 1 else self.target_value(x, b)
        x = torch.cat([b.obs, b.action], 1)
        if self.atoms > 1:
            loss = sum(-(F.log_softmax(q(x), 1) * y).sum(1).mean() for q in (self.q1, self.q2))
        else:
            loss = sum(F.mse_loss(q(x).squeeze(1), y) for q in (self.q1, self.q2))
        self.critic_adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.critic_parameters, self.cfg.max_grad_norm)
        self.critic_adam.step()
        with torch.no_grad():
            for target, source in zip(self.target_parameters, self.critic_parameters):
                target.lerp_(source, self.cfg.tau)

    def target_value(self, x: Tensor, b: Transition) -> Tensor:
        return b.return_n + b.discount * torch.min(self.target1(x), self.target2(x)).squeeze(1)

    def target_distribution(self, x: Tensor, b: Transition) -> Tensor:
        p1, p2 = self.target1(x).softmax(1), self.target2(x).softmax(1)
        y1, y2 = self.project(p1, b), self.project(p2, b)
        first = (p1 * self.support).sum(1) < (p2 * self.support).sum(1)
        return torch.where(first.unsqueeze(1), y1, y2)

    def project(self, probs: Tensor, b: Transition) -> Tensor:
        """The projection as published C51 code has it."""
        v_min, v_max, atoms = self.cfg.v_min, self.cfg.v_max, self.atoms
        shifted = (b.return_n.unsqueeze(1) + b.discount.unsqueeze(1) * self.support).clamp(v_min, v_max)
        position = (shifted - v_min) / ((v_max - v_min) / (atoms - 1))
        lower, upper = position.floor().long(), position.ceil().long()
        lower[(upper > 0) & (lower == upper)] -= 1
        upper[(lower < atoms - 1) & (lower == upper)] += 1
        offset = (torch.arange(len(probs), device=probs.device) * atoms).unsqueeze(1).expand_as(lower)
        out = torch.zeros_like(probs)
        out.view(-1).index_add_(0, (lower + offset).view(-1), (probs * (upper - position)).view(-1))
        out.view(-1).index_add_(0, (upper + offset).view(-1), (probs * (position - lower)).view(-1))
        return out

    def update_policy(self) -> None:
        obs = self.sample().obs
        x = torch.cat([obs, self.policy(obs)], 1)
        q1, q2 = self.q1(x), self.q2(x)
        if self.atoms > 1:
            q1, q2 = ((q.softmax(1) * self.support).sum(1) for q in (q1, q2))
        loss = -torch.min(q1, q2).mean()
        self.policy_adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.policy.parameters(), self.cfg.max_grad_norm)
        self.policy_adam.step()


def learners(cfg: config.Config) -> tuple[VLearner, PLearner, Textbook]:
    """Ours, compiled and its products as exact as configured, and the textbook's on the same data."""
    device = torch.device(cfg.device)
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    discount = torch.full((ROWS,), cfg.algo.gamma**cfg.algo.n_step, device=device)
    data = Transition(
        normal(ROWS, OBS_DIM), normal(ROWS, ACTION_DIM).tanh_(), normal(ROWS), normal(ROWS, OBS_DIM), discount,
        torch.ones_like(discount),
    )  # fmt: skip
    shared = make_shared(cfg, OBS_DIM, ACTION_DIM)
    replay = make_replay(cfg, OBS_DIM, ACTION_DIM, shared)
    for rows in zip(*(column.split(cfg.num_envs) for column in data)):
        replay.add(Transition(*rows))
    algorithm = make(cfg.algo, OBS_DIM, ACTION_DIM)
    v_learner = VLearner(cfg, algorithm, replay, shared)
    p_learner = PLearner(cfg, algorithm, replay, shared)
    return v_learner, p_learner, Textbook(cfg.algo, data, device)


def compare(cfg: config.Config, seconds: float, clock: Callable[[], float] = time.perf_counter) -> list[dict]:
    """One row for the critic's update, one for the policy's: rates, FLOPs, ratios. Sides take turns."""
    device = torch.device(cfg.device)
    with precision(cfg.matmul_precision):
        v_learner, p_learner, textbook = learners(cfg)
        plain_v, plain_p, _ = learners(dataclasses.replace(cfg, compile=False))

    def as_configured(call: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            with precision(cfg.matmul_precision):
                call()

        return run

    matrix = torch.randn(MATMUL, MATMUL, device=device)
    product = torch.empty_like(matrix)
    rows = []
    for name, ours, plain, theirs in (
        ("critic", v_learner.update, plain_v.update, textbook.update_critic),
        ("policy", p_learner.update, plain_p.update, textbook.update_policy),
    ):
        flops = [_flops(call) for call in (plain, theirs)]
        sides = (as_configured(ours), theirs, lambda: torch.mm(matrix, matrix, out=product))
        times = _take_turns(sides, seconds, device, clock)
        fast, slow, matmul = (statistics.median(side) for side in times)
        rate = 2 * MATMUL**3 / matmul
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
                "speed_up": statistics.median(b / a for a, b in zip(*times[:2])),
                "flops": flops[0],
                "textbook_flops": flops[1],
                "flops_per_s": flops[0] / fast,
                "textbook_flops_per_s": flops[1] / slow,
                "matmul_flops_per_s": rate,
                "share_of_matmul_rate": flops[0] / fast / rate,
                "textbook_share_of_matmul_rate": flops[1] / slow / rate,
                "turns": len(times[0]),
            }
        )
    return rows


def mode(cfg: config.Config) -> str:
    return ("compile" if cfg.compile else "eager") + ("" if cfg.matmul_precision == "highest" else "+medium")


@contextmanager
def precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _flops(call: Callable[[], None]) -> int:
    """Floating-point operations of the matrix products in a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def _take_turns(
    sides: tuple[Callable[[], None], ...], seconds: float, device: torch.device, clock: Callable[[], float]
) -> list[list[float]]:
    """Seconds per call, turn by turn: each side runs for a moment, then the next, so that a neighbour meets all."""
    moment = min(0.25, seconds / 10)
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
    f"{'per s':>7}{'textbook':>9}{'ratio':>6}{'matmul':>7}"
)


def line(row: dict) -> str:
    return (
        f"{row['algo']:<6}{row['mode']:<15}{row['network']:<10} {row['batch_size']:>5}{row['threads']:>6} "
        f"{row['update']:<6}{row['updates_per_s']:>7.1f}{row['textbook_updates_per_s']:>9.1f}{row['speed_up']:>6.2f}"
        f"{row['share_of_matmul_rate']:>7.0%}"
    )


def main(argv: list[str]) -> int:
    """Measure, print a table, write JSON if asked."""
    options = cli.parse(argv, Options, "scripts/bench.py learner [key=value ...]")
    out = cli.output_file("out", options.out, ".json") if options.out else None
    cli.require(options.clock in CLOCKS, "clock", options.clock, "wall or cpu")
    for how in options.modes:
        cli.require(how in MODES, "modes", how, f"some of {', '.join(MODES)}")
    cli.require(options.seconds > 0, "seconds", options.seconds, "greater than 0")
    clock = CLOCKS[options.clock]
    device = config.resolve_device(options.device)
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
    finally:
        torch.set_num_threads(before)
    rates = sorted({(row["threads"], row["matmul_flops_per_s"]) for row in rows})
    for count in threads:
        best = max(rate for n, rate in rates if n == count)
        print(f"a {MATMUL} x {MATMUL} matrix product on {count} thread(s): {best / 1e9:.0f} GFLOP/s")
    print("ratio: ours to the textbook; matmul: the update's products per second of all of it, as a share of that rate")
    if out:
        facts = {"torch": torch.__version__, "machine": platform.machine(), "cores": cores, "clock": options.clock}
        write_atomically(out, json.dumps({**facts, "rows": rows}, indent=1))
        print(f"written: {out}")
    return 0


def settings(
    algo: str, network: str, hidden: list[int], batch_size: int, device: torch.device, how: str = "eager"
) -> config.Config:
    activation, _, norm = network.partition("+")
    return config.load(
        [
            f"algo={algo}",
            f"device={device}",
            f"compile={how.startswith('compile')}",
            f"matmul_precision={'medium' if how.endswith('+medium') else 'highest'}",
            "num_envs=1000",
            f"algo.replay_size={2 * ROWS}",
            f"algo.activation={activation}",
            f"algo.layer_norm={norm == 'norm'}",
            f"algo.hidden=[{','.join(map(str, hidden))}]",
            f"algo.batch_size={batch_size}",
        ]
    )
