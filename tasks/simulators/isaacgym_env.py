"""IsaacGymEnvs' own tasks, unmodified, behind the contract of a step (`tasks.base`).

A task of IsaacGymEnvs starts a new episode in one of three ways, and none of them is the contract's:

* after the next step's physics (Ant, Humanoid, Cartpole, Anymal, FrankaCubeStack, ...): the step after the last
  one simulates the dead robot once more and returns the new episode's first observation;
* before the next step's physics (BallBalance, the hands, Quadcopter, Trifinger, ...): the step after the last one
  returns the state after the new episode's first action, and the first observation is never seen;
* within the last step (AnymalTerrain): what is returned is the new episode's observation, and the last one is lost.

Which of them a task follows is not looked up but seen: the task's `reset_idx` is called through a note of the
rows it resets, and a row that is reset while an end was due joins two episodes, one that is reset unasked has
just ended.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tasks.base import Step, VectorEnv
from tasks.errors import TaskError


class Parts(NamedTuple):
    """Which tensors of a dictionary of observations the policy sees, and which the critic."""

    policy: tuple[str, ...]
    critic: tuple[str, ...]


class IsaacGymEnv(VectorEnv):
    """N environments of a task made by IsaacGymEnvs, converted to `tasks.base.Step`.

    What a step says of each environment:

    * A step that only resets (the first two habits) is not `valid` and its reward is 0: from the old episode's last
      observation to the new one's first there is no transition. An end flagged on such a step (Anymal's contact
      forces are then still the old episode's) is no episode of its own.
    * A reset within the step: a fall is `terminated`, and since the true successor is lost `next_obs` repeats the
      observation acted in, which a discount of 0 multiplies. A time-out, which such a task doesn't flag, is told by
      the progress counter as it stood before the step; it is `truncated` and not `valid`, as there is nothing right
      to bootstrap from.
    * IsaacGymEnvs flags a fall on an episode's very last step as a time-out too, and nothing tells the two apart. So
      once a task has been seen to end an episode early, its time-outs are `truncated` but not `valid`: one
      transition per episode is not learned from, and none bootstraps from a fallen robot. Tasks that end by time
      alone keep theirs.
    * A row that is no longer finite is truncated, not valid, and reset (`info["diverged_episodes"]` counts).

    Args:
        task: an instance of a class in `isaacgymenvs.tasks.isaacgym_task_map`, or anything with its `step`,
            `reset_idx`, `reset_buf`, `progress_buf`, `max_episode_length`, `num_obs`, `num_acts`, `num_envs`.
        device: where its tensors are (IsaacGymEnvs' rl_device).
        parts: of a task whose observations are a dictionary of tensors (DeXtreme's): the names of what the policy
            sees and of what the critic sees, each concatenated in this order.
    """

    def __init__(self, name: str, task: Any, device: torch.device | str, parts: Parts | None = None):
        self.name, self.task, self.device = name, task, torch.device(device)
        self.num_envs, self.obs_dim, self.action_dim = task.num_envs, task.num_obs, task.num_acts
        self.critic_obs_dim = int(getattr(task, "num_states", 0))  # IsaacGymEnvs' asymmetric observations
        self._names = ("obs", "states") if self.critic_obs_dim else ("obs",)
        if parts is not None:
            self.obs_dim, self.critic_obs_dim = (sum(task.obs_dims[n][0] for n in names) for names in parts)
            self._names = (*parts.policy, *parts.critic)
        self.max_episode_steps = int(task.max_episode_length)
        self.dt = float(getattr(task, "dt", 1.0)) * int(getattr(task, "control_freq_inv", 1))
        self._was_reset = self._nobody()
        self._awaiting = self._nobody()  # whose episode ended and who was not reset yet
        self._ends_early = torch.zeros((), dtype=torch.bool, device=self.device)
        self._diverged = torch.zeros((), dtype=torch.int64, device=self.device)
        self._note_resets()
        self.reset()

    @property
    def critic_obs(self) -> Tensor | None:
        return self._seen[:, self.obs_dim :] if self.critic_obs_dim else None

    def _nobody(self) -> Tensor:
        return torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)

    def _note_resets(self) -> None:
        reset_idx = self.task.reset_idx

        def noted(env_ids: Tensor, *more: Any, **options: Any) -> Any:
            self._was_reset[torch.as_tensor(env_ids, dtype=torch.int64, device=self.device)] = True
            return reset_idx(env_ids, *more, **options)

        self.task.reset_idx = noted

    def _take_resets(self) -> Tensor:
        """Who was reset since the last call: (N,) bool."""
        found, self._was_reset = self._was_reset, self._nobody()
        return found

    @torch.no_grad()
    def reset(self) -> Tensor:
        """Start a new episode everywhere. IsaacGymEnvs' own `reset` only shows its buffer; a step does it."""
        still = torch.zeros((self.num_envs, self.action_dim), device=self.device)
        self._take_resets()
        self.task.reset_buf[:] = 1
        found = self.task.step(still)
        kept = ~self._take_resets()
        if kept.any():  # a task that resets within the step has only now found out who ended
            kept &= ~self._promised()
            if kept.any():
                self.task.reset_idx(kept.nonzero().flatten())
            self._take_resets()
            found = self.task.step(still)
            self._awaiting = self._flags() & ~self._take_resets()
        else:
            self._awaiting = self._flags()
        self._seen = self._finite(self._observed(found[0]))
        return self._seen[:, : self.obs_dim]

    @torch.no_grad()
    def step(self, action: Tensor) -> Step:
        if action.shape != (self.num_envs, self.action_dim):
            raise TaskError(f"{self.name} takes actions {self.num_envs, self.action_dim}, not {tuple(action.shape)}")
        due, progress = self._awaiting, self.task.progress_buf.to(self.device, copy=True)
        limit = self.task.max_episode_length - 1  # the last step's count, where IsaacGymEnvs raises its flag
        found, reward, _, extras = self.task.step(action.to(self.device, copy=True).clamp_(-1.0, 1.0))
        # IsaacGymEnvs returns live buffers in dictionaries that it uses again.
        seen, reward = self._observed(found), reward.to(self.device, torch.float32, copy=True)
        flagged, was_reset = self._flags(), self._take_resets()

        within = was_reset & ~due  # reset in the step that ended the episode: `obs` is the new episode's
        lost = torch.where(within, progress + 1, self.task.progress_buf.to(self.device)) >= limit
        ended = (flagged & ~due) | within
        truncated = ended & (lost | ~flagged)
        terminated = ended & ~truncated
        self._ends_early |= terminated.any()
        diverged = ~torch.isfinite(seen.sum(1) + reward)
        self._diverged += (diverged & ~due).sum()
        valid = ~(due | diverged | (truncated & (within | self._ends_early)))
        truncated = truncated | (diverged & ~due)

        # Whose episode ended without a reset is reset by the task's next step; a row that has left the finite
        # numbers is asked for, and one that the task passed over is reset here: its next step counts as the reset's.
        self.task.reset_buf.masked_fill_(diverged.to(self.task.reset_buf.device), 1)
        self._awaiting = (flagged & ~within) | diverged
        passed_over = due & ~was_reset
        if passed_over.any():
            self._awaiting = self._awaiting | passed_over
            passed_over &= ~self._promised()
            if passed_over.any():
                self.task.reset_idx(passed_over.nonzero().flatten())

        seen = self._finite(seen)
        following = torch.where(within[:, None], self._seen, seen)
        self._seen = seen
        reward = torch.where(due | diverged, torch.zeros_like(reward), reward)
        info = {"diverged_episodes": self._diverged.clone(), **self._measurements(extras)}
        obs, next_obs = seen[:, : self.obs_dim], following[:, : self.obs_dim]
        step = Step(obs, reward, terminated & ~diverged, truncated, next_obs, valid, info)
        if self.critic_obs_dim:
            step = step._replace(critic_obs=self.critic_obs, next_critic_obs=following[:, self.obs_dim :])
        return step

    def _promised(self) -> Tensor:
        """Whom the task will reset in its next step and not in its last: (N,) bool.

        DeXtreme's randomisation (ADR) spends a step of its own between an episode's end and its reset.
        """
        promised = getattr(self.task, "apply_reset_buf", None)
        return self._nobody() if promised is None else promised.to(self.device) != 0

    def _flags(self) -> Tensor:
        """Whose episode the task says has ended: (N,) bool."""
        return self.task.reset_buf.to(self.device) != 0

    def _observed(self, found: Any) -> Tensor:
        """What the policy sees and then what the critic sees where it has `states` of its own, as a copy."""
        missing = [name for name in self._names if not isinstance(found, dict) or name not in found]
        if missing:
            raise TaskError(
                f"task {self.name} gives its observations as {sorted(found) if isinstance(found, dict) else found!r}, "
                f"without {missing[0]}, and nothing says which of them a policy sees: choose another task"
            )
        return torch.cat([found[name].to(self.device, torch.float32) for name in self._names], 1)

    def _finite(self, obs: Tensor) -> Tensor:
        return torch.nan_to_num(obs, nan=0.0, posinf=0.0, neginf=0.0)

    def _measurements(self, extras: dict[str, Any]) -> dict[str, Tensor]:
        """The tensors among a task's extras, as copies."""
        return {k: v.clone() for k, v in extras.items() if isinstance(v, Tensor) and k != "time_outs"}


# Read by VecTask where a task's file may leave them out.
OPTIONAL = (
    "env.clipActions", "env.clipObservations", "env.controlFrequencyInv", "env.enableCameraSensors", "env.numAgents",
    "env.numStates", "env.renderFPS", "sim.num_client_threads", "sim.substeps",
)  # fmt: skip


def make(
    name: str,
    num_envs: int,
    device: str,
    seed: int,
    threads: int | None = None,
    cfg: dict[str, Any] | None = None,
    import_error: BaseException | None = None,
) -> IsaacGymEnv:
    """Construct a task in this process, which must have imported isaacgym before torch and have no other simulation.

    Args:
        name: of a file in IsaacGymEnvs' cfg/task, or of a task in its `isaacgym_task_map`.
        device: "cuda:0", or "cpu" for its CPU pipeline.
        cfg: overrides of the task's configuration, nested: {"env": {"episodeLength": 500}}.
        import_error: what importing isaacgym raised, if it did.

    Raises:
        TaskError: for each failure known to `tasks.simulators.isaacgym.explain`, an unknown task or an unknown field.
    """
    from tasks.simulators.isaacgym import explain

    try:
        if import_error is not None:
            raise import_error
        # The seed is accepted by IsaacGymEnvs' own `make` and then not applied.
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 (it is the global generator that tasks draw from)
        torch.manual_seed(seed)
        task = _construct(name, num_envs, device, threads, cfg or {})
        return IsaacGymEnv(name, task, device, _parts(task, name))
    except TaskError:
        raise
    except BaseException as error:
        advice = explain(error, num_envs)
        if advice is None:
            raise
        raise TaskError(advice) from error


def _construct(name: str, num_envs: int, device: str, threads: int | None, changes: dict[str, Any]) -> Any:
    from hydra import compose, initialize_config_dir
    from isaacgymenvs.tasks import isaacgym_task_map
    from omegaconf import OmegaConf

    from tasks.simulators.isaacgym import config_dir, config_file, unknown_task

    learners = sorted((config_dir() / "train").glob("*.yaml"))
    overrides = [
        f"task={config_file(name)}",
        # Settings of rl_games, which nobody reads here; left to itself it would be <task>PPO, which some tasks lack.
        *[f"train={file.stem}" for file in learners[:1]],
        f"num_envs={num_envs}",
        f"sim_device={device}",
        f"rl_device={device}",
        f"pipeline={'gpu' if device.startswith('cuda') else 'cpu'}",
        "headless=true",
        "force_render=false",
    ]
    if threads is not None:
        overrides.append(f"num_threads={threads}")
    # Some tasks (Factory, IndustReal) compose further files while they are constructed.
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        cfg = compose("config", overrides=overrides)
        subtask = _leaves(changes).get("env.subtask")
        if subtask and "subtask" in cfg.task.env:  # AllegroKuka's have settings of their own, one file each
            known = sorted(file.stem for file in (config_dir() / "task" / "env").glob("*.yaml"))
            if subtask not in known:
                raise TaskError(f"task.cfg.env.subtask={subtask}: {name} has {', '.join(known)}")
            cfg = compose("config", overrides=[*overrides, f"task/env={subtask}"])
        OmegaConf.set_struct(cfg, False)
        cfg.task.env.numEnvs = num_envs
        _change(cfg.task, changes, name)
        plain = OmegaConf.to_container(cfg.task, resolve=True)
        if plain["name"] not in isaacgym_task_map:
            raise unknown_task(plain["name"], isaacgym_task_map)
        plain["rl_device"] = device  # DeXtreme's tasks read it here and would else take the first GPU
        return isaacgym_task_map[plain["name"]](
            cfg=plain,
            rl_device=device,
            sim_device=device if ":" in device else f"{device}:0",  # AllegroKuka splits it unasked
            graphics_device_id=torch.device(device).index or 0,
            headless=True,
            virtual_screen_capture=False,
            force_render=False,
        )


def _parts(task: Any, name: str) -> Parts | None:
    """What policy and critic see of a dictionary of observations; None of a task with plain ones.

    Which tensors are a policy's is said nowhere in the task (some are what the real robot doesn't know), but in the
    file that IsaacGymEnvs' own learner reads for it: `cfg/train/<task's file>PPO.yaml` lists the inputs of its policy
    and those of its central value, and in the order of these lists they are concatenated.
    """
    if not getattr(task, "dict_obs_cls", False):
        return None
    from omegaconf import OmegaConf

    from tasks.simulators.isaacgym import config_dir, config_file

    path = config_dir() / "train" / f"{config_file(name)}PPO.yaml"
    params = OmegaConf.load(path).params if path.is_file() else OmegaConf.create()
    policy, critic = (
        OmegaConf.select(params, f"{where}network.inputs", default={}) for where in ("", "config.central_value_config.")
    )
    if not policy:
        raise TaskError(
            f"task {name} gives a dictionary of observations, and IsaacGymEnvs has no cfg/train/{path.name} that lists "
            "under params.network.inputs which of them a policy sees: add one, or choose another task"
        )
    # A flag that DeXtreme keeps as a number and asks torch.where with, which takes none but bool by now.
    task.reset_goal_buf = task.reset_goal_buf.bool()
    return Parts(tuple(policy), tuple(critic))


def _change(cfg: Any, changes: dict[str, Any], name: str) -> None:
    """Write what the user changed over a task's configuration; a field that it hasn't is refused."""
    from difflib import get_close_matches

    from omegaconf import OmegaConf

    known = _leaves(OmegaConf.to_container(cfg))
    for key, value in _leaves(changes).items():
        if key not in known and key not in OPTIONAL:
            near = get_close_matches(key, [*known, *OPTIONAL], n=1)
            hint = f"; did you mean task.cfg.{near[0]}?" if near else ""
            raise TaskError(f"task.cfg.{key}: {name} has no such field in IsaacGymEnvs{hint}")
        OmegaConf.update(cfg, key, value)


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"env": {"episodeLength": 5}} -> {"env.episodeLength": 5}."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found.update(_leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return found
