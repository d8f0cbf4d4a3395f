"""How fast a task steps, against the bare physics under it, measured side by side in one run."""

from __future__ import annotations

import statistics
import time
from typing import Any, Callable

import torch

from tasks.base import VectorEnv
from tasks.env import TaskEnv
from tasks.errors import TaskError
from tasks.registry import make


def bench_sim(
    task: str,
    num_envs: int,
    seconds: float = 10.0,
    window: float = 0.25,
    warmup_steps: int = 60,
    torch_threads: int = 1,
    **options: Any,
) -> dict[str, Any]:
    """Measure environment steps per second of `tasks.make(task, num_envs)` and of its physics alone.

    Short windows of both alternate, so that a neighbour's load or a changing clock hits both alike: the ratio of
    each adjacent pair is kept and their median reported. The bare physics starts each of its windows from the
    environments' current states and controls, and takes the same substeps, without observation, reward or reset.
    Actions are random and drawn beforehand.

    Args:
        task: a registered task; `options` go to `tasks.make`.
        num_envs: environments stepped together.
        seconds: of measurement, half of it for each side.
        window: seconds of one side before the other takes over; at least two steps are taken.
        warmup_steps: taken first, so that robots have met the floor.
        torch_threads: for the measurement, restored afterwards. On a CPU more than one fights the simulator's pool.

    Returns:
        task, simulator, num_envs, device, torch_threads, env_steps_per_s, physics_steps_per_s (medians over windows,
        in environment control steps), ratio (median), windows, env_ms_per_step, physics_ms_per_step, and on a GPU
        device_memory_bytes, in use on the whole of it (else None).
    """
    if seconds <= 0 or window <= 0:
        raise TaskError(f"seconds and window must be above 0, not {seconds} and {window}")
    before = torch.get_num_threads()
    torch.set_num_threads(torch_threads)
    try:
        return _bench(make(task, num_envs, **options), seconds, window, warmup_steps)
    finally:
        torch.set_num_threads(before)


def _bench(env: VectorEnv, seconds: float, window: float, warmup_steps: int) -> dict[str, Any]:
    if not isinstance(env, TaskEnv):
        raise TaskError(f"{env.name} on this simulator has no bare physics to compare with")
    simulator, device, num_envs = env.simulator, env.device, env.num_envs
    generator = torch.Generator().manual_seed(0)
    actions = [(torch.rand(num_envs, env.action_dim, generator=generator) * 2 - 1).to(device) for _ in range(16)]
    turn = iter(range(1 << 62))

    def step() -> None:
        env.step(actions[next(turn) % len(actions)])

    for _ in range(warmup_steps):
        step()
    env_rates, physics_rates = [], []
    finish = time.perf_counter() + seconds
    while not env_rates or time.perf_counter() < finish:
        env_rates.append(_rate(step, window, device) * num_envs)
        state = simulator.state_dict()
        physics_rates.append(_rate(simulator.advance, window, device) * num_envs)
        simulator.load_state_dict(state)
    free, total = torch.cuda.mem_get_info(device) if device.type == "cuda" else (0, 0)
    env.close()
    env_rate, physics_rate = statistics.median(env_rates), statistics.median(physics_rates)
    return {
        "task": env.name,
        "simulator": type(simulator).__name__,
        "num_envs": num_envs,
        "device": str(device),
        "torch_threads": torch.get_num_threads(),
        "env_steps_per_s": env_rate,
        "physics_steps_per_s": physics_rate,
        "ratio": statistics.median(a / b for a, b in zip(env_rates, physics_rates)),
        "windows": len(env_rates),
        "env_ms_per_step": 1e3 * num_envs / env_rate,
        "physics_ms_per_step": 1e3 * num_envs / physics_rate,
        "device_memory_bytes": total - free or None,
    }


def _rate(call: Callable[[], None], window: float, device: torch.device) -> float:
    """Calls per second over about `window` seconds."""
    _wait(device)
    start, calls = time.perf_counter(), 0
    while calls < 2 or time.perf_counter() - start < window:
        call()
        calls += 1
    _wait(device)
    return calls / (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
