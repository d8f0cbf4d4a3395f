"""A task on a simulator: the vector environment that learners see."""

from __future__ import annotations

from typing import Any, Sequence

import torch
from torch import Tensor

import tasks.starts as starts
from tasks.base import Step, VectorEnv
from tasks.border import Border
from tasks.errors import TaskError
from tasks.graphs import TorchGraph
from tasks.simulators.base import Simulator
from tasks.task import Sampler, Samplers, Start, State, Task, looks

PARTS = "reward/"  # before the name of a part of the reward that `judge` tells of
METRIC = "metric/"  # before the name of a metric that it tells of


class TaskEnv(VectorEnv):
    """N environments of `task` stepped by `simulator`. Made by `tasks.make`.

    On a GPU a step is a fixed sequence of tensor operations whatever the values: each step draws an episode's start for
    every environment and a mask decides who takes it. What persists between steps lives in tensors that are overwritten
    in place. So what comes before the physics and what comes after are two graphs. On a CPU, where a look at a value
    costs nothing, a step in which no episode ends draws no starts.
    """

    def __init__(self, name: str, task: Task, simulator: Simulator, seed: int | Sequence[int] = 0):
        self.name, self.task, self.simulator = name, task, simulator
        task.setup(simulator.model, simulator.device)
        self.num_envs, self.device = simulator.num_envs, simulator.device
        self._on_host = self.device.type == "cpu"  # a look at a value makes nobody wait
        self._border = Border(name, self.num_envs, task.dtype)
        self._border.sizes(task)
        self.obs_dim, self.action_dim, self.critic_obs_dim = task.obs_dim, task.action_dim, task.critic_obs_dim
        self.max_episode_steps = task.max_episode_steps
        self.dt = simulator.dt * task.action_repeat  # seconds per step
        several = not isinstance(seed, int)  # sets of environments, each with a seed of its own
        self._sampler = (Samplers if several else Sampler)(self.num_envs, self.device, seed)
        simulator.randomize(task.randomize(self._sampler))
        self._starts = starts.make(task, simulator, self._sampler, seed)
        simulator.vary(task.episode_fields)
        self._actuators = simulator.model.nu
        self._no_sensors = torch.zeros((self.num_envs, simulator.model.nsensordata), device=self.device)
        self._progress = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
        self._diverged = torch.zeros(len(seed) if several else (), dtype=torch.int64, device=self.device)
        self._memory: dict[str, Tensor] = {}
        self._action = torch.zeros((self.num_envs, self.action_dim), device=self.device)
        self._before, self._after, self._begun, *self._between = (
            TorchGraph(function, self.device, self._sampler.generators, simulator.in_place)
            for function in (self._control, self._judge, self._look, *[self._sum] * (task.action_repeat - 1))
        )
        self.reset()
        self._try()

    @torch.no_grad()
    def _try(self) -> None:
        """Call what no reset calls, for what its border says of it: better here than in the midst of a run."""
        _, action, memory = self._control()
        state = self.simulator.state()
        *_, terms = self._judged(state, self._obs, action, memory)
        self._border.metrics(terms, "judge")
        self.metric_names = (*terms, *self._border.metrics(self.task.metrics(state)))

    @torch.no_grad()
    def reset(self) -> Tensor:
        everyone = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        first, start = self._restart(everyone, self._memory)
        self.simulator.reset(everyone, start)
        if first is None:
            state = self.simulator.state()
            self._remember(everyone, self.task.begin(state), self._memory)
            first = self._observe(state, self._memory)
        self._seen = first
        return self._obs

    @property
    def _obs(self) -> Tensor:
        return self._seen[:, : self.obs_dim]

    @property
    def critic_obs(self) -> Tensor | None:
        return self._seen[:, self.obs_dim :] if self.critic_obs_dim else None

    @torch.no_grad()
    def step(self, action: Tensor) -> Step:
        if action.shape != (self.num_envs, self.action_dim):
            raise TaskError(f"{self.name} takes actions {self.num_envs, self.action_dim}, not {tuple(action.shape)}")
        self._action.copy_(action)
        ctrl, action, memory = self._before()
        so_far = ()
        for one_more in self._between:
            ctrl, memory, so_far = one_more(*self.simulator.step(ctrl), action, memory, *so_far)
        state, diverged = self.simulator.step(ctrl)
        seen, step, ended, start = self._after(state, diverged, action, memory, *so_far)
        if start is not None:
            self.simulator.reset(ended, start)
            if looks(self.task):
                seen, step = self._begun(self.simulator.state(), self._memory, seen, step, ended)
        self._seen = seen
        return step

    def _control(self) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """What of a step comes before the physics: controls, the action taken, what the task remembers by now."""
        memory = dict(self._memory)
        action = self._action.clamp(-1.0, 1.0)
        return self._commanded(action, memory), action, memory

    def _commanded(self, action: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """Controls, (N, nu). Raises TaskError."""
        ctrl = self.task.control(action, memory)
        declared = f"{self._actuators} actuators (action_dim = {self.action_dim} was declared)"
        rule = f"the model has {declared}, so controls must be ({self.num_envs}, {self._actuators})"
        return self._border.floating("control", ctrl, self._actuators, rule, any_float=True)

    def _judged(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Reward and terminated, (N,) each, and what `judge` told of for the log. Raises TaskError."""
        judged = self._border.judged(self.task.judge(state, obs, action, memory))
        told = [name for name in memory if name.startswith((PARTS, METRIC))]
        return (*judged, {name[len(METRIC) * name.startswith(METRIC) :]: memory.pop(name) for name in told})

    def _sum(
        self, state: State, diverged: Tensor, action: Tensor, memory: dict[str, Tensor], *so_far: Any
    ) -> tuple[Tensor, dict[str, Tensor], tuple[Any, ...]]:
        """What comes between the control steps of an action that lasts: new controls, and rewards and who diverged."""
        reward, _, terms = self._judged(state, self._observe(state, memory)[:, : self.obs_dim], action, memory)
        earlier, before, parts = so_far or (0.0, False, {})
        # Sums, of the first too: what a simulator returns may lie in the same memory every time.
        so_far = earlier + reward, diverged | before, _summed(parts, terms)
        return self._commanded(action, memory), memory, so_far

    def _judge(
        self, state: State, diverged: Tensor, action: Tensor, memory: dict[str, Tensor], *so_far: Any
    ) -> tuple[Tensor, Step, Tensor, Start | None]:
        """What comes after it: all that is seen now, the step, whose episodes ended, where the next ones begin.

        That is None where a look said that none does.
        """
        seen = self._observe(state, memory)
        reward, terminated, terms = self._judged(state, seen[:, : self.obs_dim], action, memory)
        if so_far:
            earlier, before, parts = so_far
            reward, diverged, terms = earlier + reward, diverged | before, {**terms, **_summed(parts, terms)}
        # A sum is finite only if its terms are, and less itself it is 0: the cheap way to find a row that is not.
        total = seen.sum(1) + reward
        diverged = diverged | (total - total != 0)
        self._progress += 1
        self._diverged += self._of_sets(diverged)
        valid = ~diverged
        terminated = terminated & valid
        truncated = ((self._progress >= self.max_episode_steps) & ~terminated) | diverged
        ended = terminated | truncated
        counts = {name: self._of_sets(count) for name, count in self.simulator.metrics().items()}
        info = {"diverged_episodes": self._diverged.clone(), **counts, **terms}
        # A state may lie in the simulator's own memory, which the restart and the next step overwrite.
        info.update({key: value.clone() for key, value in self.task.metrics(state).items()})

        # A diverged row has no successor; it must still be finite, for zero weight times NaN is NaN.
        following = torch.nan_to_num(seen, nan=0.0, posinf=0.0, neginf=0.0)
        first = start = None
        if not self._on_host or ended.any():
            first, start = self._restart(ended, memory)
        else:
            self._remember(None, memory, memory)
        # With weights of 0 and 1 lerp is exact, and on a CPU three times as fast as where.
        seen = following if first is None else torch.lerp(following, first, ended.float()[:, None])
        obs, next_obs = seen[:, : self.obs_dim], following[:, : self.obs_dim]
        step = Step(obs, torch.where(valid, reward, 0.0).float(), terminated, truncated, next_obs, valid, info)
        if self.critic_obs_dim:
            told = {"critic_obs": seen[:, self.obs_dim :], "next_critic_obs": following[:, self.obs_dim :]}
            step = step._replace(**told)
        return seen, step, ended, start

    def _of_sets(self, rows: Tensor) -> Tensor:
        """How many in all: of (N,) one number, of several sets of environments one each."""
        return rows.view(*self._diverged.shape, -1).sum(-1)

    def _look(
        self, state: State, memory: dict[str, Tensor], seen: Tensor, step: Step, ended: Tensor
    ) -> tuple[Tensor, Step]:
        """Put the first observations of the episodes that begin now, which the simulator was to tell, into a step."""
        self._remember(ended, self.task.begin(state), memory)
        seen = torch.where(ended[:, None], self._observe(state, memory), seen)
        step = step._replace(obs=seen[:, : self.obs_dim])
        return seen, step._replace(critic_obs=seen[:, self.obs_dim :]) if self.critic_obs_dim else step

    def _observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        """What the policy sees and, where that is something else, what the critic sees, side by side, as float32."""
        parts = [self._declared("observe", "obs_dim", self.task.observe(state, memory))]
        if self.critic_obs_dim:
            parts.append(self._declared("observe_critic", "critic_obs_dim", self.task.observe_critic(state, memory)))
        seen = (torch.cat(parts, 1) if len(parts) > 1 else parts[0]).float()
        return seen if self.task.clip_obs == float("inf") else seen.clamp(-self.task.clip_obs, self.task.clip_obs)

    def _declared(self, function: str, size: str, obs: Tensor) -> Tensor:
        """`obs`, whose columns are as many as the task said. Raises TaskError."""
        columns = getattr(self, size)
        rule = f"{size} = {columns} was declared: ({self.num_envs}, {columns})"
        return self._border.floating(function, obs, columns, rule)

    def _restart(self, mask: Tensor, memory: dict[str, Tensor]) -> tuple[Tensor | None, Start]:
        """Begin an episode where `mask` and keep `memory` elsewhere. Returns first observations and starts of all.

        There are no first observations yet where the task wants the simulator's look at them.
        """
        if self._on_host:
            self._sampler.draw_for(mask)
        start = self._starts(mask)
        self._border.begun(start, self.simulator.model)
        self._progress.masked_fill_(mask, 0)
        self._remember(mask, {**memory, **start.memory}, memory)
        if looks(self.task):
            return None, start
        return self._observe(State(start.qpos, start.qvel, self._no_sensors), start.memory), start

    def _remember(self, mask: Tensor | None, new: dict[str, Tensor], memory: dict[str, Tensor]) -> None:
        """Remember `new` where `mask` (None: everywhere) and `memory` elsewhere."""
        for key, value in new.items():
            if key not in self._memory:  # the very first start says what there is to remember
                self._memory[key] = value.clone()
            elif mask is not None:
                choice = torch.where(mask.reshape(-1, *[1] * (value.dim() - 1)), value, memory[key])
                self._memory[key].copy_(choice)
            elif value is not self._memory[key]:
                self._memory[key].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Everything the next step depends on, as a flat dict of CPU or device tensors (copies)."""
        state = {
            "obs": self._seen.clone(),
            "progress": self._progress.clone(),
            "diverged_episodes": self._diverged.clone(),
            "generator": self._sampler.get_state(),
        }
        if isinstance(self._starts, starts.Drawn):
            state.update({f"starts.{key}": value for key, value in self._starts.state_dict().items()})
        state.update({f"memory.{key}": value.clone() for key, value in self._memory.items()})
        state.update({f"sim.{key}": value for key, value in self.simulator.state_dict().items()})
        return state

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> Tensor:
        mine = self.state_dict()
        if mine.keys() != state.keys() or any(mine[key].shape != state[key].shape for key in mine):
            raise TaskError(
                f"this state is not one of {self.name} with {self.num_envs} environments; "
                "load it into an environment made with the same task, num_envs and sim"
            )
        self._progress.copy_(state["progress"])
        self._diverged.copy_(state["diverged_episodes"])
        self._sampler.set_state(state["generator"])
        for key, value in self._memory.items():
            value.copy_(state[f"memory.{key}"])
        if isinstance(self._starts, starts.Drawn):
            self._starts.load_state_dict(_under("starts.", state))
        self.simulator.load_state_dict(_under("sim.", state))
        self._seen = state["obs"].to(self.device, copy=True)
        return self._obs

    def render(self, width: int = 640, height: int = 480, index: int = 0) -> Any:
        if not 0 <= index < self.num_envs:
            raise TaskError(f"no environment {index} to render: index must be in 0..{self.num_envs - 1}")
        shown = {name: value[index].cpu().numpy() for name, value in self.task.shown(self._memory).items()}
        return self.simulator.render(self.task, width, height, index, shown)

    def close(self) -> None:
        self.simulator.close()


def _summed(earlier: dict[str, Tensor], terms: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parts of the reward among `terms`, added to those of earlier control steps; metrics are the last one's."""
    return {name: earlier.get(name, 0.0) + now for name, now in terms.items() if name.startswith(PARTS)}


def _under(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    """The entries whose names begin with `prefix`, without it."""
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
