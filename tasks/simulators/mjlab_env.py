"""mjlab's tasks behind the contract of a step; called by `tasks.simulators.lab` in the interpreter that has mjlab."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tasks.simulators.lab_env import ManagedEnv, Moved, Stepped, change, imported, not_finite, unknown_task
from tasks.simulators.worker.errors import blame


class MjlabEnv(ManagedEnv):
    """A `ManagerBasedRlEnv` with `auto_reset=False`: its step ends with the terminal observations.

    Whoever ended is reset by a call of its own. What that returns of the others is not theirs: it has other
    `foot_contact`s, and noise drawn anew. An episode whose task has no term for a time limit is cut at
    `max_episode_length` here.
    """

    def _flags(self, terminated: Tensor, time_outs: Tensor) -> tuple[Tensor, Tensor]:
        late = self.env.episode_length_buf >= self.max_episode_steps
        return super()._flags(terminated, time_outs | late)

    def _moved(self, stepped: Stepped) -> Moved:
        diverged = not_finite(stepped.seen, stepped.reward)
        over, seen, nobody = stepped.terminated | stepped.truncated | diverged, stepped.seen, torch.zeros_like(diverged)
        if over.any():
            first = self._observed(self.env.reset(env_ids=over.nonzero().flatten())[0])
            seen = torch.where(over[:, None], first, seen)
        return Moved(seen, stepped.seen, diverged, nobody, nobody)


def make(
    name: str,
    num_envs: int,
    device: str,
    seed: int,
    cfg: dict[str, Any],
    action_scale: float,
    here: str,
    import_error: BaseException | None = None,
) -> MjlabEnv:
    """`num_envs` environments of an mjlab task in this process.

    Args:
        name: a registered id, or "module:id".
        device: "cuda:0" or "cpu".
        cfg: overrides of the task's configuration, nested.
        here: a folder in which such a module may lie.

    Raises:
        Mistake: for an unknown task or field, spaces that can't be learned, and whatever the task raises.
    """
    try:
        import mjlab.tasks  # noqa: F401 - registers them
        from mjlab.envs import ManagerBasedRlEnv
        from mjlab.tasks.registry import list_tasks, load_env_cfg, load_rl_cfg
    except Exception as error:
        raise blame("mjlab cannot be imported", error) from error
    key = imported(name, here)
    if key not in list_tasks():
        raise unknown_task(key, "mjlab", list_tasks())
    settings = load_env_cfg(key)
    change(settings, cfg, name)
    settings.scene.num_envs, settings.seed, settings.auto_reset = num_envs, seed, False
    try:
        env = ManagerBasedRlEnv(settings, device)
        env.sim.step()  # compiles what a step needs, which takes longer than any step has; a reset follows
    except Exception as error:
        raise blame(f"{name} cannot be made", error) from error
    seen = load_rl_cfg(key).obs_groups  # what mjlab's own learner shows to whom
    made = MjlabEnv(name, env, device, (seen.get("actor", ("actor",)), seen.get("critic", ("critic",))), action_scale)
    made.terminates = settings.is_finite_horizon or any(
        not term.time_out for term in settings.terminations.values() if term is not None
    )
    return made
