"""The actor: steps the environments with the newest policy and fills the replay ring."""

from __future__ import annotations

from typing import Sequence

import torch
from torch import Tensor

from pql.algorithms.base import P_LEARNER, Algorithm, Nets
from pql.memory.device import InFlight
from pql.memory.replay import Replay
from pql.memory.shared import Shared
from pql.memory.windows import NStepWindows
from pql.roles.flat import Flat
from pql.roles.learner import generator_of
from pql.roles.normalizer import Normalizer, ReturnScale
from tasks.base import Step

MEASURED_EVERY = 7  # vector steps
TASK = "task/"  # before the name of a task's own metric


class EpisodeStatistics:
    """Mean return and length of the newest finished episodes, at least `window` of them once there are so many.

    Episodes that end in one vector step count alike, however many they are: those of a step are added up into one
    entry, and the newest entries count until they hold `window` episodes. To keep the last `window` environments
    instead would favour the noisiest, where noise differs between them.
    """

    def __init__(self, num_envs: int, device: torch.device | str, window: int = 100):
        self.window = window
        self.running_return = torch.zeros(num_envs, device=device)
        self.running_length = torch.zeros(num_envs, device=device)
        # steps in which episodes ended: sum of returns, sum of lengths, episodes. One slot more than the window: where
        # a step without an end goes, so that no branch is needed
        self.entries = torch.zeros(window + 1, 3, dtype=torch.float64, device=device)
        self.filled = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, reward: Tensor, done: Tensor) -> None:
        self.running_return += reward
        self.running_length += 1
        both = torch.stack((self.running_return, self.running_length, torch.ones_like(reward))).double()
        entry = torch.where(done, both, 0.0).sum(1)
        any_ended = entry[2] > 0
        slot = torch.where(any_ended, self.filled % self.window, self.window)
        self.entries.index_copy_(0, slot.unsqueeze(0), entry.unsqueeze(0))
        self.filled += any_ended
        self.running_return.masked_fill_(done, 0.0)
        self.running_length.masked_fill_(done, 0.0)

    def begin_anew(self) -> None:
        """Forget the unfinished episodes."""
        self.running_return.zero_()
        self.running_length.zero_()

    def means(self) -> Tensor:
        """(3,) float64: mean return, mean length, episodes that count; NaN means while there are none."""
        age = torch.arange(self.window, device=self.entries.device)
        newest = self.entries[(self.filled - 1 - age) % self.window] * (age < self.filled).unsqueeze(1)
        newer = newest[:, 2].cumsum(0) - newest[:, 2]
        total = (newest * (newer < self.window).unsqueeze(1)).sum(0)
        return torch.cat([total[:2] / total[2], total[2:]])

    def state_dict(self) -> dict[str, Tensor]:
        names = ("running_return", "running_length", "entries", "filled")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            getattr(self, name).copy_(value)


def seen_by_actor(task_metrics: Sequence[str]) -> tuple:
    """Names of what the actor measures now and then, where its environments tell of these."""
    return ("clipped_actions", *(TASK + name for name in task_metrics))


def per_row(value: Tensor, like: Tensor) -> Tensor:
    """A metric, (N, ...) or one number, as (N,) float64: the mean of what a row has."""
    value = value.double()
    return value.expand_as(like) if value.dim() == 0 else value.flatten(1).mean(1) if value.dim() > 1 else value


def together(obs: Tensor, critic_obs: Tensor | None) -> Tensor:
    """All that is observed: (N, obs_dim + critic_obs_dim). Without `critic_obs` it is `obs`, not a copy."""
    return obs if critic_obs is None else torch.cat((obs, critic_obs), 1)


