"""Simulators: what a task runs on. Each is imported when an environment is made, so that none need be installed."""

from __future__ import annotations

import functools
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


def _by_interpreter(device_type: str = "") -> None:
    """Of simulators that another interpreter may have: the one that is asked for says whether they are there."""


def _make_by_name(module: str, *first: str) -> Callable[..., VectorEnv]:
    make = lambda *args, **kwargs: importlib.import_module(f"tasks.simulators.{module}").make_env(*args, **kwargs)  # noqa: E731
    return functools.partial(make, *first)


def _asked_by_name() -> list[str]:
    """Of simulators that are never chosen by themselves: their tasks are whatever anybody has registered."""
    return []


register_simulator(
    Backend("isaacgym", "cuda", _isaacgym("unavailable"), _isaacgym("make_env"), _isaacgym("names"), ("cpu",))
)
register_simulator(
    Backend("mujoco_warp", "cuda", _mujoco_warp_unavailable, _make_mujoco_warp, None, ("cpu",), ("contacts_per_env",))
)
register_simulator(Backend("mujoco", "cpu", _mujoco_unavailable, _make_mujoco))
for _name, _more in (("gymnasium", ("plugins", "metrics")), ("dm_control", ("plugins",))):
    _made_by = _by_interpreter, _make_by_name(_name), _asked_by_name
    register_simulator(Backend(_name, "cpu", *_made_by, ("cuda",), ("step_timeout", "python", *_more)))
for _name in ("mjlab", "isaaclab"):
    _made_by = _by_interpreter, _make_by_name("lab", _name), _asked_by_name
    register_simulator(Backend(_name, "cuda", *_made_by, ("cpu",), ("step_timeout", "python")))
