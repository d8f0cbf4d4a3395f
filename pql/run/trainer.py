"""A training run seen from its outside: what is built, logged, evaluated, saved, and when it ends."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import platform
import shutil
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator

import torch

from pql import algorithms
from pql.algorithms.flops import critic_update_flops
from pql.algorithms.networks import FlatParameters
from pql.config import Config
from pql.errors import RoleFailed, UserError
from pql.memory.pacing import critic_pacer, policy_pacer, replay_guard
from pql.memory.replay import Replay, row_dim
from pql.memory.shared import Shared
from pql.roles.learner import seed_of
from pql.roles.normalizer import Normalizer
from pql.roles.p_learner import PLearner
from pql.roles.v_learner import VLearner
from pql.run import evaluation
from pql.run.evaluation import make_env
from pql.run.metrics import MetricsWriter, Progress
from pql.runtime import checkpoint
from pql.runtime.worker import SIGNALS


def make_shared(cfg: Config, obs_dim: int, action_dim: int, critic_obs_dim: int = 0) -> Shared:
    """Allocate what the roles share and publish the initial policy and critic, the same for one seed."""
    algorithm = algorithms.make(cfg.algo, obs_dim, action_dim, critic_obs_dim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(cfg.seed, "networks"))
        policy, critic = FlatParameters(algorithm.make_policy()), FlatParameters(algorithm.make_critic())
    rows = cfg.algo.replay_size // cfg.num_envs * cfg.num_envs
    shared = Shared(
        ring=(rows, row_dim(obs_dim, action_dim, critic_obs_dim)),
        policy_size=len(policy),
        critic_size=len(critic),
        normalizer_size=1 + 2 * (obs_dim + critic_obs_dim),
        boards={"v_learner": VLearner.measures, "p_learner": PLearner.measures},
        device=torch.device(cfg.device),
    )
    shared.learning_starts = cfg.algo.warmup_steps
    shared.policy.publish(policy.data)
    shared.average.publish(policy.data)
    shared.critic.publish(critic.data)
    return shared


def make_replay(cfg: Config, obs_dim: int, action_dim: int, shared: Shared, critic_obs_dim: int = 0) -> Replay:
    """The ring over shared storage, as any role sees it."""
    return Replay(
        cfg.algo.replay_size, cfg.num_envs, obs_dim, action_dim, replay_guard(cfg),
        torch.device(cfg.device), shared.rows, shared.head, critic_obs_dim,
    )  # fmt: skip


class Monitor:
    """Watches the shared counters of a run: logs, evaluates, saves, and decides when it ends.

    Args:
        save: called with a function that writes the shared part of a checkpoint; makes the roles stand still
            and write theirs.
        blocking_evaluation: finish an evaluation before anything else happens (one process), or advance it
            little by little through `evaluate_a_little` (several processes).
        interrupt: says whether a signal asked the run to end.
    """

    def __init__(
        self,
        cfg: Config,
        shared: Shared,
        env: Any,
        manifest: dict | None,
        blocking_evaluation: bool,
        interrupt: Interrupt | None = None,
    ):
        self.cfg, self.shared, self.env = cfg, shared, env
        self.in_background = not blocking_evaluation
        self.run_dir = Path(cfg.run_dir)
        self.save: Callable[[], None] = lambda: None
        algorithm = algorithms.make(cfg.algo, env.obs_dim, env.action_dim, env.critic_obs_dim)
        self.policy = algorithm.make_policy().to(env.device).requires_grad_(False)
        self.weights = FlatParameters(self.policy)
        self.normalizer = Normalizer(env.obs_dim + env.critic_obs_dim, env.device)
        self.critic_parameters = sum(p.numel() for p in algorithm.make_critic().parameters())
        self.flops_per_update = critic_update_flops(cfg, env.obs_dim, env.action_dim, env.critic_obs_dim)
        self.pacers = critic_pacer(cfg, shared.learning_starts), policy_pacer(cfg)
        self.max_vector_steps = -(-cfg.max_env_steps // cfg.num_envs)
        shared.step_limit.fill_(self.max_vector_steps)
        self.seen = 0 if manifest is None else manifest["seen"]  # env steps at the last tick
        self.logged = self.evaluated_at = (-1, -1, -1)  # counters at the last line and the last evaluation
        self.since = {role: board.sums.clone() for role, board in shared.boards.items()}
        self.waited = dict.fromkeys(shared.waited, 0.0)
        self.earlier_time = 0.0 if manifest is None else manifest["wall_time_s"]
        self.started = self.logged_at = time.monotonic()
        self.ended: float | None = None
        self.set_aside = 0.0  # seconds spent evaluating while nothing else ran
        self.evaluation: Iterator | None = None
        self.last_return: float | None = None
        self.interrupt = interrupt
        try:
            self.first_state = env.state_dict()
        except NotImplementedError:
            self.first_state = None
        self.writer = MetricsWriter(self.run_dir, cfg, cfg.wandb, None if manifest is None else self.env_steps)
        self.progress = Progress(cfg.max_env_steps, cfg.max_time)

    @property
    def env_steps(self) -> int:
        return int(self.shared.vector_steps) * self.cfg.num_envs

    @property
    def interrupted(self) -> str | None:
        """The signal that asked this run to end, if one did."""
        return self.interrupt.name if self.interrupt else None

    @property
    def counters(self) -> tuple[int, int, int]:
        s = self.shared
        return int(s.vector_steps), int(s.critic_updates), int(s.policy_updates)

    @property
    def wall_time(self) -> float:
        """Seconds of training, earlier sessions included."""
        now = time.monotonic() if self.ended is None else self.ended
        return self.earlier_time + now - self.started - self.set_aside

    def start_clock(self) -> None:
        """Training begins now: what came before was setting up."""
        self.started = self.logged_at = time.monotonic()
        for role, waited in self.shared.waited.items():
            self.waited[role] = float(waited)

    def tick(self) -> None:
        """Do what has come due."""
        cfg, now = self.cfg, self.env_steps
        if self._crossed(cfg.log_interval, now):
            self.log()
        last = now >= int(self.shared.step_limit) * cfg.num_envs  # then an evaluation and a checkpoint come anyway
        if self._crossed(cfg.eval_interval, now) and self.evaluation is None and not (last and self.in_background):
            self.begin_evaluation()
            if not self.in_background:
                self.finish_evaluation(even_if_interrupted=True)  # a resumed run would not repeat it
        save = self._crossed(cfg.checkpoint_interval, now) and not last
        self.seen = now
        if save:
            self.save()
        if cfg.max_time is not None and self.wall_time >= cfg.max_time:
            self.shared.step_limit.fill_(0)
        train = float(self.shared.episodes[0])
        self.progress.show(now, int(self.shared.critic_updates), self.wall_time, train, self.last_return)

    def _crossed(self, interval: int, now: int) -> bool:
        return interval > 0 and now // interval > self.seen // interval

    def finished(self) -> bool:
        """The actor has stopped and the learners have done all that belongs to its steps."""
        stopped = int(self.shared.vector_steps) >= int(self.shared.step_limit)
        return stopped and not self.critic_update_due() and not self.policy_update_due()

    def critic_update_due(self) -> bool:
        steps, updates, _ = self.counters
        return self.pacers[0].follower_may_step(steps, updates)

    def policy_update_due(self) -> bool:
        steps, updates, policy_updates = self.counters
        return steps >= self.shared.learning_starts and self.pacers[1].follower_may_step(updates, policy_updates)

    def log(self, keep: bool = False) -> dict[str, Any]:
        """Write one line of metrics; with `keep` the means' interval goes on as if there had been none."""
        s, now = self.shared, time.monotonic()
        env_steps, updates = self.env_steps, int(s.critic_updates)  # read once: they move while others run
        mean_return, mean_length, count = s.episodes.tolist()
        line: dict[str, Any] = {
            "env_steps": env_steps,
            "wall_time_s": round(self.wall_time, 3),
            "critic_updates": updates,
            "policy_updates": int(s.policy_updates),
            "utd": updates / max(1, env_steps),
            "critic_flops": updates * self.flops_per_update,
            "train_return": mean_return,
            "train_length": mean_length,
            "train_episodes": int(count) if count == count else 0,
            "invalid_transitions": int(s.invalid),
            "contact_overflows": int(s.contact_overflows),
        }
        for role, board in s.boards.items():
            means = board.means(self.since[role])
            spoiled = [name for name, value in means.items() if not math.isfinite(value)]
            if spoiled:  # before a checkpoint of it can take a good one's place
                raise RoleFailed(
                    f"the {role} diverged: {spoiled[0]} is no finite number after {updates} critic updates; "
                    "lower algo.critic_lr, algo.actor_lr or algo.reward_scale"
                )
            line.update(means)
            if not keep:
                self.since[role] = board.sums.clone()
        for role, waited in s.waited.items():
            line[f"wait_{role}"] = round((float(waited) - self.waited[role]) / max(1e-9, now - self.logged_at), 4)
            if not keep:
                self.waited[role] = float(waited)
        if not keep:
            self.logged_at = now
        self.logged = self.counters
        self.writer.write(line)
        return line

    # --- evaluation -----------------------------------------------------------------------------------------

    def begin_evaluation(self) -> None:
        """Take the averaged policy; its episodes are played by `evaluate_a_little` or `finish_evaluation`."""
        self.shared.average.read(self.weights.data)
        self.shared.normalizer.read(self.normalizer.state)
        self.normalizer.refresh()
        self.evaluated_at = self.counters
        self.evaluated = {"env_steps": self.env_steps, "wall_time_s": round(self.wall_time, 3)}
        self.evaluated["critic_updates"] = int(self.shared.critic_updates)
        act = lambda obs: self.policy(self.normalizer(obs))  # noqa: E731
        self.evaluation = evaluation.episodes(self.env, act, self.first_state)
        self.result: evaluation.Result | None = None

    def evaluate_a_little(self, seconds: float) -> None:
        """Advance a running evaluation for about this long."""
        end = time.monotonic() + seconds
        while self.evaluation is not None and time.monotonic() < end:
            self._advance()

    def finish_evaluation(self, even_if_interrupted: bool = False) -> None:
        """Advance a running evaluation to its end, while nothing else runs: this time is not training's."""
        began = time.monotonic()
        while self.evaluation is not None and (even_if_interrupted or not self.interrupted):
            self._advance()
        self.set_aside += time.monotonic() - began

    def _advance(self) -> None:
        try:
            self.result = next(self.evaluation)
        except StopIteration:
            self.evaluation = None
            returns = self.result.returns
            self.last_return = float(returns.mean())
            self.writer.write(
                {
                    **self.evaluated,
                    "eval_return": self.last_return,
                    "eval_return_std": float(returns.std()),
                    "eval_length": float(self.result.lengths.mean()),
                    "eval_episodes": len(returns),
                }
            )

    def conclude(self) -> None:
        """The closing line and the evaluation of the final policy, unless the last tick has written just these."""
        if self.logged != self.counters:
            self.log(keep=True)
        self.finish_evaluation()  # one that began on the way
        if self.evaluated_at != self.counters and not self.interrupted:
            self.begin_evaluation()
            self.finish_evaluation()
        self.ended = time.monotonic()  # what is played and filmed after this is no training

    # --- checkpoints and the end ----------------------------------------------------------------------------

    def save_shared(self, folder: Path) -> None:
        """The part of a checkpoint that belongs to no role, and the manifest. The roles must stand still."""
        s = self.shared
        if self.cfg.checkpoint_replay:
            filled = min(int(s.head), s.rows.shape[0])
            checkpoint.save_tensors(folder, "replay", {"rows": s.rows[:filled], "head": s.head})
        readings = {f"sums.{role}": board.sums for role, board in s.boards.items()}
        readings.update({f"since.{role}": since for role, since in self.since.items()})
        checkpoint.save_tensors(folder, "boards", {**readings, "episodes": s.episodes})
        facts = {
            "task": self.cfg.task.name,
            "vector_steps": int(s.vector_steps),
            "critic_updates": int(s.critic_updates),
            "policy_updates": int(s.policy_updates),
            "invalid": int(s.invalid),
            "learning_starts": s.learning_starts,
            "seen": self.seen,
            "wall_time_s": self.wall_time,
        }
        checkpoint.finish(folder, self.env_steps, facts)

    def restore_shared(self, folder: Path) -> None:
        """After `restore_counters`: the readings that a log line's means are taken from."""
        readings = checkpoint.load_tensors(folder, "boards")
        for role, board in self.shared.boards.items():
            board.sums.copy_(readings[f"sums.{role}"])
            self.since[role] = readings[f"since.{role}"].to(board.sums.device)
        self.shared.episodes.copy_(readings["episodes"])

    def summary(self, status: str, **more: Any) -> dict[str, Any]:
        """Write summary.json, atomically and last: with status "completed" it marks the run as done."""
        s, cfg = self.shared, self.cfg
        updates = int(s.critic_updates)
        values = {
            "status": status,
            "task": cfg.task.name,
            "algo": cfg.algo.name,
            "seed": cfg.seed,
            "env_steps": self.env_steps,
            "wall_time_s": round(self.wall_time, 3),
            "critic_updates": updates,
            "policy_updates": int(s.policy_updates),
            "utd": updates / max(1, self.env_steps),
            "utd_requested": cfg.algo.utd,
            "critic_flops": updates * self.flops_per_update,
            "critic_flops_per_update": self.flops_per_update,
            "critic_parameters": self.critic_parameters,
            "invalid_transitions": int(s.invalid),
            "contact_overflows": int(s.contact_overflows),
            "device": cfg.device,
            "torch": torch.__version__,
            "python": platform.python_version(),
            **more,
        }
        checkpoint.write_atomically(self.run_dir / "summary.json", json.dumps(values, indent=1))
        return values


