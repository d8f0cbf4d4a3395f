"""mjlab.envs: a manager-based environment that counts. What is like mjlab 1.6.0 and matters:

flags and rewards are rewritten in place; with auto_reset=False a step shows terminal observations and refuses to go on
before `reset(env_ids=)`; that recomputes everybody's, in which the foot contacts of those not reset have changed;
dictionaries of terms; actions without bounds.
"""

import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Optional

import torch
from clock import ACTIONS, DT, LIMIT, Clock


@dataclass
class Term:
    time_out: bool


@dataclass
class Scene:
    num_envs: int = 1


@dataclass
class Cfg:
    scene: Scene = field(default_factory=Scene)
    groups: tuple = ("actor", "critic")
    terminations: dict = field(default_factory=lambda: {"fell": Term(False), "time_out": Term(True)})
    seed: Optional[int] = None
    episode_length_s: float = LIMIT * DT
    is_finite_horizon: bool = False
    auto_reset: bool = True
    fault: Optional[str] = None
    at: int = 3


class ManagerBasedRlEnv:
    step_dt = DT
    single_action_space = SimpleNamespace(low=-math.inf, high=math.inf, shape=(ACTIONS,))

    def __init__(self, cfg, device):
        assert cfg.auto_reset is False
        self.cfg, self.num_envs, self.extras = cfg, cfg.scene.num_envs, {}
        self.clock = Clock(self.num_envs, cfg.seed, device, cfg.fault, cfg.at)
        self.sim = SimpleNamespace(step=lambda: None)
        self._pending = torch.zeros_like(self.clock.terminated)
        print("a simulator prints", flush=True)

    @property
    def max_episode_length(self):
        return math.ceil(self.cfg.episode_length_s / self.step_dt)

    @property
    def episode_length_buf(self):
        return self.clock.age

    def reset(self, *, seed=None, env_ids=None):
        others = torch.zeros_like(self._pending)
        if env_ids is not None:
            others[:] = True
            others[env_ids] = False
        self.clock.begin(slice(None) if env_ids is None else env_ids)
        self._pending[~others] = False
        self.clock.contact += others  # the forward pass of a partial reset is the others' as well
        found = self._observations()
        self.clock.contact[:] = 0
        return found, self.extras

    def step(self, action):
        assert action.shape == (self.num_envs, ACTIONS)
        if self._pending.any():
            raise RuntimeError(f"Environments {self._pending.nonzero().tolist()} must be reset")
        over = self.clock.advance(action)
        if not any(not term.time_out for term in self.cfg.terminations.values()):
            self.clock.terminated[:] = False
        if not any(term.time_out for term in self.cfg.terminations.values()):
            self.clock.time_outs[:] = False
        over = self.clock.terminated | self.clock.time_outs
        self._pending |= over
        return self._observations(), self.clock.reward, self.clock.terminated, self.clock.time_outs, self.extras

    def _observations(self):
        seen = self.clock.seen()
        # the critic's, of terms that are not concatenated, one of them with a history
        parts = {"deed": seen[:, 3:4], "when": -seen[:, :3].reshape(-1, 3, 1)}
        camera = torch.zeros(self.num_envs, 4, 4, 3)
        return {name: {"actor": seen, "critic": parts, "camera": camera}[name] for name in self.cfg.groups}

    def close(self):
        pass
