"""Which device `device=auto` stands for, and which runtime `runtime=auto`."""

from __future__ import annotations

import functools
import sys

import torch

import tasks
from pql.errors import UserError
from tasks.cores import cores

SHORT = 10_000  # critic updates: three processes take some seconds to start, which so few can't win back


def runtime_for(device: str, critic_updates: float) -> str:
    """What `runtime=auto` stands for: three processes, but one where those would not pay on a CPU.

    Args:
        device: where environments and learners are.
        critic_updates: of the whole run, by its limit of env steps.
    """
    return "sync" if device == "cpu" and (cores() == 1 or critic_updates < SHORT) else "parallel"


def resolve_device(name: str, key: str = "device") -> torch.device:
    """'auto', 'cpu', 'cuda', 'cuda:1' -> a device that is there. Raises UserError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"{key}={name} is no device: use auto, cpu, cuda or cuda:<index>") from error
    if device.type == "cuda":
        found = torch.cuda.device_count()
        if (device.index or 0) >= found:
            has = f"{found} CUDA device(s) found" if found else "no CUDA device found"
            raise UserError(f"{key}={name} is not there ({has}): use {key}=auto or {key}=cpu")
    elif device.type != "cpu":
        raise UserError(f"{key}={name} is not supported: use auto, cpu, cuda or cuda:<index>")
    return device


def device_for(name: str, task: str, sim: str) -> torch.device:
    """`resolve_device`, where 'auto' is a GPU only if a simulator here has this task's environments on one."""
    if name == "auto" and torch.cuda.is_available():
        try:
            kind, why = tasks.device_type(task, sim)
        except tasks.TaskError:  # it is said where the environments are made
            return resolve_device(name)
        if kind == "cpu":
            if why:
                _note(f"training on the CPU, not on the GPU that is there: {why}")
            return torch.device("cpu")
    return resolve_device(name)


@functools.lru_cache(maxsize=None)
def _note(text: str) -> None:
    """Once in a process."""
    print(f"note: {text}", file=sys.stderr, flush=True)