def restore_counters(shared: Shared, folder: Path, manifest: dict[str, Any]) -> None:
    """Counters and the replay ring of a checkpoint; the roles restore themselves."""
    shared.vector_steps.fill_(manifest["vector_steps"])
    shared.critic_updates.fill_(manifest["critic_updates"])
    shared.policy_updates.fill_(manifest["policy_updates"])
    shared.invalid.fill_(manifest["invalid"])
    for version in (shared.policy.begun, shared.policy.version):
        version.fill_(manifest["policy_updates"])  # the P-learner publishes once as it loads
    if "replay.safetensors" in manifest["files"]:
        shared.learning_starts = manifest["learning_starts"]
        ring = checkpoint.load_tensors(folder, "replay")
        shared.rows[: len(ring["rows"])] = ring["rows"].to(shared.rows.device)
        shared.head.copy_(ring["head"])
    else:  # warm up again, with the policy at hand: there is nothing yet to sample from
        shared.learning_starts += manifest["vector_steps"]


class Interrupt:
    """SIGINT, SIGTERM and SIGUSR2 ask a run to end with a checkpoint; a second SIGINT ends it at once."""

    def __init__(self) -> None:
        self.name: str | None = None

    def __enter__(self) -> Interrupt:
        self.before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: Any) -> None:
        if self.name and number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a third must not disturb the tidying up
            raise KeyboardInterrupt
        self.name = self.name or signal.Signals(number).name


