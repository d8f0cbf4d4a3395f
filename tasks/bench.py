"""How fast a task steps, against the bare physics under it, measured side by side in one run."""

from __future__ import annotations

import itertools
import statistics
import time
from typing import Any, Callable

import numpy as np
import torch

from tasks.base import VectorEnv
from tasks.env import TaskEnv
from tasks.errors import TaskError
from tasks.registry import make
from tasks.simulators.dm_control import PORT
from tasks.suite import gym


def bench_sim(
    task: str,
    num_envs: int,
    seconds: float = 10.0,
    window: float = 0.25,
    warmup_steps: int = 60,
    torch_threads: int = 1,
    loop: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Measure environment steps per second of `tasks.make(task, num_envs)` and of its physics alone.

    Short windows of both alternate, so that a neighbour's load or a changing clock hits both alike: the ratio of
    each adjacent pair is kept and their median reported. The bare physics starts each of its windows from the
    environments' current states and controls, and takes the substeps of an action, without observation, reward or
    reset. Actions are random and drawn beforehand. With `loop` a third side is the original of a port, one environment
    from `gymnasium.make` or `dm_control.suite.load`, stepped and reset in Python as its users do.

    Args:
        task: a registered task; `options` go to `tasks.make`.
        num_envs: environments stepped together.
        seconds: of measurement, half of it for each side.
        window: seconds of one side before the other takes over; at least two steps are taken.
        warmup_steps: taken first, so that robots have met the floor.
        torch_threads: for the measurement, restored afterwards. On a CPU more than one fights the simulator's pool.
        loop: whether to measure a port's original too.

    Returns:
        task, simulator, num_envs, device, torch_threads, env_steps_per_s, physics_steps_per_s (medians over windows,
        in environment control steps), ratio (median), windows, env_ms_per_step, physics_ms_per_step, with `loop`
        loop_steps_per_s and loop_ratio, of the environments to the loop (else None), and on a GPU device_memory_bytes,
        in use on the whole of it (else None).
    """
    if seconds <= 0 or window <= 0:
        raise TaskError(f"seconds and window must be above 0, not {seconds} and {window}")
    before = torch.get_num_threads()
    torch.set_num_threads(torch_threads)
    try:
        env = make(task, num_envs, **options)
        return _bench(env, seconds, window, warmup_steps, _original(task) if loop else None)
    finally:
        torch.set_num_threads(before)


def _bench(
    env: VectorEnv, seconds: float, window: float, warmup_steps: int, original: Callable[[], None] | None
) -> dict[str, Any]:
    if not isinstance(env, TaskEnv):
        raise TaskError(f"{env.name} on this simulator has no bare physics to compare with")
    simulator, device, num_envs = env.simulator, env.device, env.num_envs
    generator = torch.Generator().manual_seed(0)
    actions = [(torch.rand(num_envs, env.action_dim, generator=generator) * 2 - 1).to(device) for _ in range(16)]
    turn = iter(range(1 << 62))

    def step() -> None:
        env.step(actions[next(turn) % len(actions)])

    def physics() -> None:
        for _ in range(env.task.action_repeat):
            simulator.advance()

    for _ in range(warmup_steps):
        step()
    env_rates, physics_rates, loop_rates = [], [], []
    finish = time.perf_counter() + seconds
    while not env_rates or time.perf_counter() < finish:
        env_rates.append(_rate(step, window, device) * num_envs)
        state = simulator.state_dict()
        physics_rates.append(_rate(physics, window, device) * num_envs)
        simulator.load_state_dict(state)
        if original is not None:
            loop_rates.append(_rate(original, window, torch.device("cpu")))
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
        "loop_steps_per_s": statistics.median(loop_rates) if loop_rates else None,
        "loop_ratio": statistics.median(a / b for a, b in zip(env_rates, loop_rates)) if loop_rates else None,
        "env_ms_per_step": 1e3 * num_envs / env_rate,
        "physics_ms_per_step": 1e3 * num_envs / physics_rate,
        "device_memory_bytes": total - free or None,
    }


def _original(name: str) -> Callable[[], None]:
    """A step of what `name` is a port of, and a reset where its episode ends. Raises TaskError."""
    random = np.random.RandomState(0)
    if name.startswith(PORT):
        from tasks.simulators.worker.dm_share import load

        dm_env = load(name[len(PORT) :])(0, {})
        spec = dm_env.action_spec()
        controls = itertools.cycle([random.uniform(spec.minimum, spec.maximum) for _ in range(16)])

        def step() -> None:
            if dm_env.step(next(controls)).last():
                dm_env.reset()

        dm_env.reset()
        return step
    if name not in gym.TASKS:
        raise TaskError(f"loop is for ports: {name} is neither one of Gymnasium's {', '.join(gym.TASKS)} nor {PORT}...")
    import gymnasium

    env = gymnasium.make(name)
    actions = itertools.cycle([random.uniform(env.action_space.low, env.action_space.high) for _ in range(16)])

    def step_of_gymnasium() -> None:
        _, _, terminated, truncated, _ = env.step(next(actions))
        if terminated or truncated:
            env.reset()

    env.reset(seed=0)
    return step_of_gymnasium


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
