"""Train: a configuration in, a run directory out."""

from __future__ import annotations

import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from pql.algorithms.base import P_LEARNER
from pql.config import Config, make_env
from pql.errors import RoleFailed, UserError
from pql.files import FULL
from pql.memory.dataset import Steps
from pql.memory.shared import Shared
from pql.roles.build import Parts, prepare
from pql.roles.learner import seed_of
from pql.run import evaluation
from pql.run.advice import advice
from pql.run.directory import owned, read_summary
from pql.run.interrupt import Interrupt
from pql.run.metrics import read_metrics, tell
from pql.run.monitor import Monitor
from pql.run.offline import OfflineMonitor, learn_from, open_data
from pql.run.video import record
from pql.run.warm_start import start_from
from pql.runtime import checkpoint, parallel, sync


def train(cfg: Config) -> dict[str, Any]:
    """Train as configured; returns the summary. Raises UserError, or RoleFailed if a process died."""
    run_dir = Path(cfg.run_dir)
    done = done_already(cfg)
    if done and not wants_more(cfg, done):
        print(f"{run_dir} is complete: {done['env_steps']} env steps, return {done.get('eval_return')}")
        return done
    introduce(cfg)
    with Interrupt() as interrupt, evaluation.one_torch_thread():
        env = make_env(cfg, cfg.eval_episodes, evaluation_seed(cfg))
        try:
            with owned(run_dir):
                return go_on(cfg, env, interrupt, *find_checkpoint(cfg, bool(done)))
        finally:
            env.close()


def introduce(cfg: Config) -> None:
    """The first line of what a training says: the task, and whose, on which simulator."""
    own = "IsaacGymEnvs' own, " if cfg.sim.name == "isaacgym" else ""
    tell(f"{cfg.task.name}: {own}sim={cfg.sim.name} device={cfg.device}")


def evaluation_seed(cfg: Config) -> int:
    return seed_of(cfg.seed, "evaluation") % 2**31


def done_already(cfg: Config) -> dict[str, Any]:
    """The summary of the completed run that is to be resumed; {} where there is none."""
    done = read_summary(Path(cfg.run_dir)) if cfg.resume else {}
    return done if done.get("status") == "completed" else {}


def wants_more(cfg: Config, done: dict[str, Any]) -> bool:
    """Whether a completed run has limits by now that lie beyond its end."""
    if cfg.data is not None:
        return int(cfg.algo.utd * done["env_steps"] + 1e-6) > done["critic_updates"]
    return cfg.max_env_steps > done["env_steps"] and (cfg.max_time or math.inf) > done["wall_time_s"]


def find_checkpoint(cfg: Config, completed: bool) -> tuple[Path | None, dict[str, Any] | None]:
    """Where to go on from, and its manifest; None where a run begins. Raises UserError rather than lose a run."""
    run_dir = Path(cfg.run_dir)
    if not cfg.resume:
        return None, None
    newest = checkpoint.newest(run_dir, warn=lambda text: print(text, file=sys.stderr))
    if newest is None and checkpoint.found(run_dir):
        raise UserError(
            f"run_dir={run_dir}: none of its checkpoints can be read, so it cannot be resumed; "
            "start again in another folder"
        )
    if newest is None and completed:
        raise UserError(f"run_dir={run_dir} is complete and its checkpoints are gone, so it cannot be continued")
    if newest is not None:
        _demand_ours(cfg, *newest)
    return newest or (None, None)


def _demand_ours(cfg: Config, folder: Path, manifest: dict[str, Any]) -> None:
    """Raises UserError where a checkpoint is not one of this configuration's task and environments."""
    steps = manifest["vector_steps"] * cfg.num_envs
    if manifest["task"] != cfg.task.name or manifest["env_steps"] != steps:
        raise UserError(
            f"{folder} is not of this run: it holds {manifest['env_steps']} env steps of {manifest['task']}, where "
            f"config.yaml says {cfg.task.name} and num_envs={cfg.num_envs}, which makes {steps}: name another folder"
        )


def go_on(
    cfg: Config, env: Any, interrupt: Interrupt, folder: Path | None, manifest: dict[str, Any] | None
) -> dict[str, Any]:
    """Train from a checkpoint, or from the start, to the end."""
    steps = None if cfg.data is None else open_data(cfg, env.spaces)
    parts = prepare(cfg, env.spaces, None, env.metric_names)
    monitor = begin(cfg, parts, env, interrupt, folder, manifest, steps)
    if cfg.compile:
        monitor.progress.message("compiling the updates: half a minute to two the first time (compile=false: none)")
    try:
        runtime = sync if cfg.runtime == "sync" else parallel
        runtime.run(cfg, monitor, folder)
        if not monitor.interrupted:
            monitor.conclude()
        if monitor.interrupted:
            return stop(monitor)
        return complete(monitor, evaluation.play(env, evaluation.random_policy(env, cfg.seed)))
    except (KeyboardInterrupt, Exception) as error:
        fail(monitor, error)
        explain_full_disk(error, run_dir=cfg.run_dir)
        raise
    finally:
        if monitor.writer is not None:
            monitor.writer.close()


