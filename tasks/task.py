"""What the author of a task writes: a model, and five pure functions over batched state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Callable, NamedTuple, Sequence

import torch
from torch import Tensor

from tasks.errors import TaskError


class State(NamedTuple):
    """The state of N simulations in MuJoCo's conventions, on the task's device.

    A free joint is position (world), quaternion (w, x, y, z; body to world) in `qpos`, and linear velocity
    (world axes), angular velocity (BODY axes) in `qvel`; `tasks.rotations` turns them. `sensors` describe the
    last physics substep's start, one substep before `qpos` and `qvel`; they are zero at an episode's start. So do
    `fields`. A task that has `reads` or a `stage` sees both as MuJoCo computes them at an episode's start, and its
    stage says of which instant they are later. State may lie in the simulator's own memory: it is for reading only.
    """

    qpos: Tensor  # (N, nq)
    qvel: Tensor  # (N, nv)
    sensors: Tensor  # (N, nsensordata)
    fields: dict[str, Tensor] = {}  # noqa: RUF012 (never written to); what `Task.reads` names


class Start(NamedTuple):
    """Where episodes begin, drawn for every environment."""

    qpos: Tensor  # (N, nq)
    qvel: Tensor  # (N, nv)
    # None of these defaults is ever written to.
    memory: dict[str, Tensor] = {}  # noqa: RUF012
    # Other parts of the state, by MjData's names, where they aren't 0.
    more: dict[str, Tensor] = {}  # noqa: RUF012
    model: dict[str, Tensor] = {}  # noqa: RUF012 - `Task.episode_fields`


class Sampler:
    """Random numbers for N environments from one owned generator."""

    def __init__(self, num_envs: int, device: torch.device, seed: int):
        self.num_envs, self.device = num_envs, device
        self.generator = torch.Generator(device=device)
        self.generator.manual_seed(seed)

    def uniform(self, low: float, high: float, size: int) -> Tensor:
        """Uniform numbers in [low, high): (N, size) float32."""
        unit = torch.rand((self.num_envs, size), generator=self.generator, device=self.device)
        return unit.mul_(high - low).add_(low)

    def normal(self, size: int) -> Tensor:
        """Numbers of mean 0 and deviation 1: (N, size) float32."""
        return torch.randn((self.num_envs, size), generator=self.generator, device=self.device)

    def draw_for(self, mask: Tensor) -> None:
        """From now on draw for the sets of environments of which one is in `mask`, (N,) bool; here there is one set."""

    @property
    def generators(self) -> list[torch.Generator]:
        return [self.generator]

    def get_state(self) -> Tensor:
        """What the next draw depends on."""
        return self.generator.get_state()

    def set_state(self, state: Tensor) -> None:
        self.generator.set_state(state.cpu().clone())  # torch reads a view from where its storage begins


class Samplers(Sampler):
    """The same for as many sets of environments, one behind the other, as there are seeds: each draws as if alone."""

    def __init__(self, num_envs: int, device: torch.device, seeds: Sequence[int]):
        self.num_envs, self.device = num_envs, device
        self.parts = [Sampler(num_envs // len(seeds), device, seed) for seed in seeds]
        self.drawing = [True] * len(seeds)

    def uniform(self, low: float, high: float, size: int) -> Tensor:
        return self._drawn(torch.rand, size).mul_(high - low).add_(low)

    def normal(self, size: int) -> Tensor:
        return self._drawn(torch.randn, size)

    def _drawn(self, draw: Callable[..., Tensor], size: int) -> Tensor:
        """(N, size), each set's rows from its own generator; 0 in a set that draws nothing now."""
        room = torch.empty if all(self.drawing) else torch.zeros
        drawn = room(len(self.parts), self.num_envs // len(self.parts), size, device=self.device)
        for part, rows, draws in zip(self.parts, drawn.unbind(), self.drawing):
            if draws:
                draw(rows.shape, generator=part.generator, out=rows)
        return drawn.flatten(0, 1)

    def draw_for(self, mask: Tensor) -> None:
        self.drawing = mask.view(len(self.parts), -1).any(1).tolist()

    @property
    def generators(self) -> list[torch.Generator]:
        return [part.generator for part in self.parts]

    def get_state(self) -> Tensor:
        return torch.stack([part.get_state() for part in self.parts])

    def set_state(self, state: Tensor) -> None:
        for part, mine in zip(self.parts, state):
            part.set_state(mine)


class Task(ABC):
    """One task, written once for every simulator. Register it with `tasks.register(name, TaskClass)`.

    All functions are pure and batched: no loop over environments, no branch on a tensor's value, no `nonzero`
    and no `.item()`, so that a whole step can be captured in a CUDA graph. `memory` holds what a task remembers
    between steps ((N, ...) tensors, first given by `reset`): rebind an entry (`memory["x"] = tensor`), never
    write into its tensor. What `judge` puts there under "reward/<name>" is no memory but a part of the reward, (N,),
    for the log alone, as "task/reward/<name>"; so is "metric/<name>", as "task/<name>", NaN where there is none.
    """

    obs_dim: int  # this and the next two: known at the latest after `setup`
    action_dim: int
    critic_obs_dim: int = 0  # more than 0: `observe_critic` says what the critic sees in place of `observe`
    max_episode_steps: int
    substeps: int = 2  # physics steps per control step; the model's own timestep says how long each is
    dtype: torch.dtype = torch.float32  # of the state that the task is given, as far as the simulator has that
    reads: tuple[str, ...] = ()  # MjData's names of what is in `state.fields`; the less, the faster
    # How far sensors and `reads` are brought up to the state after its last substep: not at all ("none"), as far as
    # they depend on positions ("position"), or on velocities too ("velocity"). Forces and accelerations never are.
    stage: str = "none"
    clip_obs: float = float("inf")
    ceiling: float | None = None  # a bound on the episode return that the reward's formula gives
    reference_return: float | None = None  # a return known from public results of other learners
    simulators: tuple[str, ...] = ("mujoco", "mujoco_warp")
    action_repeat: int = 1  # control steps that an action lasts, `control` called for each; their rewards are summed
    draws: bool = False  # starts are drawn one by one, by `draw` in place of `reset`
    episode_fields: tuple[str, ...] = ()  # fields of MjModel that `draw` writes to
    # A free camera, or the name or number of one of the model's.
    camera: dict[str, float] | str | int = {"distance": 4.0, "azimuth": 135.0, "elevation": -20.0, "height": 0.5}  # noqa: RUF012
    tracked_body: str | None = None  # the body the free camera follows; None: the scene's origin

    @abstractmethod
    def mjcf(self) -> str:
        """The model, as MJCF text."""

    def assets(self) -> dict[str, bytes]:
        """The files that `mjcf` includes or refers to, {name: content}."""
        return {}

    def adapt(self, model: Any) -> None:
        """Write to fields of the compiled mujoco.MjModel what MJCF wouldn't say alike; nothing is derived from it."""

    def setup(self, model: Any, device: torch.device) -> None:
        """Keep constants as tensors on `device`; `model` is the compiled mujoco.MjModel."""

    def randomize(self, sampler: Sampler) -> dict[str, Tensor]:
        """Model fields that differ between environments, drawn once, after `setup`: {MjModel's name: (N, ...)}.

        {"geom_friction": (N, ngeom, 3), "dof_damping": (N, nv)}, say. What MuJoCo derives from a field (weights from
        masses) follows by itself, but not one field from another: scale body_inertia together with body_mass.
        """
        return {}

    def reset(self, sampler: Sampler) -> Start:
        """Draw an episode's start for EVERY environment; those whose episode ended take it."""
        raise NotImplementedError(f"{type(self).__name__} has neither `reset` nor `draws`")

    def draw(self, scene: Any, random: Any) -> None:
        """Leave ONE episode's start in a tasks.starts.Scene, at its defaults but for the last start's `episode_fields`.

        It runs on the host, with numpy's RandomState, and may simulate.
        """
        raise NotImplementedError(f"{type(self).__name__} says that it draws, but not how")

    def begin(self, state: State) -> dict[str, Tensor]:
        """What an episode's start adds to `memory`, for EVERY environment, where `reads` have to be seen for that."""
        return {}

    def control(self, action: Tensor, memory: dict[str, Tensor]) -> Tensor:
        """Actuator controls (N, nu) from actions (N, action_dim) in [-1, 1]."""
        return action

    @abstractmethod
    def observe(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        """Observations (N, obs_dim)."""

    def observe_critic(self, state: State, memory: dict[str, Tensor]) -> Tensor:
        """Observations (N, critic_obs_dim) for the critic, which only training needs; called after `observe`."""
        raise NotImplementedError

    @abstractmethod
    def judge(
        self, state: State, obs: Tensor, action: Tensor, memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Reward (N,) float32 and terminated (N,) bool for the step that led to `state`, seen as `obs`."""

    def metrics(self, state: State) -> dict[str, Tensor]:
        """Extra (N,) values for a step's info; a training run logs their means, "task/<name>"."""
        return {}

    def shown(self, memory: dict[str, Tensor]) -> dict[str, Tensor]:
        """Fields of MjData that only pictures need, {"mocap_quat": (N, nmocap, 4)}, say: where a goal is."""
        return {}


def actions_of(control_steps: int, action_repeat: int) -> int:
    """How many actions an episode of so many control steps has. Raises TaskError."""
    if action_repeat not in range(1, control_steps + 1) or control_steps % action_repeat:
        raise TaskError(f"action_repeat={action_repeat}: must divide the {control_steps} control steps of an episode")
    return control_steps // action_repeat


def told(parts: dict[str, Tensor], memory: dict[str, Tensor]) -> Tensor:
    """The sum of a reward's parts, (N,) each, of which the log is told by their names."""
    memory.update({f"reward/{name}": part for name, part in parts.items()})
    return torch.stack(list(parts.values())).sum(0)


def looks(task: Task) -> bool:
    """Whether a first observation takes MuJoCo's look at the start: the task sees more of it than qpos and qvel."""
    return bool(task.reads) or task.stage != "none"
