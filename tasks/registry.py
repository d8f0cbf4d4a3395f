"""Names: which task, which simulator, which device."""

from __future__ import annotations

from typing import Any, Sequence

import torch

from tasks.base import VectorEnv
from tasks.border import look_at_first_step
from tasks.env import TaskEnv
from tasks.errors import TaskError
from tasks.simulators.base import BACKENDS, Backend, Simulator
from tasks.simulators.worker.errors import did_you_mean
from tasks.task import Task
from tasks.together import Sets

_TASKS: dict[str, type[Task]] = {}


def register(name: str, task_class: type[Task]) -> None:
    """Make `task_class` known as `name`; a later registration replaces an earlier one."""
    _TASKS[name] = task_class


def names() -> list[str]:
    """The registered tasks, sorted."""
    return sorted(_TASKS)


def brought() -> list[str]:
    """Names of the tasks that come with simulators installed here, sorted."""
    return sorted({name for backend in BACKENDS.values() if backend.own_tasks for name in backend.own_tasks()})


def brings_tasks(sim: str) -> bool:
    """Whether `sim` is a simulator whose tasks are its own, so that it alone can say which there are."""
    return sim in BACKENDS and BACKENDS[sim].own_tasks is not None


def get(name: str) -> type[Task]:
    """The class registered as `name`; raises TaskError naming the nearest where there is none."""
    if name not in _TASKS:
        hint = did_you_mean(name, names())
        raise TaskError(
            f"no task is called {name!r}; {hint}known: {', '.join(names())}; others' need sim=isaacgym, gymnasium, "
            "dm_control, mjlab or isaaclab"
        )
    return _TASKS[name]


def make(
    name: str,
    num_envs: int,
    sim: str = "auto",
    device: str | torch.device = "auto",
    seed: int | Sequence[int] = 0,
    threads: int | None = None,
    contacts_per_env: int | None = None,
    step_timeout: float = 5.0,
    plugins: Sequence[str] = (),
    python: str | None = None,
    metrics: Sequence[str] = (),
    **task_options: Any,
) -> VectorEnv:
    """Make `num_envs` environments of task `name`, already reset.

    Args:
        name: a registered task, see `tasks.list()`; with "isaacgym" one of IsaacGymEnvs', with "gymnasium" an id
            registered with Gymnasium, with "dm_control" "<domain>-<task>" of its suite or a factory "module:function",
            with "mjlab" or "isaaclab" an id of theirs or "module:id".
        num_envs: how many are stepped together, at least 1.
        sim: "isaacgym" (CUDA), "mujoco_warp" (CUDA), "mujoco" (CPU), "gymnasium" (CPU), "dm_control" (CPU), "mjlab"
            (CUDA), "isaaclab" (CUDA), or "auto" for the best of the first three that runs here.
        device: where observations and actions live; "auto" is the simulator's own.
        seed: one seed gives the same trajectories at any number of threads. A list gives
            `tasks.together.Sets`: for each of its seeds `num_envs` environments, which do as they do alone.
        threads: of the simulator's pool (worker processes of "gymnasium" and "dm_control"); None takes the cores this
            process may use. Torch's own threads are the
            caller's to set: a process that simulates on a CPU should call `torch.set_num_threads(1)`, for the two
            pools fight.
        contacts_per_env: contacts that mujoco_warp has memory for, per environment; None takes its default. The other
            simulators need none.
        step_timeout: seconds that one environment of "gymnasium" or "dm_control", or all of "mjlab" or "isaaclab",
            have for a step or a reset; what takes longer counts as hung.
        plugins: files or modules that worker processes import first, where environments are registered; those of this
            process are the caller's to import.
        python: the interpreter that has "gymnasium", "dm_control", "mjlab" or "isaaclab"; None is this one.
        metrics: what a step's `info` shall tell of "gymnasium", by its environments' own: "is_success" as it is in an
            episode's last step, "success/max", "success/mean": over an episode; of the newest one that ended.
        task_options: arguments of the task's class, of `gymnasium.make`, of the suite's task or the factory; for
            IsaacGymEnvs, mjlab and Isaac Lab `cfg`, overrides of the task's configuration.

    Raises:
        TaskError: for an unknown name or option, or something that is not there; its one line says what to do.
    """
    if isinstance(num_envs, bool) or not isinstance(num_envs, int) or num_envs < 1:
        raise TaskError(f"num_envs must be a whole number of at least 1, not {num_envs!r}")
    if threads is not None and threads < 1:
        raise TaskError(f"threads must be at least 1 (or None for all cores), not {threads!r}")
    seeds = [seed] if isinstance(seed, int) else list(seed)
    if contacts_per_env is not None and contacts_per_env < 1:
        raise TaskError(f"contacts_per_env must be at least 1 (or None for the default), not {contacts_per_env!r}")
    backend = _backend(name, sim, device)
    if python is not None and "python" not in backend.options:
        others = ", ".join(other.name for other in BACKENDS.values() if "python" in other.options)
        raise TaskError(f"sim={backend.name} runs in this interpreter: drop sim.python, which is for {others}")
    if metrics and "metrics" not in backend.options:
        raise TaskError(f"sim={backend.name} tells what its tasks do: drop sim.metrics, which is for gymnasium")
    options = {"device": _device(backend, device), "seed": seed, "threads": threads}
    more = {"contacts_per_env": contacts_per_env, "step_timeout": step_timeout, "plugins": plugins, "python": python,
            "metrics": metrics}  # fmt: skip
    options.update({key: more[key] for key in backend.options})
    if backend.own_tasks is not None:
        if not isinstance(seed, int):
            raise TaskError(f"sim={backend.name} can't step the environments of several seeds together")
        return look_at_first_step(backend.make(name, task_options, num_envs, **options))
    try:
        task = get(name)(**task_options)
    except TypeError as error:
        if not task_options:
            raise
        raise TaskError(f"task {name} can't take the options {sorted(task_options)}: {error}") from error
    made = backend.make(name, task, num_envs * len(seeds), **{**options, "seed": seeds[0]})
    if isinstance(seed, int):
        return TaskEnv(name, task, made, seed) if isinstance(made, Simulator) else look_at_first_step(made)
    if not isinstance(made, Simulator) or task.draws:
        made.close()
        what = f"task {name} draws its starts one by one" if isinstance(made, Simulator) else f"sim={backend.name}"
        raise TaskError(f"{what}, which can't be done for several seeds together")
    return Sets(name, task, made, seeds)


