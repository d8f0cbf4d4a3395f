"""Isaac Gym: which of IsaacGymEnvs' tasks there are, whether they can run here, and what to do where they can't.

Nothing here imports isaacgym: it must come before torch, and a process can hold one simulation only. So every
environment has a process of its own (`tasks.simulators.remote`), evaluation's as well as training's. The alternative
for evaluation, a slice of the training environments, would have cost it its independence: a slice evaluates in episodes
that are under way, takes its environments from training for good, and stands still whenever training does. A process
costs one more CUDA context and a hand-over of a few bytes per vector step.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import re
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import Any, Iterable

import torch

from tasks.base import VectorEnv
from tasks.errors import TaskError
from tasks.simulators.worker.errors import did_you_mean

PYTHONS = ((3, 6), (3, 7), (3, 8))  # that Isaac Gym Preview 4 has a binding for
CHECKOUT = "clone github.com/isaac-sim/IsaacGymEnvs and pip install -e it"
INSTALL = (
    "download Isaac Gym Preview 4 from developer.nvidia.com/isaac-gym and pip install -e isaacgym/python, "
    f"then {CHECKOUT}"
)
DRIVER = "update the NVIDIA driver to 525.60 or newer (torch 2.4.1 with CUDA 12.1; Isaac Gym itself takes 470)"
NUMPY = "needs numpy below 1.24, as it uses np.float: pip install numpy==1.23.5"
LIBPYTHON = (
    "doesn't find libpython, which its binding is linked to: "
    "export LD_LIBRARY_PATH=$(python -c 'import sys; print(sys.prefix)')/lib"
)


def unavailable(device_type: str = "cuda") -> str | None:
    """Why Isaac Gym can't run here and how to mend that, in one line; None if nothing is known to be in the way.

    This looks at files and versions: whether the import works is known where it is tried, see `explain`.
    """
    version = sys.version.split()[0]
    folder = _folder("isaacgym")
    if folder is None and sys.version_info[:2] not in PYTHONS:
        return f"needs Python 3.8 (its binding exists for 3.6 to 3.8, this is {version}); use such an interpreter"
    if folder is None:
        return f"is not installed: {INSTALL}"
    if (folder / "_bindings").is_dir():  # NVIDIA's own, with its compiled binding
        if sys.version_info[:2] not in PYTHONS:
            return f"has no binding for Python {version}; use Python 3.8"
        if not _libpython():
            return LIBPYTHON
        import numpy

        if tuple(int(part) for part in numpy.__version__.split(".")[:2]) >= (1, 24):
            return f"{NUMPY} (this is {numpy.__version__})"
    if _folder("isaacgymenvs") is None:
        return f"lacks IsaacGymEnvs: {CHECKOUT}"
    return _no_gpu() if device_type == "cuda" and not torch.cuda.is_available() else None


def _folder(package: str) -> Path | None:
    """Where a package lies, without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


def _libpython() -> bool:
    name = sysconfig.get_config_var("INSTSONAME") or f"libpython{sys.version_info[0]}.{sys.version_info[1]}.so.1.0"
    if not name.startswith("libpython") or ".so" not in name:
        name = f"libpython{sys.version_info[0]}.{sys.version_info[1]}.so.1.0"
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _no_gpu() -> str:
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return "finds no GPU: run where nvidia-smi lists one (docker run --gpus all), or give device=cpu, which is slow"
    driver = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", text)
    found = driver.group(1) if driver else "unknown"
    return f"finds a GPU whose driver ({found}) this torch can't use: {DRIVER}"


# --- names ------------------------------------------------------------------------------------------------------


def config_dir() -> Path:
    """IsaacGymEnvs' configuration folder. Raises TaskError where it isn't installed."""
    folder = _folder("isaacgymenvs")
    if folder is None or not (folder / "cfg" / "task").is_dir():
        why = unavailable("cpu") or f"finds no cfg/task in {folder}, no whole checkout of IsaacGymEnvs: {CHECKOUT}"
        raise TaskError(f"sim=isaacgym {why}")
    return folder / "cfg"


@functools.lru_cache(maxsize=None)
def _files(folder: Path) -> dict[str, str]:
    """Name under which a task can be asked for -> its file in cfg/task, without .yaml."""
    texts = {path.stem: path.read_text() for path in sorted((folder / "task").glob("*.yaml"))}

    def name_of(stem: str, seen: tuple[str, ...] = ()) -> str | None:
        """A file names its task itself or through a file it starts from; files that name none are parts of others."""
        text = texts.get(stem, "")
        own = re.search(r"^name:\s*(\w+)", text, re.MULTILINE)
        if own:
            return own.group(1)
        parents = re.findall(r"^\s+-\s+(\w+)\s*$", text, re.MULTILINE)
        return next((name_of(p, (*seen, stem)) for p in parents if p in texts and p not in (*seen, stem)), None)

    named = {stem: name_of(stem) for stem in texts}
    found = {stem: stem for stem, name in named.items() if name}
    for stem, name in named.items():  # AllegroHandADR is the name in AllegroHandDextremeADR.yaml
        if name:
            found.setdefault(name, stem)
    return found