def begin(
    cfg: Config, parts: Parts, env: Any, interrupt: Interrupt, folder: Path | None, manifest: dict[str, Any] | None,
    steps: Steps | None = None,
) -> Monitor:  # fmt: skip
    """The run's folder as a session begins in it, and who watches that session.

    Args:
        steps: the fixed dataset to learn from, if there is one.
    """
    run_dir = Path(cfg.run_dir)
    if folder is not None:
        _demand_sizes(parts.shared, folder, manifest)
    if manifest is not None and steps is None and not checkpoint.holds_ring(manifest):
        old = f" of this version's form ({manifest['format']})" if checkpoint.REPLAY in manifest["files"] else ""
        print(f"note: the checkpoint holds no replay ring{old}; the run warms up again, then learning goes on")
    if cfg.init_from is not None and folder is None:
        cfg.init_from = str(start_from(cfg.init_from, parts.shared, print))  # config.yaml names the very checkpoint
    if cfg.runtime == "parallel":
        parallel.share(parts.shared)
    if folder is not None:
        restore_counters(parts.shared, folder, manifest)
    if steps is not None:
        learn_from(cfg, parts, steps)
    kind = Monitor if steps is None else OfflineMonitor
    monitor = kind(cfg, parts, env, manifest, cfg.runtime == "sync", interrupt)
    if folder is not None:
        monitor.restore_shared(folder)
        monitor.progress.message(f"resuming {run_dir} at {monitor.clock} {monitor.axis.replace('_', ' ')}")
    return monitor


def complete(monitor: Monitor, random: evaluation.Result) -> dict[str, Any]:
    """The end of a run that reached it. `random`: what a random policy gets."""
    more = {"eval_return": monitor.last_return}
    more["random_return"] = float(random.returns.mean()) if len(random.returns) else None
    interval = evaluation.bootstrap_interval(monitor.result.returns)
    more["eval_return_interval"] = interval and list(interval)
    more["metrics"] = evaluation.metrics_report(monitor.result)
    more["best_return"], more["best_env_steps"] = monitor.best
    lines = read_metrics(monitor.run_dir / "metrics.jsonl")
    more["advice"] = advice(lines, monitor.survey.norms)
    if monitor.cfg.video:
        more["video"] = record(monitor.cfg, monitor.run_dir / "video.mp4", warn=monitor.progress.message)
    return monitor.summary("completed", **more)


def stop(monitor: Monitor) -> dict[str, Any]:
    """The end of a session that a signal asked for."""
    why, run_dir = monitor.interrupted, monitor.run_dir
    if not monitor.moved and monitor.writer is None:
        monitor.progress.message(f"stopped by {why} before the first step: nothing was changed")
        return {"status": "interrupted", "reason": why}
    monitor.progress.message(f"stopped by {why} with a checkpoint; continue with resume=true run_dir={run_dir}")
    return monitor.summary("interrupted", reason=why)


def fail(monitor: Monitor, error: BaseException) -> dict[str, Any]:
    """The end of a run that failed; nothing is written where nothing was touched before."""
    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    if monitor.writer is not None:
        with suppress(OSError):  # the first error is the one to tell
            return monitor.summary("failed", reason=reason)
    return {"status": "failed", "reason": reason}


def explain_full_disk(error: BaseException, run_dir: Path | str, words: str = "") -> None:
    """Raises RoleFailed where an error is that of a full disk, and says how to go on.

    Args:
        words: to go on with; by default those of the one run in `run_dir`.
    """
    if isinstance(error, OSError) and error.errno in FULL:
        go_on = f"go on with {words or f'resume=true run_dir={run_dir}'}"
        saved = (Path(run_dir) / "config.yaml").exists()
        what = f"the newest good checkpoint stays: make room, then {go_on}" if saved else "make room, then start again"
        raise RoleFailed(f"{error.filename or run_dir}: {error.strerror}; {what}") from error


def _demand_sizes(shared: Shared, folder: Path, manifest: dict[str, Any]) -> None:
    """Raises UserError where networks, observations or ring of a checkpoint are not those of this run."""
    ours = {f"{role}'s weights": (box.buffers.shape[1],) for role, box in shared.weights.items()}
    theirs = {f"{role}'s weights": checkpoint.shapes(folder, role)["weights"] for role in shared.weights}
    ours["normaliser"] = (shared.normalizer.buffers.shape[1],)
    theirs["normaliser"] = checkpoint.shapes(folder, "actor")["normalizer"]
    if checkpoint.holds_ring(manifest):
        ours.update({f"ring's {name}": tuple(tensor.shape) for name, tensor in shared.ring.items()})
        theirs.update({f"ring's {name}": shape for name, shape in checkpoint.shapes(folder, "replay").items()})
        filled, slots = theirs["ring's rows"], ours["ring's rows"]
        if filled[0] <= slots[0]:  # a ring that is not full is saved as far as it is
            theirs["ring's rows"] = (slots[0], *filled[1:])
    for name, shape in ours.items():
        if theirs.get(name) != shape:
            raise UserError(
                f"{folder} is not of this run's sizes: its {name} are {theirs.get(name)}, this run's {shape}; the task "
                "or the algorithm has changed since: give back what it was, or name another run_dir"
            )


def restore_counters(shared: Shared, folder: Path, manifest: dict[str, Any]) -> None:
    """Counters and the replay ring of a checkpoint; the roles restore themselves."""
    shared.vector_steps.fill_(manifest["vector_steps"])
    shared.critic_updates.fill_(manifest["critic_updates"])
    shared.policy_updates.fill_(manifest["policy_updates"])
    shared.invalid.fill_(manifest["invalid"])
    box = shared.weights[P_LEARNER]
    for version in (box.begun, box.version):
        version.fill_(manifest["policy_updates"])  # the P-learner publishes once as it loads
    if checkpoint.holds_ring(manifest):
        shared.learning_starts = manifest["learning_starts"]
        checkpoint.load_into(folder, "replay", shared.ring)
    else:  # warm up again, with the policy at hand: there is nothing yet to sample from
        shared.learning_starts += manifest["vector_steps"]