def chosen(name: str, sim: str = "auto", device: str | torch.device = "auto") -> str:
    """The simulator that `make(name, sim=sim, device=device)` takes. Raises TaskError as `make` does."""
    return _backend(name, sim, device).name


def device_type(name: str, sim: str = "auto") -> tuple[str, str]:
    """Where `make(name, sim=sim)` puts environments of its own choice: "cuda", or "cpu" and why it can be no GPU.

    The reason is empty where a simulator was asked for. Raises TaskError as `make` does.
    """
    kind, why = _backend(name, sim, "auto").device_type, ""
    if kind == "cpu":
        try:
            _backend(name, sim, "cuda")
        except TaskError as error:
            why = str(error)
    return kind, why


def _backend(name: str, sim: str, device: str | torch.device) -> Backend:
    if sim != "auto":
        if sim not in BACKENDS:
            hint = did_you_mean(sim, BACKENDS)
            raise TaskError(f"no simulator is called {sim!r}; {hint}known: auto, {', '.join(BACKENDS)}")
        backend = BACKENDS[sim]
        if backend.own_tasks is None and sim not in get(name).simulators:
            raise TaskError(f"task {name} doesn't run on sim={sim}; it runs on {', '.join(get(name).simulators)}")
        asked = str(device).partition(":")[0]
        why = backend.unavailable(asked) if asked in backend.other_devices else backend.unavailable()
        if why:
            raise TaskError(f"sim={sim} {why}")
        return backend
    able = [backend for backend in BACKENDS.values() if _runs(backend, name)]
    if not able:
        get(name)
    reasons = []
    for backend in able:
        why = backend.unavailable()
        if why is None and device != "auto" and torch.device(device).type != backend.device_type:
            why = f"runs on {backend.device_type}, not on {device}"
        if why is None:
            return backend
        reasons.append(f"{backend.name} {why}")
    raise TaskError(f"no simulator can run {name} here: {'; '.join(reasons) or 'none is registered for it'}")


def _runs(backend: Backend, name: str) -> bool:
    if backend.own_tasks is not None:
        return name in backend.own_tasks()
    return name in _TASKS and backend.name in _TASKS[name].simulators


def _device(backend: Backend, device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device(backend.device_type)
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise TaskError(f"device={device!r} is no device; use auto, cpu, cuda or cuda:0") from None
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise TaskError(f"device={device} isn't there: torch sees {torch.cuda.device_count()} CUDA devices; use cpu")
    if wanted.type != backend.device_type and wanted.type not in backend.other_devices:
        raise TaskError(f"sim={backend.name} runs on {backend.device_type}, not on {device}; drop device or use auto")
    return wanted