def names() -> list[str]:
    """The tasks of the installed IsaacGymEnvs; none where it isn't installed."""
    folder = _folder("isaacgymenvs")
    return sorted(_files(folder / "cfg")) if folder else []


def config_file(name: str) -> str:
    """The file in IsaacGymEnvs' cfg/task that `name` asks for. Raises TaskError naming the nearest."""
    files = _files(config_dir())
    if name not in files:
        raise unknown_task(name, files)
    return files[name]


def unknown_task(name: str, known: Iterable[str]) -> TaskError:
    """IsaacGymEnvs lacks a task of this name."""
    hint = did_you_mean(name, known)
    return TaskError(f"IsaacGymEnvs has no task {name!r}; {hint}known: {', '.join(sorted(known))}")


# --- making -----------------------------------------------------------------------------------------------------


def make_env(
    name: str, options: dict[str, Any], num_envs: int, device: torch.device, seed: int, threads: int | None = None
) -> VectorEnv:
    """The environments of IsaacGymEnvs' task `name` in a process of their own; called by `tasks.make`.

    Args:
        options: `cfg`: overrides of the task's configuration, nested: {"env": {"episodeLength": 500}}.
        device: CUDA for the GPU pipeline; the CPU's is slow, and no task was published with it.
    """
    from tasks.simulators.remote import RemoteEnv

    unknown = set(options) - {"cfg"}
    if unknown:
        raise TaskError(f"task {name} of IsaacGymEnvs takes task.cfg.<field>=..., not the options {sorted(unknown)}")
    config_file(name)  # a misspelt name costs no start of a simulator
    where = f"cuda:{device.index or 0}" if device.type == "cuda" else "cpu"
    arguments = {
        "name": name,
        "num_envs": num_envs,
        "device": where,
        "seed": seed,
        "threads": threads,
        "cfg": options.get("cfg") or {},
    }
    return RemoteEnv("tasks.simulators.isaacgym_env:make", arguments, first="isaacgym", crash=_too_large(num_envs))


def _too_large(num_envs: int) -> str:
    fewer = f"try num_envs={num_envs // 2}" if num_envs > 1 else "use a GPU with more memory"
    return f"Isaac Gym does so where the GPU's memory is too small for {num_envs} environments; {fewer}"


def explain(error: BaseException, num_envs: int) -> str | None:
    """One line with the remedy for a failure of Isaac Gym that is known; None for any other."""
    text = f"{type(error).__name__}: {error}"
    line = " ".join(text.split())
    if len(line) > 300:
        line = f"{line[:297]}..."
    missing = re.search(r"No module named '([\w.]+)'", text)
    if missing and missing.group(1).split(".")[0] == "isaacgym":
        return f"sim=isaacgym is not installed: {INSTALL}"
    if missing and missing.group(1) in ("tkinter", "_tkinter"):
        return "IsaacGymEnvs imports tkinter even for tasks that don't use it: apt-get install python3-tk"
    if missing:
        package = {"warp": "warp-lang", "rl_games": "rl-games"}.get(missing.group(1), missing.group(1))
        return f"IsaacGymEnvs imports {missing.group(1)} even for tasks that don't use it: pip install {package}"
    for pattern, advice in (
        (r"libpython[\d.]+m?\.so", f"sim=isaacgym {LIBPYTHON}"),
        (r"module 'numpy' has no attribute|`np\.\w+` was removed|np\.(float|Inf|int|bool)\b", f"sim=isaacgym {NUMPY}"),
        (r"driver version is insufficient|driver on your system is too old", f"sim=isaacgym: {DRIVER}"),
        (r"no CUDA-capable device|No CUDA GPUs|libcuda\.so|not compiled with CUDA", f"sim=isaacgym {_no_gpu()}"),
        (r"[Nn]inja is required|Error building extension|C\+\+ compiler|No such file.*'(g\+\+|c\+\+)'",
         "sim=isaacgym compiles gymtorch when it is first imported: apt-get install g++, pip install ninja"),
        (r"out of memory|CUDNN_STATUS_ALLOC|cudaErrorMemoryAllocation|Failed to create sim|fail(ed)? to allocate",
         f"the simulation ended ({line}): {_too_large(num_envs)}"),
        (r"Unknown subtask", f"IsaacGymEnvs refused task.cfg.env.subtask ({line}): give one that it lists"),
        (r"PyTorch was imported before isaacgym", "something imported torch before isaacgym: is there a sitecustomize "
         "or a .pth file that does? remove it"),
    ):  # fmt: skip
        if re.search(pattern, text):
            return advice
    if isinstance(error, SystemExit):  # VecTask quits where no simulation could be created
        return f"IsaacGymEnvs quit while it made {num_envs} environments: {_too_large(num_envs)}"
    # An assertion without words says what it demands in its own line.
    source = traceback.extract_tb(error.__traceback__)[-1].line if error.__traceback__ else ""
    if re.search(r"num_?env|divisible", f"{text} {source}", re.IGNORECASE):
        return (
            f"IsaacGymEnvs refused {num_envs} environments ({line} {source}): give num_envs and eval_episodes as "
            "multiples of 64, or the number in the task's own file in isaacgymenvs/cfg/task"
        )
    return None
