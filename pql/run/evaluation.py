"""Evaluation: the noise-free policy in environments of its own; statistics; the policy as one module."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence

import numpy as np
import torch
from torch import Tensor, nn

import tasks
from pql import algorithms
from pql.algorithms.base import P_LEARNER, Algorithm
from pql.config import Config, make_env, read
from pql.config.devices import device_for
from pql.errors import UserError
from pql.roles.actor import per_row
from pql.roles.flat import Flat
from pql.roles.normalizer import Normalizer
from pql.roles.p_learner import DEPLOYED
from pql.runtime import checkpoint


class Result(NamedTuple):
    """One episode per environment, without those that diverged: their returns would be those of a part."""

    returns: np.ndarray  # (N - diverged,)
    lengths: np.ndarray  # (N - diverged,)
    diverged: int = 0
    metrics: Mapping[str, np.ndarray] = {}  # the task's own that were asked for, (N - diverged,): means over an episode


class Played(NamedTuple):
    """One episode per environment, as far as it went."""

    returns: np.ndarray  # (N,)
    lengths: np.ndarray  # (N,)
    whole: np.ndarray  # (N,) bool: it has not diverged
    alive: np.ndarray  # (N,) bool: it goes on
    metrics: Mapping[str, np.ndarray] = {}  # (N,): means over the steps that tell one, NaN where none does

    def result(self, rows: slice = slice(None)) -> Result:
        """Of these environments."""
        whole = self.whole[rows]
        metrics = {name: values[rows][whole] for name, values in self.metrics.items()}
        return Result(self.returns[rows][whole], self.lengths[rows][whole], int((~whole).sum()), metrics)


def episodes(
    env: tasks.VectorEnv, act: Callable[[Tensor], Tensor], start: dict | None = None, metrics: Sequence[str] = ()
) -> Iterator[Result]:
    """`played`, those that diverged left out."""
    return (so_far.result() for so_far in played(env, act, start, metrics))


def played(
    env: tasks.VectorEnv, act: Callable[[Tensor], Tensor], start: dict | None = None, metrics: Sequence[str] = ()
) -> Iterator[Played]:
    """Play the first episode of every environment; yields an incomplete `Result` after each vector step.

    The last one yielded is complete. Yielding lets a supervisor look after its processes in between.

    Args:
        act: observations (N, obs_dim) -> actions (N, action_dim).
        start: an environment state to begin from, so that every evaluation meets the same initial states.
        metrics: names of the task's own to watch.
    """
    obs = env.reset() if start is None else env.load_state_dict(start)
    count, diverged = env.num_envs, 0
    returns, lengths = np.zeros(count, np.float32), np.zeros(count, np.float32)
    alive, sound = np.ones(count, bool), np.ones(count, bool)
    sums, told = np.zeros((2, len(metrics), count))
    for _ in range(env.max_episode_steps + 1):
        with torch.no_grad():
            step = env.step(act(obs))
        reward, terminated, truncated, valid, so_far = _on_host(step)
        returns += np.where(alive, reward, np.float32(0))  # what follows an episode may be no number
        lengths += alive
        # An episode may be cut as invalid for want of its last observation, too; then nothing is counted.
        if so_far > diverged:
            sound &= ~(alive & truncated & ~valid)
        diverged = so_far
        if metrics:
            values = torch.stack([per_row(step.info[name], step.reward) for name in metrics]).cpu().numpy()
            counts = alive & np.isfinite(values)
            sums += np.where(counts, values, 0.0)
            told += counts
        alive = alive & ~(terminated | truncated)
        obs = step.obs
        means = dict(zip(metrics, np.where(told > 0, sums / np.maximum(told, 1), np.nan))) if metrics else {}
        yield Played(returns.copy(), lengths.copy(), sound & np.isfinite(returns), alive, means)
        if not alive.any():
            return


def _on_host(step: tasks.Step) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Reward, terminated, truncated and valid, (N,) each, and how many episodes have diverged by now.

    Small arrays cost numpy a third of what they cost torch, and from a GPU they come in one copy.
    """
    told = [step.reward, step.terminated, step.truncated, step.valid]
    diverged = step.info.get("diverged_episodes")
    if step.reward.is_cuda:
        if diverged is not None:
            told.append(diverged.sum().expand_as(step.reward))
        reward, *rest = torch.stack([tensor.double() for tensor in told]).cpu().numpy()
        terminated, truncated, valid = (row > 0 for row in rest[:3])
        return reward.astype(np.float32), terminated, truncated, valid, int(rest[3][0]) if rest[3:] else 0
    reward, terminated, truncated, valid = (tensor.numpy() for tensor in told)
    return reward, terminated, truncated, valid, 0 if diverged is None else int(diverged.sum())


