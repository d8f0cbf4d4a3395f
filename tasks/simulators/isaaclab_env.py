"""Isaac Lab's tasks behind the contract of a step; called by `tasks.simulators.lab` in the interpreter that has it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tasks.simulators.lab_env import ManagedEnv, Moved, Stepped, change, imported, not_finite, unknown_task
from tasks.simulators.worker.errors import blame

GROUPS = ("policy", "critic")  # in manager-based tasks by custom, in direct ones always


class IsaacLabEnv(ManagedEnv):
    """A manager-based or direct environment with `compute_final_obs=True`, which resets within its step.

    * `extras["final_obs"]` is this step's only where an episode ended in it, and only in the rows of those.
    * It lacks a step's last frame in terms that have a history or a delay: their buffers are read and not advanced for
      it. Where the policy or the critic sees such a term, or there is no `final_obs`, who is cut has no successor that
      could be bootstrapped from: `truncated`, not `valid`. Who terminated needs none.
    * Nobody can be reset from outside without advancing everybody's buffers: a row that is no longer finite is told to
      be out of time, and its next step only resets.
    """

    def __init__(self, *args: Any):
        self._due: Tensor | None = None
        super().__init__(*args)
        manager = getattr(self.env, "observation_manager", None)
        buffers = ("_group_obs_term_history_buffer", "_group_obs_term_delay_buffer")
        names = {*self._groups[0], *(self._groups[1] if self.critic_obs_dim else ())}
        self._late = any(getattr(manager, kind, {}).get(name) for kind in buffers for name in names)

    def reset(self) -> Tensor:
        self._due = None
        return super().reset()

    def _moved(self, stepped: Stepped) -> Moved:
        ended = stepped.terminated | stepped.truncated
        nobody = torch.zeros_like(ended)
        due = nobody if self._due is None else self._due
        following, told = stepped.seen, True
        if ended.any():
            final = stepped.extras.get("final_obs")
            told = final is not None and not self._late
            following = torch.where(ended[:, None], self._seen if final is None else self._observed(final), following)
        diverged = not_finite(following, stepped.reward) & ~due
        self._due = (due | diverged) & ~ended
        self.env.episode_length_buf.masked_fill_(self._due, self.max_episode_steps)
        return Moved(stepped.seen, following, diverged, nobody if told else stepped.truncated, due)


def make(
    name: str,
    num_envs: int,
    device: str,
    seed: int,
    cfg: dict[str, Any],
    action_scale: float,
    here: str,
    import_error: BaseException | None = None,
) -> IsaacLabEnv:
    """`num_envs` environments of an Isaac Lab task in this process; arguments as in `tasks.simulators.mjlab_env`.

    Raises:
        Mistake: for an unknown task or field, spaces that can't be learned, and whatever the task raises.
    """
    try:
        import gymnasium
        import isaaclab_tasks  # noqa: F401 - registers them
        from isaaclab.app import launch_simulation
        from isaaclab_tasks.utils import parse_env_cfg
    except Exception as error:
        raise blame("Isaac Lab cannot be imported", error) from error
    key = imported(name, here)
    known = [task for task, spec in gymnasium.registry.items() if "env_cfg_entry_point" in spec.kwargs]
    if key not in known:
        raise unknown_task(key, "Isaac Lab", known)
    try:
        settings = parse_env_cfg(key, device=device, num_envs=num_envs)
    except Exception as error:
        raise blame(f"{name} cannot be made", error) from error
    change(settings, cfg, name)
    settings.seed, settings.compute_final_obs = seed, True
    try:
        launched = launch_simulation(settings)
        launched.__enter__()
        env = gymnasium.make(key, cfg=settings).unwrapped
        env.sim.step(render=False)  # compiles what a step needs, which takes longer than any step has; a reset follows
    except Exception as error:
        raise blame(f"{name} cannot be made", error) from error
    told = (GROUPS[:1], GROUPS[1:] if "critic" in env.single_observation_space.spaces else GROUPS[:1])
    made = IsaacLabEnv(name, env, device, told, action_scale)
    made.launched = launched  # closed by its end
    return made