def train(cfg: Config) -> dict[str, Any]:
    """Train as configured; returns the summary. Raises UserError, or RoleFailed if a process died."""
    run_dir = Path(cfg.run_dir)
    summary_path = run_dir / "summary.json"
    done = json.loads(summary_path.read_text()) if cfg.resume and summary_path.exists() else {}
    completed = done.get("status") == "completed"
    if completed:
        longer = cfg.max_env_steps > done["env_steps"] and (cfg.max_time or math.inf) > done["wall_time_s"]
        if not longer:
            print(f"{run_dir} is complete: {done['env_steps']} env steps, return {done.get('eval_return')}")
            return done
    with Interrupt() as interrupt:
        env = make_env(cfg, cfg.eval_episodes, seed_of(cfg.seed, "evaluation") % 2**31)
        try:
            with _owned(run_dir):
                checkpointed = _checkpoint(cfg, run_dir, completed)
                return _train(cfg, env, interrupt, run_dir, *checkpointed)
        finally:
            env.close()


@contextmanager
def _owned(run_dir: Path) -> Iterator[None]:
    """Hold the run's folder for this process alone. Raises UserError where another trains in it, or none can."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if not os.access(run_dir, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "permission denied")
        handle = os.open(run_dir, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"run_dir={run_dir} cannot be written ({error.strerror}): name another folder") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"run_dir={run_dir} is in use: another process trains in it") from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


def _checkpoint(cfg: Config, run_dir: Path, completed: bool) -> tuple[Path | None, dict[str, Any] | None]:
    """Where to go on from, and its manifest; None where a run begins. Raises UserError rather than lose a run."""
    if not cfg.resume:
        return None, None
    newest = checkpoint.newest(run_dir, warn=lambda text: print(text, file=sys.stderr))
    if newest is None and checkpoint.found(run_dir):
        raise UserError(
            f"run_dir={run_dir}: all of its checkpoints are damaged, so it cannot be resumed; "
            "start again in another folder"
        )
    if newest is None and completed:
        raise UserError(f"run_dir={run_dir} is complete and its checkpoints are gone, so it cannot be continued")
    return newest or (None, None)


def _train(
    cfg: Config, env: Any, interrupt: Interrupt, run_dir: Path, folder: Path | None, manifest: dict[str, Any] | None
) -> dict[str, Any]:
    from pql import config
    from pql.run.video import record
    from pql.runtime import parallel, sync

    if manifest is not None and "replay.safetensors" not in manifest["files"]:
        print("note: the checkpoint holds no replay ring; the run warms up again, then learning goes on")
    shared = make_shared(cfg, env.obs_dim, env.action_dim, env.critic_obs_dim)
    config.save(cfg, run_dir / "config.yaml")
    if manifest is None:  # what a start that reached no checkpoint has left
        (run_dir / "metrics.jsonl").unlink(missing_ok=True)
        shutil.rmtree(run_dir / "tensorboard", ignore_errors=True)
    (run_dir / "summary.json").unlink(missing_ok=True)
    if folder is not None:
        restore_counters(shared, folder, manifest)
    monitor = Monitor(cfg, shared, env, manifest, cfg.runtime == "sync", interrupt)
    if folder is not None:
        monitor.restore_shared(folder)
        monitor.progress.message(f"resuming {run_dir} at {monitor.env_steps} env steps")
    try:
        runtime = sync if cfg.runtime == "sync" else parallel
        runtime.run(cfg, monitor, folder)
        if not monitor.interrupted:
            monitor.conclude()
        if monitor.interrupted:
            monitor.progress.message(
                f"stopped by {monitor.interrupted} with a checkpoint; continue with resume=true run_dir={run_dir}"
            )
            return monitor.summary("interrupted", reason=monitor.interrupted)
        more = {"eval_return": monitor.last_return}
        random = evaluation.play(env, evaluation.random_policy(env, cfg.seed))
        more["random_return"] = float(random.returns.mean())
        low, high = evaluation.bootstrap_interval(monitor.result.returns)
        more["eval_return_interval"] = [low, high]
        if cfg.video:
            more["video"] = record(cfg, run_dir / "video.mp4", warn=monitor.progress.message)
        return monitor.summary("completed", **more)
    except (KeyboardInterrupt, Exception) as error:
        if not isinstance(error, UserError):
            monitor.summary("failed", reason=f"{type(error).__name__}: {error}".splitlines()[0])
        raise
    finally:
        monitor.writer.close()