def play(env: tasks.VectorEnv, act: Callable[[Tensor], Tensor], metrics: Sequence[str] = ()) -> Result:
    """All of `played` at once."""
    *_, last = played(env, act, metrics=metrics)
    return last.result()


def random_policy(env: tasks.VectorEnv, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """Uniform actions in [-1, 1]."""
    generator = torch.Generator(env.device).manual_seed(seed)
    shape = (env.num_envs, env.action_dim)
    return lambda obs: torch.rand(shape, generator=generator, device=env.device) * 2 - 1


class DeployedPolicy(nn.Module):
    """Normaliser and policy in one: raw observations (B, obs_dim) -> actions (B, action_dim) in [-1, 1]."""

    def __init__(self, algorithm: Algorithm, policy: nn.Module, normalizer: Normalizer):
        super().__init__()
        self.algorithm, self.policy = algorithm, policy
        obs_dim = algorithm.spaces.obs_dim
        self.clip = normalizer.clip
        self.register_buffer("mean", normalizer.mean[:obs_dim].clone())
        self.register_buffer("inv_std", normalizer.inv_std[:obs_dim].clone())

    def normalized(self, obs: Tensor) -> Tensor:
        return ((obs - self.mean) * self.inv_std).clamp(-self.clip, self.clip)

    def forward(self, obs: Tensor) -> Tensor:
        return self.algorithm.act(self.policy, self.normalized(obs))


def load_policy(
    cfg: Config, run_dir: Path, spaces: tasks.Spaces, warn: Callable[[str], None] = print, which: str = "newest"
) -> tuple[DeployedPolicy, dict[str, Any]]:
    """The averaged policy of a run's newest good checkpoint, or of its best, and the manifest. Raises UserError."""
    found = checkpoint.best(run_dir, warn) if which == "best" else checkpoint.newest(run_dir, warn)
    if found is None and which == "best":
        raise UserError(f"run_dir={run_dir} holds no good policy in best/, where evaluations put one: take the newest")
    if found is None and checkpoint.found(run_dir):
        raise UserError(f"run_dir={run_dir}: none of its checkpoints can be read; copy them anew from where they came "
                        "from, or take checkpoint=best")  # fmt: skip
    if found is None:
        raise UserError(f"run_dir={run_dir} holds no good checkpoint: train it first (resume=true continues it)")
    folder, manifest = found
    if manifest["task"] != cfg.task.name:
        raise UserError(f"{folder} is not of this run: it is of {manifest['task']}, config.yaml says {cfg.task.name}")
    algorithm = algorithms.make(cfg.algo, spaces)
    (group,) = (group for group in algorithm.groups() if group.name == DEPLOYED)
    flat = Flat({DEPLOYED: group.make()}).fixed()
    weights = checkpoint.load_tensors(folder, P_LEARNER)["average"]
    if len(weights) != len(flat):
        raise UserError(f"the policy in {folder} is not one for {cfg.task.name} with this run's sizes of networks")
    flat.data.copy_(weights)
    moments = checkpoint.load_tensors(folder, "actor")["normalizer"]
    normalizer = Normalizer(len(moments) // 2)
    normalizer.state.copy_(moments)
    normalizer.refresh()
    return DeployedPolicy(algorithm, flat.modules[DEPLOYED], normalizer).eval(), manifest


def open_run(run_dir: str, plugins: Sequence[str] = (), trust: bool = False) -> tuple[Path, Config]:
    """A run's folder and configuration; `plugins` and `trust` as in `config.read`. Raises UserError if it is no run."""
    path = Path(run_dir)
    if not (path / "config.yaml").is_file():
        runs = sorted(folder.parent.name for folder in path.glob("*/config.yaml"))
        if runs:
            more = ", ..." if runs[3:] else ""
            raise UserError(f"run_dir={run_dir} holds several runs ({', '.join(runs[:3])}{more}): name one of them, as "
                            f"run_dir={path / runs[0]}")  # fmt: skip
        what = "it holds no config.yaml" if path.exists() else "there is no such folder"
        raise UserError(f"run_dir={run_dir} is no run: {what}; name the folder that training wrote")
    cfg = read(path / "config.yaml", plugins, trust)
    cfg.run_dir = run_dir  # a run may have been moved since
    device = "auto" if cfg.device.startswith("cuda") else cfg.device
    cfg.device = str(device_for(device, cfg.task.name, cfg.sim.name))
    if cfg.sim.name == "mujoco_warp" and device == "auto" and cfg.device == "cpu":
        cfg.sim.name = "mujoco"  # the same tasks, where there is no GPU
    return path, cfg


class TrainedPolicy(NamedTuple):
    """What a finished or interrupted run has learned, with environments to try it in."""

    cfg: Config
    env: tasks.VectorEnv
    act: DeployedPolicy
    manifest: dict[str, Any]

    def evaluate(self) -> Result:
        """One episode per environment, without noise, and the task's own metrics."""
        with one_torch_thread():
            return play(self.env, self.act, self.env.metric_names)


def load_run(
    run_dir: str, num_envs: int, seed: int = 0, which: str = "newest", plugins: Sequence[str] = (), trust: bool = False,
    sim: str = "",
) -> TrainedPolicy:  # fmt: skip
    """A run's newest good policy, or its best, and `num_envs` environments of its task. Raises UserError, TaskError.

    `sim` names another simulator than the run's: with "gymnasium" a port's original, say.
    Checkpoints found damaged on the way are reported on stderr. Nothing is written to the run's folder.
    """
    path, cfg = open_run(run_dir, plugins, trust)
    if sim and sim != cfg.sim.name:  # what the run's simulator was told is not for another
        cfg.sim = dataclasses.replace(cfg.sim, name=sim, python=None, metrics=[])
        cfg.device = str(device_for("auto", cfg.task.name, sim))
    env = make_env(cfg, num_envs, seed)
    policy, manifest = load_policy(cfg, path, env.spaces, lambda text: print(text, file=sys.stderr), which)
    return TrainedPolicy(cfg, env, policy.to(env.device), manifest)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """On a CPU simulation and roles have the cores: torch's threads would fight with them over small batches."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def report(trained: TrainedPolicy, result: Result) -> dict[str, Any]:
    """The statistics of an evaluation as plain JSON types; intervals are 95 % bootstrap intervals."""
    returns = result.returns
    if not len(returns):
        raise UserError(f"all {result.diverged} episodes diverged (NaN or infinity): there is no return to tell")
    return {
        "task": trained.cfg.task.name,
        "run_dir": trained.cfg.run_dir,
        "env_steps": trained.manifest["env_steps"],
        "episodes": len(returns),
        "diverged": result.diverged,
        "mean": float(returns.mean()),
        "mean_interval": bootstrap_interval(returns),
        "interquartile_mean": interquartile_mean(returns),
        "interquartile_mean_interval": bootstrap_interval(returns, interquartile_mean),
        "std": float(returns.std()),
        "min": float(returns.min()),
        "max": float(returns.max()),
        "mean_length": float(result.lengths.mean()),
        "returns": [float(value) for value in returns],
        "metrics": metrics_report(result),
    }


def metrics_report(result: Result) -> dict[str, dict[str, Any]]:
    """The task's own by name: the mean over the episodes that tell one, its interval, and how many these are."""
    told = {name: values[np.isfinite(values)] for name, values in result.metrics.items()}
    return {
        name: {"mean": float(values.mean()) if len(values) else None, "mean_interval": bootstrap_interval(values),
               "episodes": len(values)}
        for name, values in told.items()
    }  # fmt: skip


def report_text(values: dict[str, Any]) -> str:
    """`report` for people."""
    more = f"; {values['diverged']} more diverged (NaN or infinity) and are left out" if values["diverged"] else ""
    count, middle = episodes_text(values["episodes"]), values["interquartile_mean"]
    rows = [
        ("mean return", f"{values['mean']:.2f}", interval_text(values["mean_interval"])),
        ("interquartile mean", f"{middle:.2f}", interval_text(values["interquartile_mean_interval"])),
        ("worst to best", f"{values['min']:.2f}", f"to {values['max']:.2f}"),
        ("mean length", f"{values['mean_length']:.1f}", "control steps"),
    ]
    for name, metric in values["metrics"].items():
        if metric["episodes"]:
            rows.append((name, f"{metric['mean']:.4g}", interval_text(metric["mean_interval"], ".4g")))
    width = max(len(name) for name, *_ in rows)
    return "\n".join([
        f"{values['task']} after {values['env_steps']} env steps, {count} without noise{more}",
        *(f"  {name:{width}}  {value:>10}   {rest}" for name, value, rest in rows),
    ])  # fmt: skip


def episodes_text(count: int) -> str:
    return f"{count} episode{'s' if count != 1 else ''}"


def interval_text(interval: Any, form: str = ".2f") -> str:
    """A 95 % interval for people; one episode has none."""
    if not interval:
        return "no interval: one episode"
    return f"95 % interval {interval[0]:{form}} to {interval[1]:{form}}"


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
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of a statistic of independent values; None of a single one, which tells none."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return None
    rng = np.random.default_rng(0)
    resampled = values[rng.integers(0, len(values), (samples, len(values)))]
    found = np.apply_along_axis(statistic, 1, resampled)
    tail = (1 - level) / 2
    return float(np.quantile(found, tail)), float(np.quantile(found, 1 - tail))
