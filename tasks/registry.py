"""Names: which task, which simulator, which device."""

from __future__ import annotations

import difflib
from typing import Any

import torch

from tasks.base import VectorEnv
from tasks.errors import TaskError
from tasks.simulator import BACKENDS, Backend
from tasks.task import Task

_TASKS: dict[str, type[Task]] = {}


def register(name: str, task_class: type[Task]) -> None:
    """Make `task_class` known as `name`; a later registration replaces an earlier one."""
    _TASKS[name] = task_class


def names() -> list[str]:
    """The registered tasks, sorted."""
    return sorted(_TASKS)


def get(name: str) -> type[Task]:
    """The class registered as `name`; raises TaskError naming the nearest where there is none."""
    if name not in _TASKS:
        near = difflib.get_close_matches(name.lower(), [known.lower() for known in _TASKS], n=1, cutoff=0.5)
        hint = next((f"did you mean {known}? " for known in names() if [known.lower()] == near), "")
        raise TaskError(f"no task is called {name!r}; {hint}known: {', '.join(names())}")
    return _TASKS[name]


def make(
    name: str,
    num_envs: int,
    sim: str = "auto",
    device: str | torch.device = "auto",
    seed: int = 0,
    threads: int | None = None,
    **task_options: Any,
) -> VectorEnv:
    """Make `num_envs` environments of task `name`, already reset.

    Args:
        name: a registered task, see `tasks.list()`.
        num_envs: how many are stepped together, at least 1.
        sim: "mujoco" (CPU), or "auto" for the best that runs here.
        device: where observations and actions live; "auto" is the simulator's own.
        seed: one seed gives the same trajectories at any number of threads.
        threads: of the simulator's pool; None takes the cores this process may use. Torch's own threads are the
            caller's to set: a process that simulates on a CPU should call `torch.set_num_threads(1)`, for the two
            pools fight.
        task_options: arguments of the task's class.

    Raises:
        TaskError: for an unknown name or option, or something that is not there; its one line says what to do.
    """
    task_class = get(name)
    if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
        raise TaskError(f"num_envs must be a whole number of at least 1, not {num_envs!r}")
    if threads is not None and threads < 1:
        raise TaskError(f"threads must be at least 1 (or None for all cores), not {threads!r}")
    backend = _backend(name, task_class, sim, device)
    where = _device(backend, device)
    try:
        task = task_class(**task_options)
    except TypeError as error:
        if not task_options:
            raise
        raise TaskError(f"task {name} can't take the options {sorted(task_options)}: {error}") from error
    return backend.make(name, task, num_envs, device=where, seed=seed, threads=threads)


def _backend(name: str, task_class: type[Task], sim: str, device: str | torch.device) -> Backend:
    if sim != "auto":
        if sim not in BACKENDS:
            near = difflib.get_close_matches(sim, BACKENDS, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise TaskError(f"no simulator is called {sim!r}; {hint}known: auto, {', '.join(BACKENDS)}")
        if sim not in task_class.simulators:
            raise TaskError(f"task {name} doesn't run on sim={sim}; it runs on {', '.join(task_class.simulators)}")
        why = BACKENDS[sim].unavailable()
        if why:
            raise TaskError(f"sim={sim} {why}")
        return BACKENDS[sim]
    reasons = []
    for backend in BACKENDS.values():
        if backend.name not in task_class.simulators:
            continue
        why = backend.unavailable()
        if why is None and device != "auto" and torch.device(device).type != backend.device_type:
            why = f"runs on {backend.device_type}, not on {device}"
        if why is None:
            return backend
        reasons.append(f"{backend.name} {why}")
    raise TaskError(f"no simulator can run {name} here: {'; '.join(reasons) or 'none is registered for it'}")


def _device(backend: Backend, device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device(backend.device_type)
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise TaskError(f"device={device!r} is no device; use auto, cpu, cuda or cuda:0") from None
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise TaskError(f"device={device} isn't there: torch sees {torch.cuda.device_count()} CUDA devices; use cpu")
    if wanted.type != backend.device_type:
        raise TaskError(f"sim={backend.name} runs on {backend.device_type}, not on {device}; drop device or use auto")
    return wanted
