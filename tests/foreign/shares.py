"""A worker's share of foreign environments in this process, as a `tasks.VectorEnv`."""

import importlib
import sys
from pathlib import Path

import torch

import tasks
from tasks.simulators.worker.block import block

PLUGIN = Path(__file__).resolve().with_name("foreign_envs.py")
SYNC = {"vectorization_mode": "sync"}
WORLDS = {  # name -> module of tasks.simulators.worker, task, options: the same counting world in every guise
    "single": ("gymnasium_share", "Clock-v0", {}),
    "NextStep": ("gymnasium_share", "Clock-v0", {**SYNC, "vector_kwargs": {"autoreset_mode": "NextStep"}}),
    "SameStep": ("gymnasium_share", "Clock-v0", {**SYNC, "vector_kwargs": {"autoreset_mode": "SameStep"}}),
    "Disabled": ("gymnasium_share", "Clock-v0", {**SYNC, "vector_kwargs": {"autoreset_mode": "Disabled"}}),
    "lost": ("gymnasium_share", "Forgetful-v0", {}),
    "masked": ("gymnasium_share", "Masked-v0", {}),
    "batched": ("gymnasium_share", "Batched-v0", {}),
}
DM_WORLDS = {
    "dict": {},
    "array": {"obs": "array"},
    "soft": {"soft": True},
    "our limit": {"own_limit": False},
}


def truth():
    """The module with the counting worlds, which are registered by it."""
    tasks.import_plugins([str(PLUGIN)])
    return sys.modules[f"plugin:{PLUGIN}"]


class InProcess(tasks.VectorEnv):
    """What `tasks.simulators.pool` makes, without processes."""

    def __init__(self, share):
        self.share, self.device, self.name = share, torch.device("cpu"), share.name
        for name in ("num_envs", "obs_dim", "action_dim", "max_episode_steps", "dt"):
            setattr(self, name, getattr(share, name))
        self.metric_names = tuple(share.told.names)
        self.rows = block(share.num_envs, share.obs_dim, share.action_dim, share.told.count)
        self.reset()

    def reset(self):
        self.share.reset(self.rows)
        return torch.from_numpy(self.rows.obs)

    def step(self, action):
        self.rows.action[:] = action.numpy()
        self.share.step(self.rows)
        r = self.rows
        fields = map(torch.from_numpy, (r.obs, r.reward, r.terminated, r.truncated, r.next_obs, r.valid))
        told = dict(zip(self.metric_names, torch.from_numpy(r.metrics).unbind(1)))
        return tasks.Step(*fields, {**told, "diverged_episodes": torch.tensor(r.diverged.sum())})

    def close(self):
        self.share.close()


def share(module, name, num_envs=9, seed=0, first=0, metrics=(), **options):
    """Environments `first` to `first + num_envs - 1` of a pool's."""
    truth()
    make = importlib.import_module(f"tasks.simulators.worker.{module}").make_share
    return InProcess(make(name, options, seed, [], num_envs, first, *([metrics] if metrics else ())))
