"""A plugin for the tests: a task that needs no simulator, and algorithms and environments that fail on demand.

`Point`: push a point towards the origin of a plane. Pure torch, so it runs under any Python and takes microseconds.
`pql_faulty`: PQL that does what the environment variable POINT_FAULT says, "<role>:<raise|oom|nan|signal>:<nth loss>".
"""

from __future__ import annotations

import os
import signal

import torch

import tasks
from pql import algorithms
from pql.algorithms.pql import PQL
from pql.algorithms.pql_d import PQLD


class PointEnv(tasks.VectorEnv):
    """Same-step reset; episodes end where the point leaves the disc of radius 2, or after 25 steps."""

    max_episode_steps = 25

    def __init__(self, num_envs, seed, nan_at=None, raise_at=None, only=None, told=False, device="cpu"):
        self.critic_obs_dim = 3 if told else 0
        self.name, self.num_envs, self.obs_dim, self.action_dim = "Point", num_envs, 2, 2
        self.device = torch.device(device)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.dt = 0.1
        failing = only is None or num_envs == only  # evaluation has environments of its own, of another number
        self.nan_at, self.raise_at = (nan_at, raise_at) if failing else (None, None)
        self.steps = 0
        self.reset()

    def start(self):
        return torch.rand(self.num_envs, 2, generator=self.generator, device=self.device) * 2 - 1

    def reset(self):
        self.at, self.age = self.start(), torch.zeros(self.num_envs, device=self.device)
        return self.at

    def tell(self, at, age):
        """For the critic: where the point is, and how old the episode, which the policy isn't told."""
        return torch.cat((at, age[:, None]), 1)

    @property
    def critic_obs(self):
        return self.tell(self.at, self.age) if self.critic_obs_dim else None

    def step(self, action):
        self.steps += 1
        if self.steps == self.raise_at:
            raise RuntimeError("the point has gone missing")
        at = self.at + 0.2 * action.clamp(-1, 1)
        if self.steps == self.nan_at:
            at[self.num_envs // 2] = float("nan")
        self.age = self.age + 1
        distance = at.norm(dim=1)
        terminated = distance > 2
        truncated = (self.age >= self.max_episode_steps) & ~terminated
        ended = terminated | truncated
        self.at = torch.where(ended[:, None], self.start(), at)
        next_critic_obs = self.tell(at, self.age)
        self.age = self.age * ~ended
        valid = torch.ones_like(ended)
        told = (self.critic_obs, next_critic_obs) if self.critic_obs_dim else ()
        return tasks.Step(self.at, 1 - distance, terminated, truncated, at, valid, {}, *told)

    def state_dict(self):
        return {"at": self.at.clone(), "age": self.age.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state):
        self.at, self.age = (state[name].to(self.device, copy=True) for name in ("at", "age"))
        self.generator.set_state(state["generator"].cpu())
        return self.at


class Point:
    """The registry needs no more of a task than its options and the simulators that it runs on."""

    simulators = ("plane",)

    def __init__(self, nan_at=None, raise_at=None, only=None, told=False):
        self.options = {"nan_at": nan_at, "raise_at": raise_at, "only": only, "told": told}


class Fault:
    """Counts losses; at the nth of the named role it raises, spoils the loss, or sends its own process a signal."""

    def __init__(self):
        self.role, self.what, at = os.environ.get("POINT_FAULT", "none:none:0").split(":")
        self.at, self.count = int(at), {"v_learner": 0, "p_learner": 0}

    def __call__(self, role, found):
        self.count[role] += 1
        if role != self.role or self.count[role] != self.at:
            return found
        if self.what == "raise":
            raise RuntimeError(f"a fault in the {role}")
        if self.what == "oom":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB. GPU 0 has too little.")
        if self.what == "nan":
            loss, metrics = found
            return loss * float("nan"), {name: value * float("nan") for name, value in metrics.items()}
        os.kill(os.getpid(), getattr(signal, self.what))
        return found


def faulty(base):
    class Faulty(base):
        def __init__(self, *args):
            super().__init__(*args)
            self.fault = Fault()

        def critic_loss(self, *args):
            found = super().critic_loss(*args)
            return self.fault("v_learner", found) if args[0].critic.training else found  # not one of a diagnosis

        def policy_loss(self, *args):
            return self.fault("p_learner", super().policy_loss(*args))

    return Faulty


def make(name, task, num_envs, device, seed=0, threads=None):
    return PointEnv(num_envs, seed, **task.options, device=device)


tasks.register_simulator(tasks.Backend("plane", "cpu", lambda *_: None, make, other_devices=("cuda",)))
tasks.register("Point", Point)
algorithms.register("pql_faulty", faulty(PQL))
algorithms.register("pql_d_faulty", faulty(PQLD))
