"""A training run seen from its outside: what is built, logged, evaluated, saved, and when it ends."""

from __future__ import annotations

import json
import platform
import signal
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from pql import algorithms, checkpoint, evaluation
from pql.config import Config
from pql.errors import UserError
from pql.evaluation import make_env
from pql.learner import seed_of
from pql.metrics import MetricsWriter, Progress
from pql.networks import FlatParameters
from pql.normalizer import Normalizer
from pql.p_learner import PLearner
from pql.replay import Batch, Replay
from pql.runtime.pacing import critic_pacer, policy_pacer, replay_guard
from pql.runtime.shared import Shared
from pql.v_learner import VLearner


def make_shared(cfg: Config, obs_dim: int, action_dim: int) -> Shared:
    """Allocate what the roles share and publish the initial policy and critic, the same for one seed."""
    algorithm = algorithms.make(cfg.algo, obs_dim, action_dim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(cfg.seed, "networks"))
        policy, critic = FlatParameters(algorithm.make_policy()), FlatParameters(algorithm.make_critic())
    rows = cfg.algo.replay_size // cfg.num_envs * cfg.num_envs
    shared = Shared(
        ring=(rows, 2 * obs_dim + action_dim + 3),
        policy_size=len(policy),
        critic_size=len(critic),
        normalizer_size=1 + 2 * obs_dim,
        boards={"v_learner": VLearner.measures, "p_learner": PLearner.measures},
        device=torch.device(cfg.device),
    )
    shared.policy.publish(policy.data)
    shared.critic.publish(critic.data)
    return shared


def make_replay(cfg: Config, obs_dim: int, action_dim: int, shared: Shared) -> Replay:
    """The ring over shared storage, as any role sees it."""
    return Replay(
        cfg.algo.replay_size, cfg.num_envs, obs_dim, action_dim, replay_guard(cfg),
        torch.device(cfg.device), shared.rows, shared.head,
    )  # fmt: skip


def critic_update_flops(cfg: Config, obs_dim: int, action_dim: int) -> int:
    """Floating-point operations of the matrix products in one critic update, counted on the real networks."""
    algorithm = algorithms.make(cfg.algo, obs_dim, action_dim)
    rows = 8  # the count is proportional to the batch
    with torch.random.fork_rng(devices=[]):
        policy, critic, target = algorithm.make_policy(), algorithm.make_critic(), algorithm.make_critic()
        obs, action, ones = torch.randn(rows, obs_dim), torch.zeros(rows, action_dim), torch.ones(rows)
    batch = Batch(obs, action, ones, obs, ones, ones)
    with FlopCounterMode(display=False) as counter:
        algorithm.critic_loss(critic, target, policy, batch, action)[0].backward()
    return counter.get_total_flops() * cfg.algo.batch_size // rows


