"""isaaclab.envs: an environment that counts. What is like Isaac Lab 3.0.0 and matters:

an episode that ends begins anew within the step; the terminal observations are computed before that, for all rows, only
with `compute_final_obs` and only in a step with an end, and are left over in `extras` on later steps; of a term with a
history they lack the newest frame; flags and rewards are rewritten in place; a row may be flagged both ways.
"""

import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Optional

import gymnasium
from clock import ACTIONS, DT, LIMIT, Clock
from gymnasium import spaces


@dataclass
class Scene:
    num_envs: int = 1


@dataclass
class Sim:
    device: str = "cuda:0"


@dataclass
class Cfg:
    scene: Scene = field(default_factory=Scene)
    sim: Sim = field(default_factory=Sim)
    seed: Optional[int] = None
    compute_final_obs: bool = False
    is_finite_horizon: bool = False
    critic: bool = True
    history: bool = False
    agents: bool = False
    fault: Optional[str] = None
    at: int = 3


class ManagerBasedRLEnv(gymnasium.Env):
    step_dt, max_episode_length = DT, LIMIT

    def __init__(self, cfg):
        self.cfg, self.num_envs, self.extras = cfg, cfg.scene.num_envs, {}
        self.clock = Clock(self.num_envs, cfg.seed, cfg.sim.device, cfg.fault, cfg.at)
        box = lambda *shape: spaces.Box(-math.inf, math.inf, shape)  # noqa: E731
        groups = {"policy": box(5), "critic": spaces.Dict({"when": box(3)})}
        self.single_observation_space = spaces.Dict({k: v for k, v in groups.items() if k == "policy" or cfg.critic})
        self.single_action_space = box(ACTIONS)
        if cfg.agents:
            self.possible_agents = ["left", "right"]
        self.sim = SimpleNamespace(step=lambda render: None)
        history = {"who": object()} if cfg.history else {}
        self.observation_manager = SimpleNamespace(
            _group_obs_term_history_buffer={"policy": history}, _group_obs_term_delay_buffer={"policy": {}}
        )

    @property
    def episode_length_buf(self):
        return self.clock.age

    def reset(self, seed=None, options=None):
        self.clock.begin(slice(None))
        self._last = self._observations()
        return self._last, self.extras

    def step(self, action):
        before = self._observations()
        self.clock.advance(action)
        self.clock.time_outs |= self.clock.age > LIMIT
        over = self.clock.terminated | self.clock.time_outs
        if over.any():
            if self.cfg.compute_final_obs:
                self.extras["final_obs"] = before if self.cfg.history else self._observations()
            self.clock.begin(over)
        return self._observations(), self.clock.reward, self.clock.terminated, self.clock.time_outs, self.extras

    def _observations(self):
        seen = self.clock.seen()
        shown = {"policy": seen}
        if self.cfg.critic:
            shown["critic"] = {"when": -seen[:, :3]}
        return shown
