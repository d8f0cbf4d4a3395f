"""Simulators: what a task runs on. Each is imported when an environment is made, so that none need be installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any, Callable

import torch

from tasks.base import VectorEnv
from tasks.simulators.base import Backend, Simulator, register_simulator


def _mujoco_unavailable() -> str | None:
    if sys.version_info < (3, 11):
        return f"needs Python 3.11 or newer, this is {sys.version.split()[0]}; use such an interpreter"
    spec = importlib.util.find_spec("mujoco")
    if spec is None or not any(Path(place, "batch.py").exists() for place in spec.submodule_search_locations or ()):
        return "needs MuJoCo with its batch interface: pip install mujoco==4.0.0"
    return None


def _make_mujoco(*args: Any, **kwargs: Any) -> Simulator:
    return importlib.import_module("tasks.simulators.mujoco").make(*args, **kwargs)


def _mujoco_warp_unavailable(device_type: str = "cuda") -> str | None:
    why = _mujoco_unavailable()
    if why is None and not all(importlib.util.find_spec(name) for name in ("mujoco_warp", "warp")):
        return "needs mujoco-warp and warp-lang: pip install .[gpu]"
    if why is None and device_type == "cuda" and not torch.cuda.is_available():
        return "finds no NVIDIA GPU: run where nvidia-smi lists one, or give device=cpu, which is slow"
    return why


def _make_mujoco_warp(*args: Any, **kwargs: Any) -> Simulator:
    return importlib.import_module("tasks.simulators.mujoco_warp").make(*args, **kwargs)


def _isaacgym(function: str) -> Callable[..., Any]:
    module = "tasks.simulators.isaacgym"
    return lambda *args, **kwargs: getattr(importlib.import_module(module), function)(*args, **kwargs)


register_simulator(
    Backend("isaacgym", "cuda", _isaacgym("unavailable"), _isaacgym("make_env"), _isaacgym("names"), ("cpu",))
)
register_simulator(
    Backend("mujoco_warp", "cuda", _mujoco_warp_unavailable, _make_mujoco_warp, None, ("cpu",), ("contacts_per_env",))
)
register_simulator(Backend("mujoco", "cpu", _mujoco_unavailable, _make_mujoco))
