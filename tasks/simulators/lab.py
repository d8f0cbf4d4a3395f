"""mjlab's and Isaac Lab's tasks: stepped in a process of their own, by whichever interpreter has the package.

Neither installs beside MuJoCo 4, which the tasks of this house run on: so `sim.python` names another interpreter. Of
ours it runs `tasks` alone, which needs torch and numpy, both of which these packages bring.
"""

from __future__ import annotations

import os
import time
from typing import Any

import torch

from tasks.base import VectorEnv
from tasks.errors import TaskError
from tasks.simulators import interpreter
from tasks.simulators.remote import START, RemoteEnv

# What a simulator is called -> the package, the module of ours that makes its environments, how it is installed.
LABS = {
    "mjlab": ("mjlab", "mjlab_env", "pip install mjlab==1.6.0"),
    "isaaclab": ("isaaclab", "isaaclab_env", "pip install isaaclab==3.0.0, Python 3.12"),
}
OPTIONS = {"action_scale": 1.0, "cfg": {}}
TIMES_AS_LONG = 10.0  # as any step so far has taken: then one counts as hung, if that is more than its seconds


def make_env(
    sim: str,
    name: str,
    options: dict[str, Any],
    num_envs: int,
    device: torch.device,
    seed: int,
    threads: int | None,
    step_timeout: float,
    python: str | None,
) -> VectorEnv:
    """`LabEnv`, called by `tasks.make`; neither package has threads to set."""
    return LabEnv(sim, name, options, num_envs, device, seed, step_timeout, python)


class LabEnv(RemoteEnv):
    """`num_envs` environments of task `name` in a process of their own.

    Args:
        sim: of `LABS`.
        name: an id that the package knows, or "module:id", where the process imports the module, or the file, first.
        options: `action_scale`: what an action in [-1, 1] is multiplied by where the task's own have no bounds; `cfg`:
            overrides of the task's configuration, nested: {"episode_length_s": 10.0}.
        step_timeout: seconds that one step of all environments has, or ten times as long as any step before it took.
            The first has minutes, as it may compile, and doesn't count.
        python: the interpreter; None is the running one.

    Raises:
        TaskError: for a user's mistake, and wherever the process dies or hangs or its environment raises, in one line.
            No process is left then.
    """

    def __init__(
        self,
        sim: str,
        name: str,
        options: dict[str, Any],
        num_envs: int,
        device: torch.device,
        seed: int,
        step_timeout: float,
        python: str | None,
    ):
        unknown = sorted(set(options) - set(OPTIONS))
        if unknown:
            raise TaskError(f"sim={sim} takes task.options.action_scale and task.cfg.<field>, no options {unknown}")
        package, module, install = LABS[sim]
        own = f"give it a virtual environment of its own ({install}), named by sim.python=<environment>/bin/python"
        interpreter.look(sim, [package, "torch", "numpy"], install, own, python)
        path, colon, _ = name.partition(":")
        if colon and path.endswith(".py"):  # the process works in a folder of its own
            name = f"{os.path.abspath(path)}{name[len(path) :]}"
        where = f"cuda:{device.index or 0}" if device.type == "cuda" else "cpu"
        arguments = {
            **OPTIONS,
            **options,
            "name": name,
            "num_envs": num_envs,
            "device": where,
            "seed": seed,
            "here": os.getcwd(),
        }
        self._limit, self._longest = step_timeout, None
        crash = "out of memory? try a smaller num_envs"
        try:
            super().__init__(f"tasks.simulators.{module}:make", arguments, "", crash, python)
        except RuntimeError as error:
            raise TaskError(f"{name}: {error}") from error

    def _do(self, what: str) -> dict[str, Any]:
        began = time.monotonic()
        try:
            found = super()._do(what)
        except TaskError:
            self.close()
            raise
        except RuntimeError as error:
            self.close()
            raise TaskError(f"{self.name}: {error}") from error
        if what == "step":
            self._longest = 0.0 if self._longest is None else max(self._longest, time.monotonic() - began)
        return found

    def _patience(self) -> tuple[float, str, str]:
        seconds = START if self._longest is None else max(self._limit, TIMES_AS_LONG * self._longest)
        return seconds, "", "sim.step_timeout allows more"