class Monitor:
    """Watches the shared counters of a run: logs, evaluates, saves, and decides when it ends.

    Args:
        save: called with a function that writes the shared part of a checkpoint; makes the roles stand still
            and write theirs.
        blocking_evaluation: finish an evaluation before anything else happens (one process), or advance it
            little by little through `evaluate_a_little` (several processes).
    """

    def __init__(self, cfg: Config, shared: Shared, env: Any, manifest: dict | None, blocking_evaluation: bool):
        self.cfg, self.shared, self.env = cfg, shared, env
        self.blocking_evaluation = blocking_evaluation
        self.run_dir = Path(cfg.run_dir)
        self.save: Callable[[], None] = lambda: None
        algorithm = algorithms.make(cfg.algo, env.obs_dim, env.action_dim)
        self.policy = algorithm.make_policy().to(env.device).requires_grad_(False)
        self.weights = FlatParameters(self.policy)
        self.normalizer = Normalizer(env.obs_dim, env.device)
        self.critic_parameters = sum(p.numel() for p in algorithm.make_critic().parameters())
        self.flops_per_update = critic_update_flops(cfg, env.obs_dim, env.action_dim)
        self.pacers = critic_pacer(cfg), policy_pacer(cfg)
        self.max_vector_steps = -(-cfg.max_env_steps // cfg.num_envs)
        shared.step_limit.fill_(self.max_vector_steps)
        self.seen = self.env_steps
        self.since = {role: board.sums.clone() for role, board in shared.boards.items()}
        self.waited = dict.fromkeys(shared.waited, 0.0)
        self.earlier_time = 0.0 if manifest is None else manifest["wall_time_s"]
        self.started = self.logged_at = time.monotonic()
        self.set_aside = 0.0  # seconds spent evaluating while nothing else ran
        self.evaluation: Iterator | None = None
        self.last_return: float | None = None
        self.interrupted: str | None = None
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
    def wall_time(self) -> float:
        """Seconds of training, earlier sessions included."""
        return self.earlier_time + time.monotonic() - self.started - self.set_aside

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
        if self._crossed(cfg.eval_interval, now) and self.evaluation is None:
            self.begin_evaluation()
            if self.blocking_evaluation:
                self.finish_evaluation()
        save = self._crossed(cfg.checkpoint_interval, now)
        self.seen = now
        if save:
            self.save()
        if self.interrupted or (cfg.max_time is not None and self.wall_time >= cfg.max_time):
            self.shared.step_limit.fill_(0)
        train = float(self.shared.episodes[0])
        self.progress.show(now, int(self.shared.critic_updates), self.wall_time, train, self.last_return)

    def _crossed(self, interval: int, now: int) -> bool:
        return interval > 0 and now // interval > self.seen // interval

    def finished(self) -> bool:
        """The actor has stopped and the learners have done all that belongs to its steps."""
        s = self.shared
        critic, policy = self.pacers
        steps, updates = int(s.vector_steps), int(s.critic_updates)
        return (
            steps >= int(s.step_limit)
            and updates >= critic.due(steps)
            and int(s.policy_updates) >= policy.due(updates)
        )

    def log(self, keep: bool = False) -> dict[str, Any]:
        """Write one line of metrics; with `keep` the means' interval goes on as if there had been none."""
        s, now = self.shared, time.monotonic()
        updates = int(s.critic_updates)
        mean_return, mean_length, count = s.episodes.tolist()
        line: dict[str, Any] = {
            "env_steps": self.env_steps,
            "wall_time_s": round(self.wall_time, 3),
            "critic_updates": updates,
            "policy_updates": int(s.policy_updates),
            "utd": updates / max(1, self.env_steps),
            "critic_flops": updates * self.flops_per_update,
            "train_return": mean_return,
            "train_length": mean_length,
            "train_episodes": int(count) if count == count else 0,
            "invalid_transitions": int(s.invalid),
        }
        for role, board in s.boards.items():
            line.update(board.means(self.since[role]))
            if not keep:
                self.since[role] = board.sums.clone()
        for role, waited in s.waited.items():
            line[f"wait_{role}"] = round((float(waited) - self.waited[role]) / max(1e-9, now - self.logged_at), 4)
            if not keep:
                self.waited[role] = float(waited)
        if not keep:
            self.logged_at = now
        self.writer.write(line)
        return line

    # --- evaluation -----------------------------------------------------------------------------------------

    def begin_evaluation(self) -> None:
        """Take the newest policy; its episodes are played by `evaluate_a_little` or `finish_evaluation`."""
        self.shared.policy.receive(self.weights.data, seen=0)
        self.shared.normalizer.receive(self.normalizer.state, seen=0)
        self.normalizer.refresh()
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

    def finish_evaluation(self) -> None:
        began = time.monotonic()
        while self.evaluation is not None:
            self._advance()
        if self.blocking_evaluation:
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
            "wall_time_s": self.wall_time,
        }
        checkpoint.finish(folder, self.env_steps, facts)

    def restore_shared(self, folder: Path) -> None:
        """After `restore_counters`: the readings that a log line's means are taken from."""
        readings = checkpoint.load_tensors(folder, "boards")
        for role, board in self.shared.boards.items():
            board.sums.copy_(readings[f"sums.{role}"])
            self.since[role] = readings[f"since.{role}"]
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
    shared.policy.version.fill_(manifest["policy_updates"])  # the P-learner publishes once as it loads
    if "replay.safetensors" in manifest["files"]:
        ring = checkpoint.load_tensors(folder, "replay")
        shared.rows[: len(ring["rows"])] = ring["rows"].to(shared.rows.device)
        shared.head.copy_(ring["head"])


class Interrupt:
    """SIGINT, SIGTERM and SIGUSR2 ask a run to end with a checkpoint; a second SIGINT ends it at once."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)

    def __init__(self, monitor: Monitor):
        self.monitor = monitor

    def __enter__(self) -> Interrupt:
        self.before = {number: signal.signal(number, self._handle) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: Any) -> None:
        if self.monitor.interrupted and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.monitor.interrupted = signal.Signals(number).name


def train(cfg: Config) -> dict[str, Any]:
    """Train as configured; returns the summary. Raises UserError, or RoleFailed if a process died."""
    from pql.runtime import parallel, sync
    from pql.video import record

    run_dir = Path(cfg.run_dir)
    summary_path = run_dir / "summary.json"
    checkpointed = checkpoint.newest(run_dir) if cfg.resume else None
    folder, manifest = checkpointed or (None, None)
    if manifest is not None and summary_path.exists():
        done = json.loads(summary_path.read_text())
        longer = cfg.max_env_steps > done["env_steps"] and (cfg.max_time or 1e99) > done["wall_time_s"]
        if done["status"] == "completed" and not longer:
            print(f"{run_dir} is complete: {done['env_steps']} env steps, return {done.get('eval_return')}")
            return done
    if manifest is not None and "replay.safetensors" not in manifest["files"]:
        print("note: the checkpoint holds no replay ring; learning goes on with an empty one")
    env = make_env(cfg, cfg.eval_episodes, seed_of(cfg.seed, "evaluation") % 2**31)
    shared = make_shared(cfg, env.obs_dim, env.action_dim)
    from pql import config

    config.save(cfg, run_dir / "config.yaml")
    if manifest is None and (run_dir / "metrics.jsonl").exists():
        (run_dir / "metrics.jsonl").unlink()  # of a start that reached no checkpoint
    summary_path.unlink(missing_ok=True)
    if folder is not None:
        restore_counters(shared, folder, manifest)
    monitor = Monitor(cfg, shared, env, manifest, blocking_evaluation=cfg.runtime == "sync")
    if folder is not None:
        monitor.restore_shared(folder)
        monitor.progress.message(f"resuming {run_dir} at {monitor.env_steps} env steps")
    try:
        with Interrupt(monitor):
            runtime = sync if cfg.runtime == "sync" else parallel
            runtime.run(cfg, monitor, folder)
            if monitor.interrupted:
                monitor.progress.message(
                    f"stopped by {monitor.interrupted} with a checkpoint; continue with resume=true run_dir={run_dir}"
                )
                return monitor.summary("interrupted", reason=monitor.interrupted)
            monitor.log(keep=True)
            monitor.begin_evaluation()
            monitor.finish_evaluation()
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
        env.close()