class Actor:
    """One vector step at a time: act with exploration noise, step, window, store, count."""

    role = "actor"

    def __init__(self, cfg, env, algorithm: Algorithm, replay: Replay, shared: Shared):
        a, n, device = cfg.algo, env.num_envs, env.device
        self.cfg, self.env, self.replay, self.shared, self.algorithm = a, env, replay, shared, algorithm
        acting = {group.name: group.make() for group in algorithm.trained_by(P_LEARNER)}
        self.weights = Flat(acting, device).fixed()
        self.nets = Nets(**self.weights.modules)
        self.policy_version = torch.zeros(1, dtype=torch.int64, device=device)
        self.memory = algorithm.exploration(n, device)
        width = env.spaces.seen_dim
        self.normalizer = Normalizer(width, device)
        self.random_steps = a.warmup_steps
        if cfg.init_from is not None:  # it acts as well as it can, and sees as it has learned to
            self.random_steps = 0
            shared.normalizer.read(self.normalizer.state)
            self.normalizer.refresh()
        bound = algorithm.return_bound
        self.scale = None if bound is None else ReturnScale(bound, n, a.gamma, device)
        self.windows = NStepWindows(n, env.action_dim, a.n_step, a.gamma, device)
        self.episodes = EpisodeStatistics(n, device)
        self.generator = generator_of(cfg.seed, self.role, device)
        self.obs: Tensor | None = None  # (N, obs_dim + critic_obs_dim)
        self.in_flight = InFlight(device)
        self.faults = torch.zeros(4, dtype=torch.int64, device=device)  # of the first step that had any

    @torch.no_grad()
    def step(self) -> None:
        """One vector step of N environments."""
        if self.obs is None:
            self.begin(self.env.reset())
        action = self.act()
        step = self.env.step(action)
        self.note(action, step)
        self.demand_no_faults(self.in_flight(self.faults))
        self.take(action, step)
        self.shared.vector_steps += 1

    def begin(self, obs: Tensor) -> None:
        """From an environment that was just reset, which gave `obs`."""
        self.obs = together(obs, self.env.critic_obs).clone()
        self._note_faults(self.obs.sum(1))
        self.demand_no_faults(self.faults)
        self.replay.begin(self.obs)
        self._observe(self.obs)

    def note(self, action: Tensor, step: Step) -> None:
        """Look for faults in a step, without a look at a value on the host."""
        obs, next_obs = together(step.obs, step.critic_obs), together(step.next_obs, step.next_critic_obs)
        self._note_faults(obs.sum(1) + next_obs.sum(1) + step.reward, action)

    def take(self, action: Tensor, step: Step) -> None:
        """Learn what there is to learn from a step: statistics, transitions, the observation to act on next."""
        obs, next_obs = together(step.obs, step.critic_obs), together(step.next_obs, step.next_critic_obs)
        done, reward = step.terminated | step.truncated, step.reward * self.cfg.reward_scale
        self.episodes.add(step.reward, done)
        if self.scale is not None:
            self.scale.update(reward, done)
            self.shared.returns.publish(self.scale.state)
        places = self.replay.put(obs, next_obs)
        windows = self.windows.add(places, action, reward, step.terminated, step.truncated, step.valid)
        if windows is not None:
            self.replay.add(windows)
        self.obs.copy_(obs)  # the environment's is valid until its next step
        self._observe(self.obs)
        if int(self.shared.vector_steps) % MEASURED_EVERY == 0:
            self.measure(action, step)
        self.shared.episodes.copy_(self.episodes.means())
        self.shared.invalid += (~step.valid).sum()
        for name, counter in (("diverged_episodes", self.shared.diverged),
                              ("contact_overflows", self.shared.contact_overflows)):  # fmt: skip
            if name in step.info:
                counter.copy_(step.info[name])

    def measure(self, action: Tensor, step: Step) -> None:
        """The share of actions at their bounds or beyond, and the task's own metrics: means over rows and numbers."""
        gauges = self.shared.gauges[self.role]
        at_bounds = (action.abs() >= 1).double().mean(1)
        told = (step.info[name[len(TASK) :]] for name in gauges.names[1:])
        rows = torch.stack([at_bounds, *(per_row(value, at_bounds) for value in told)])
        counted = rows.isfinite() & step.valid
        gauges.add(torch.where(counted, rows, 0.0).sum(1), counted.sum(1))

    def _note_faults(self, sums: Tensor, action: Tensor | None = None) -> None:
        """Count the rows (N,) that are not finite, the first of them, and the actions that are not; at which step."""
        bad = ~torch.isfinite(sums)
        bad_actions = torch.zeros_like(bad) if action is None else ~torch.isfinite(action.sum(1))
        step = torch.full_like(self.faults[0], int(self.shared.vector_steps))
        found = torch.stack([bad.sum(), bad.long().argmax(), bad_actions.sum(), step])
        self.faults.copy_(torch.where(self.faults[:3:2].any(), self.faults, found))

    def demand_no_faults(self, faults: Tensor | None) -> None:
        """Raises where a step had one: such a value spoils normaliser, replay and networks."""
        rows, first, actions, step = (0, 0, 0, 0) if faults is None else faults.tolist()
        if actions:
            raise FloatingPointError(
                "learning diverged: the policy's action is NaN; lower algo.critic_lr, algo.actor_lr or "
                "algo.reward_scale"
            )
        if rows:
            raise FloatingPointError(
                f"the simulator returned NaN or infinity in {rows} of {self.env.num_envs} environments "
                f"(first: {first}) at vector step {step}"
            )

    def act(self) -> Tensor:
        """Actions (N, action_dim) to explore with: at random before learning begins."""
        obs = self.obs
        if int(self.shared.vector_steps) < self.random_steps:
            uniform = torch.rand(len(obs), self.env.action_dim, generator=self.generator, device=obs.device)
            return uniform * 2 - 1
        self.shared.weights[P_LEARNER].receive(self.weights.data, self.policy_version)
        seen = self.normalizer(obs[:, : self.env.obs_dim])
        return self.algorithm.explore(self.nets, seen, self.memory, self.generator)

    def _observe(self, obs: Tensor) -> None:
        if self.cfg.normalize_obs:
            self.normalizer.update(obs)
            self.shared.normalizer.publish(self.normalizer.state)

    def close(self) -> None:
        self.env.close()

    def state_dict(self) -> dict[str, Tensor]:
        self.demand_no_faults(self.faults)
        state = {"normalizer": self.normalizer.state, "generator": self.generator.get_state()}
        state.update({f"episodes.{k}": v for k, v in self.episodes.state_dict().items()})
        state.update({f"exploration.{k}": v for k, v in self.memory.items()})
        if self.scale is not None:
            state.update({"returns": self.scale.state, "returns.running": self.scale.running})
        if self.obs is None:
            return state
        try:
            state.update({f"env.{k}": v for k, v in self.env.state_dict().items()})
        except NotImplementedError:  # a simulator that cannot: new episodes will begin, and no window spans the gap
            return state
        state["obs"] = self.obs
        state.update({f"windows.{k}": v for k, v in self.windows.state_dict().items()})
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}

        self.normalizer.state.copy_(state["normalizer"])
        self.normalizer.refresh()
        self.shared.normalizer.publish(self.normalizer.state)
        self.generator.set_state(state["generator"].cpu())
        self.episodes.load_state_dict(part("episodes."))
        for name, value in part("exploration.").items():
            self.memory[name].copy_(value)
        if self.scale is not None:
            self.scale.state.copy_(state["returns"])
            self.scale.running.copy_(state["returns.running"])
            self.shared.returns.publish(self.scale.state)
        if "obs" not in state:
            self.episodes.begin_anew()
            if self.scale is not None:
                self.scale.running.zero_()
        else:
            self.env.load_state_dict(part("env."))
            self.obs = state["obs"].to(self.env.device, copy=True)
            if self.replay.is_untouched():  # what windows were pending is gone with the ring
                self.replay.begin(self.obs)
            else:
                self.windows.load_state_dict(part("windows."))
