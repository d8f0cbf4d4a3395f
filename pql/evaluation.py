"""Evaluation: the noise-free policy in environments of its own; statistics; the policy as one module."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Iterator, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import tasks
from pql import algorithms, checkpoint, config
from pql.errors import UserError
from pql.normalizer import Normalizer


class Result(NamedTuple):
    """One episode per environment."""

    returns: np.ndarray  # (N,)
    lengths: np.ndarray  # (N,)


def episodes(env: tasks.VectorEnv, act: Callable[[Tensor], Tensor], start: dict | None = None) -> Iterator[Result]:
    """Play the first episode of every environment; yields an incomplete `Result` after each vector step.

    The last one yielded is complete. Yielding lets a supervisor look after its processes in between.

    Args:
        act: observations (N, obs_dim) -> actions (N, action_dim).
        start: an environment state to begin from, so that every evaluation meets the same initial states.
    """
    obs = env.reset() if start is None else env.load_state_dict(start)
    returns = torch.zeros(env.num_envs, device=env.device)
    lengths = torch.zeros(env.num_envs, device=env.device)
    alive = torch.ones(env.num_envs, device=env.device)
    for _ in range(env.max_episode_steps + 1):
        with torch.no_grad():
            step = env.step(act(obs))
        returns += alive * step.reward
        lengths += alive
        alive *= ~(step.terminated | step.truncated)
        obs = step.obs
        yield Result(returns.cpu().numpy(), lengths.cpu().numpy())
        if not alive.any():
            return


def play(env: tasks.VectorEnv, act: Callable[[Tensor], Tensor]) -> Result:
    """All of `episodes` at once."""
    result = None
    for result in episodes(env, act):  # noqa: B007 - the last one counts
        pass
    return result


def random_policy(env: tasks.VectorEnv, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """Uniform actions in [-1, 1]."""
    generator = torch.Generator(env.device).manual_seed(seed)
    shape = (env.num_envs, env.action_dim)
    return lambda obs: torch.rand(shape, generator=generator, device=env.device) * 2 - 1


class DeployedPolicy(nn.Module):
    """Normaliser and policy in one: raw observations (B, obs_dim) -> actions (B, action_dim) in [-1, 1]."""

    def __init__(self, policy: nn.Module, normalizer: Normalizer):
        super().__init__()
        self.policy = policy
        self.clip = normalizer.clip
        self.register_buffer("mean", normalizer.mean.clone())
        self.register_buffer("inv_std", normalizer.inv_std.clone())

    def forward(self, obs: Tensor) -> Tensor:
        return self.policy(((obs - self.mean) * self.inv_std).clamp(-self.clip, self.clip))


def make_env(cfg: config.Config, num_envs: int, seed: int, threads: int | None = None) -> tasks.VectorEnv:
    """The configuration's task. Raises TaskError."""
    return tasks.make(
        cfg.task.name, num_envs, sim=cfg.sim.name, device=cfg.device, seed=seed, threads=threads, **cfg.task.options
    )


def load_policy(run_dir: Path, obs_dim: int, action_dim: int) -> tuple[DeployedPolicy, int]:
    """The policy of a run's newest good checkpoint, and the env steps it was trained for. Raises UserError."""
    cfg = config.read(run_dir / "config.yaml")
    found = checkpoint.newest(run_dir)
    if found is None:
        raise UserError(f"run_dir={run_dir} holds no good checkpoint: train it first")
    folder, manifest = found
    policy = algorithms.make(cfg.algo, obs_dim, action_dim).make_policy()
    weights = checkpoint.load_tensors(folder, "p_learner")["weights"]
    if weights.numel() != sum(p.numel() for p in policy.parameters()):
        raise UserError(f"the policy in {folder} is not one for {cfg.task.name} with algo.hidden={cfg.algo.hidden}")
    torch.nn.utils.vector_to_parameters(weights, policy.parameters())
    normalizer = Normalizer(obs_dim)
    normalizer.state.copy_(checkpoint.load_tensors(folder, "actor")["normalizer"])
    normalizer.refresh()
    return DeployedPolicy(policy.requires_grad_(False), normalizer).eval(), manifest["env_steps"]


def open_run(run_dir: str) -> tuple[Path, config.Config]:
    """A run's folder and configuration, its plugins imported. Raises UserError where it is no run."""
    path = Path(run_dir)
    if not (path / "config.yaml").is_file():
        raise UserError(f"run_dir={run_dir} is no run: it holds no config.yaml")
    cfg = config.read(path / "config.yaml")
    config.import_plugins(cfg.plugins)
    cfg.device = str(config.resolve_device("auto" if cfg.device.startswith("cuda") else cfg.device))
    return path, cfg


def interquartile_mean(values: np.ndarray) -> float:
    """Mean of the middle half of the sorted values (Agarwal et al. 2021), with fractional ends."""
    values = np.sort(np.asarray(values, dtype=float))
    n = len(values)
    low, high = n / 4, 3 * n / 4
    # the share of each value's unit-wide cell [i, i + 1] that lies in [n/4, 3n/4]
    i = np.arange(n)
    weight = np.clip(np.minimum(i + 1, high) - np.maximum(i, low), 0, None)
    return float((values * weight).sum() / weight.sum())


def bootstrap_interval(
    values: np.ndarray, statistic: Callable[[np.ndarray], float] = np.mean, level: float = 0.95, samples: int = 2000
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of independent values."""
    values = np.asarray(values, dtype=float)
    rng = np.random.default_rng(0)
    resampled = values[rng.integers(0, len(values), (samples, len(values)))]
    found = np.apply_along_axis(statistic, 1, resampled)
    tail = (1 - level) / 2
    return float(np.quantile(found, tail)), float(np.quantile(found, 1 - tail))
