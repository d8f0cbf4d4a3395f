"""A dataset of a run's policy: its task's environments are stepped, and whole episodes written in Minari's format.

Not the replay ring: its rows are sums over n steps, and of the newest environments' alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator, NamedTuple, Sequence

import numpy as np
import torch
from torch import Tensor

import tasks
from pql import algorithms
from pql.algorithms.base import P_LEARNER, Nets
from pql.errors import UserError
from pql.memory import dataset
from pql.roles.actor import together
from pql.roles.flat import Flat
from pql.roles.learner import generator_of
from pql.run import evaluation
from pql.runtime import checkpoint

Act = Callable[[Tensor], Tensor]


class Vectors(NamedTuple):
    """One vector step of N environments; observations with what the critic alone sees behind them."""

    obs: np.ndarray  # (N, D)
    action: np.ndarray  # (N, A)
    reward: np.ndarray  # (N,)
    next_obs: np.ndarray  # (N, D)
    terminated: np.ndarray  # (N,)
    truncated: np.ndarray  # (N,)
    valid: np.ndarray  # (N,)


def record(
    run_dir: str, out: str, steps: int, num_envs: int, explore: bool, seed: int,
    which: str = "newest", plugins: Sequence[str] = (), trust: bool = False,
) -> str:  # fmt: skip
    """Write `steps` transitions, rounded up to whole vector steps; what the last of them cuts counts as truncated.

    Args:
        run_dir, which, plugins, trust: as `evaluation.load_run` takes them.
        out: the dataset's folder.
        explore: act as in training, with the newest policy and its noise; else as in evaluations.

    Returns:
        A line about it. Raises UserError, TaskError.
    """
    with dataset.writing(out) as folder:
        trained = evaluation.load_run(run_dir, num_envs, seed, which, plugins, trust)
        env, cfg = trained.env, trained.cfg
        try:
            act = explorer(trained, run_dir, seed, which) if explore else trained.act
            with evaluation.one_torch_thread():
                episodes = cut(list(played(env, act, -(-steps // num_envs))))
        finally:
            env.close()
        if not episodes:
            raise UserError(f"no transition of {cfg.task.name} was valid: there is nothing to write")
        sim = cfg.sim.name if tasks.brings_tasks(cfg.sim.name) else None
        task = {"name": cfg.task.name, "sim": sim, "options": dict(cfg.task.options)}
        how = "exploring" if explore else "without noise"
        about = f"{cfg.algo.name}, {how}, after {trained.manifest['env_steps']} env steps of {cfg.task.name}"
        dataset.write(folder, Path(out).resolve().name, episodes, task, about)
    returns, count = [float(e["rewards"].sum()) for e in episodes], sum(len(e["rewards"]) for e in episodes)
    return f"{out}: {count} transitions in {len(episodes)} episodes of {about}; mean return {np.mean(returns):.1f}"


def explorer(trained: evaluation.TrainedPolicy, run_dir: str, seed: int, which: str) -> Act:
    """How the run's actor would act by now. Raises UserError."""
    if which != "newest":
        raise UserError(f"checkpoint={which} knows the deployed policy alone, not the one that explores: explore=false")
    env = trained.env
    algorithm = algorithms.make(trained.cfg.algo, env.spaces)
    flat = Flat({group.name: group.make() for group in algorithm.trained_by(P_LEARNER)}, env.device).fixed()
    folder, _ = checkpoint.newest(Path(run_dir), lambda text: None)
    flat.data.copy_(checkpoint.load_tensors(folder, P_LEARNER)["weights"])
    nets, memory = Nets(**flat.modules), algorithm.exploration(env.num_envs, env.device)
    generator = generator_of(seed, "record", env.device)
    return lambda obs: algorithm.explore(nets, trained.act.normalized(obs), memory, generator)


@torch.no_grad()
def played(env: tasks.VectorEnv, act: Act, count: int) -> Iterator[Vectors]:
    """`count` vector steps from a reset."""
    obs = env.reset()
    seen = together(obs, env.critic_obs).clone()
    for _ in range(count):
        action = act(obs)
        step = env.step(action)
        next_seen = together(step.next_obs, step.next_critic_obs)
        yield Vectors(*(part.cpu().numpy().copy() for part in (
            seen, action, step.reward, next_seen, step.terminated, step.truncated, step.valid)))  # fmt: skip
        obs, seen = step.obs, together(step.obs, step.critic_obs).clone()


def cut(vectors: Sequence[Vectors]) -> list[dict[str, np.ndarray]]:
    """Vector steps as episodes, in Minari's words; an invalid step belongs to none and cuts the one before it."""
    obs, action, reward, next_obs, terminated, truncated, valid = (np.stack(part, 1) for part in zip(*vectors))  # (N,T)
    episodes = []
    for n in range(len(reward)):
        ends = np.flatnonzero((terminated | truncated | ~valid)[n]) + 1
        for start, stop in zip((0, *ends), (*ends, reward.shape[1])):
            stop -= 0 if stop == start or valid[n, stop - 1] else 1
            if stop <= start:
                continue
            part = slice(start, stop)
            last = np.arange(start, stop) == stop - 1
            episodes.append({
                "observations": np.concatenate((obs[n, part], next_obs[n, stop - 1 : stop])),
                "actions": action[n, part], "rewards": reward[n, part], "terminations": terminated[n, part],
                "truncations": last & ~terminated[n, part],
            })  # fmt: skip
    return episodes
