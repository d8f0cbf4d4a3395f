"""What the tests of `tasks.simulators.remote` let it make in a process of its own."""

import os
import signal
from pathlib import Path

import torch

import tasks


class Sum(tasks.VectorEnv):
    """Adds up actions; its parts show in every field of a step. `fault` at the third step: a signal, or "raise"."""

    name, num_envs, obs_dim, action_dim, max_episode_steps, dt = "Sum", 3, 2, 2, 10, 0.5

    def __init__(self, fault=None, critic=False):
        self.device, self.fault, self.steps = torch.device("cpu"), fault, 0
        self.critic_obs_dim = 1 if critic else 0
        self.total = torch.zeros(3, 2)

    @property
    def critic_obs(self):
        return -self.total[:, :1] if self.critic_obs_dim else None

    def reset(self):
        self.total = torch.ones(3, 2)
        return self.total

    def step(self, action):
        self.steps += 1
        if self.steps == 3 and self.fault == "raise":
            raise RuntimeError("three is too many")
        if self.steps == 3 and self.fault:
            os.kill(os.getpid(), getattr(signal, self.fault))
        self.total = self.total + action
        high = self.total.sum(1) > 3
        info = {"largest": self.total.max(), "rows": self.total[:, 0]}
        more = (self.critic_obs, self.critic_obs - 10) if self.critic_obs_dim else ()
        return tasks.Step(self.total, action[:, 0], high, ~high, self.total + 10, self.total[:, 1] < 2, info, *more)


def make(import_error, fault=None, dies=None, mistake=None, critic=False):
    assert import_error is None, import_error
    Path("left_behind.xml").write_text("<x/>")
    print("a simulator prints", flush=True)
    if dies:
        os.kill(os.getpid(), getattr(signal, dies))
    if mistake:
        raise tasks.TaskError(mistake)
    return Sum(fault, critic)


def make_without(import_error):
    raise tasks.TaskError(f"could not import: {type(import_error).__name__}")
