"""A training run seen from its outside: what is logged, evaluated, saved, and when it ends."""

from __future__ import annotations

import json
import math
import platform
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

import torch

from pql.algorithms.base import P_LEARNER, V_LEARNER
from pql.config.schema import Config
from pql.errors import RoleFailed
from pql.files import write_atomically
from pql.memory.pacing import critic_pacer, policy_pacer
from pql.memory.replay import ring_state
from pql.roles.build import Parts
from pql.roles.flat import Flat
from pql.roles.normalizer import Normalizer
from pql.roles.p_learner import DEPLOYED
from pql.run import clock, directory, evaluation
from pql.run.interrupt import Interrupt
from pql.run.metrics import MetricsWriter, Progress
from pql.run.notes import Notes
from pql.run.readings import Readings
from pql.runtime import checkpoint, profile


class Monitor:
    """Watches the shared counters of a run: logs, evaluates, saves, and decides when it ends.

    Args:
        save: called with a function that writes the shared part of a checkpoint; makes the roles stand still
            and write theirs.
        blocking_evaluation: finish an evaluation before anything else happens (one process), or advance it
            little by little through `evaluate_a_little` (several processes).
        interrupt: says whether a signal asked the run to end.
    """

    axis = "env_steps"  # the count by which a line, a checkpoint, an evaluation is placed

    def __init__(
        self,
        cfg: Config,
        parts: Parts,
        env: Any,
        manifest: dict | None,
        blocking_evaluation: bool,
        interrupt: Interrupt | None = None,
    ):
        algorithm, survey, shared = parts
        self.cfg, self.algorithm, self.survey, self.shared, self.env = cfg, algorithm, survey, shared, env
        self.in_background = not blocking_evaluation
        self.run_dir = Path(cfg.run_dir)
        self.save: Callable[[], None] = lambda: None
        (deployed,) = (group for group in algorithm.groups() if group.name == DEPLOYED)
        self.weights = Flat({DEPLOYED: deployed.make()}, env.device).fixed()
        self.policy = self.weights.modules[DEPLOYED]
        self.normalizer = Normalizer(env.spaces.seen_dim, env.device)
        self.flops_per_update = survey.flops[V_LEARNER]
        self.pacers = critic_pacer(cfg, shared.learning_starts), policy_pacer(cfg)
        self.max_vector_steps = -(-cfg.max_env_steps // cfg.num_envs)
        shared.step_limit.fill_(self.max_vector_steps)
        self.seen = 0 if manifest is None else manifest["seen"]  # clock at the last tick
        self.logged = self.evaluated_at = (-1, -1, -1)  # counters at the last line and the last evaluation
        self.readings = Readings(shared)
        self.earlier_time = 0.0 if manifest is None else manifest["wall_time_s"]
        self.started = time.monotonic()
        self.ended: float | None = None
        self.set_aside = 0.0  # seconds spent evaluating while nothing else ran
        self.evaluation: Iterator | None = None
        self.last_return: float | None = None
        self.interrupt = interrupt
        self.side_by_side = 1  # runs in this process, whose time `wall_time` is
        self.pace_alone: Sequence[float] | None = None  # seconds of a step and of either update, where that was timed
        _, best = (manifest and checkpoint.best(self.run_dir)) or (None, None)
        known = best is not None and best[self.axis] <= manifest[self.axis]  # else this run never got there
        self.best = (best["eval_return"], best["env_steps"]) if known else (-math.inf, 0)
        self.took: float | None = None  # seconds of the last evaluation
        try:
            self.first_state = env.state_dict()
        except NotImplementedError:
            self.first_state = None
        self.manifest, self.began_at = manifest, self.counters
        self.writer: MetricsWriter | None = None
        self.progress = self.make_progress()
        self.notes = Notes(cfg, self.progress.message)

    @property
    def env_steps(self) -> int:
        return int(self.shared.vector_steps) * self.cfg.num_envs

    @property
    def clock(self) -> int:
        """What intervals and the numbers of checkpoints count."""
        return self.env_steps

    def make_progress(self) -> Progress:
        return Progress(self.cfg.max_env_steps, self.cfg.max_time)

    @property
    def interrupted(self) -> str | None:
        """The signal that asked this run to end, if one did."""
        return self.interrupt.name if self.interrupt else None

    @property
    def counters(self) -> tuple[int, int, int]:
        s = self.shared
        return int(s.vector_steps), int(s.critic_updates), int(s.policy_updates)

    @property
    def moved(self) -> bool:
        """Whether there is anything new: a run that is resumed leaves all that it finds alone until then."""
        return self.manifest is None or self.counters != self.began_at

    @property
    def wall_time(self) -> float:
        """Seconds of training, earlier sessions included."""
        now = time.monotonic() if self.ended is None else self.ended
        return self.earlier_time + now - self.started - self.set_aside

    def start_clock(self) -> None:
        """Training begins now: what came before was setting up."""
        self.started = time.monotonic()
        self.readings.start_clock()

    def stop_clock(self) -> None:
        """Training is over: what comes now is saving, the processes' end, the final evaluation, a video."""
        if self.ended is None:
            self.ended = time.monotonic()
            self.waited_in_all = {role: float(waited) for role, waited in self.shared.waited.items()}

    def begin(self) -> None:
        """Make the folder this run's; once."""
        if self.writer is None:
            cfg, since = self.cfg, self.manifest and self.manifest[self.axis]
            directory.begin(self.run_dir, cfg, self.manifest)
            seen = [name for gauges in self.shared.gauges.values() for name in gauges.names]
            self.writer = MetricsWriter(self.run_dir, cfg, cfg.wandb, since, self.progress.message, seen, self.axis)
            (self.run_dir / "summary.json").unlink(missing_ok=True)

    def tick(self) -> None:
        """Do what has come due."""
        if not self.moved:
            return
        self.begin()
        self.log_if_due()
        if self.evaluation_due():
            self.begin_evaluation()
            if not self.in_background:
                self.finish_evaluation(even_if_interrupted=True)  # a resumed run would not repeat it
        self.go_on()

    def log_if_due(self) -> None:
        if self._crossed(self.cfg.log_interval, self.clock):
            self.log()

    def evaluation_due(self) -> bool:
        due = self._crossed(self.cfg.eval_interval, self.clock) and not (self._last() and self.in_background)
        return due and self.evaluation is None

    def _last(self) -> bool:
        """Whether there is no step after this: then an evaluation and a checkpoint come anyway."""
        return self.env_steps >= int(self.shared.step_limit) * self.cfg.num_envs

    def go_on(self) -> None:
        """What else comes with a tick, after log and evaluation: a checkpoint, the time limit, the progress line."""
        cfg, now = self.cfg, self.clock
        save = self._crossed(cfg.checkpoint_interval, now) and not self._last()
        self.seen = now
        if save:
            try:
                self.save()
            except OSError as error:
                self.progress.message(
                    f"warning: no checkpoint at {now} {self.axis} ({error.strerror}): training goes on, the ones "
                    "before stay, and it is tried again at the next interval"
                )
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
        s, now = self.shared, time.monotonic() if self.ended is None else self.ended
        env_steps, updates = self.env_steps, int(s.critic_updates)  # read once: they move while others run
        mean_return, mean_length, count = s.episodes.tolist()
        line: dict[str, Any] = {
            "env_steps": env_steps,
            **clock.times(self),
            "critic_updates": updates,
            "policy_updates": int(s.policy_updates),
            "utd": updates / max(1, env_steps),
            "critic_flops": updates * self.flops_per_update,
            "train_return": mean_return,
            "train_length": mean_length,
            "train_episodes": int(count) if count == count else 0,
            "invalid_transitions": int(s.invalid),
            "diverged_episodes": int(s.diverged),
            "contact_overflows": int(s.contact_overflows),
        }
        self.notes.look_at_diverged(line["diverged_episodes"], env_steps)
        waited = s.waited if self.ended is None else self.waited_in_all
        line.update(self.readings.take(updates, now, waited, keep))
        self.notes.look_at_support(line.get("mass_at_ends", 0.0))
        self.logged = self.counters
        line.update(self.told())
        self.writer.write(line)
        return line

    def told(self) -> dict[str, Any]:
        """What else a line and the summary say."""
        return {}

    # --- evaluation -----------------------------------------------------------------------------------------

    def begin_evaluation(self) -> None:
        """Take the averaged policy; its episodes are played by `evaluate_a_little` or `finish_evaluation`."""
        self.shared.average.read(self.weights.data)
        self.shared.normalizer.read(self.normalizer.state)
        self.normalizer.refresh()
        self.evaluated_at = self.counters
        self.evaluated = {"env_steps": self.env_steps, **clock.times(self)}
        self.evaluated["critic_updates"] = int(self.shared.critic_updates)
        act = lambda obs: self.algorithm.act(self.policy, self.normalizer(obs))  # noqa: E731
        self.evaluation = evaluation.episodes(self.env, act, self.first_state, self.cfg.sim.metrics)
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
        took = time.monotonic() - began
        if not self.in_background:
            self.took = took
        if self.ended is None:
            self.set_aside += took

    def _advance(self) -> None:
        result = next(self.evaluation, None)
        if result is not None:
            self.result = result
            return
        self.record_evaluation(self.result)

    def record_evaluation(self, result: evaluation.Result) -> None:
        """The evaluation that was begun has ended so."""
        self.evaluation, self.result, returns = None, result, result.returns
        if not len(returns):
            raise RoleFailed(
                f"all {result.diverged} episodes of the evaluation at {self.evaluated['env_steps']} env steps "
                "diverged (NaN or infinity), so there is no return to tell: mend the task"
            )
        self.last_return, metrics = float(returns.mean()), evaluation.metrics_report(result)
        self.writer.write(
            {
                **self.evaluated,
                **self.told(),
                "eval_return": self.last_return,
                "eval_return_std": float(returns.std()),
                "eval_length": float(result.lengths.mean()),
                "eval_episodes": len(returns),
                "eval_diverged": result.diverged,
                **{f"eval/{name}": told["mean"] for name, told in metrics.items() if told["episodes"]},
            }
        )
        if self.last_return > self.best[0]:
            self._keep_best()

    def _keep_best(self) -> None:
        """The evaluated policy beside the newest checkpoints: one that is good may be lost by what it learns later."""
        self.best = self.last_return, self.evaluated["env_steps"]
        facts = {"task": self.cfg.task.name, "critic_updates": self.evaluated["critic_updates"]}
        facts["eval_return"] = self.last_return
        policy = {P_LEARNER: {"average": self.weights.data}, "actor": {"normalizer": self.normalizer.state}}
        try:
            checkpoint.keep_best(self.run_dir, self.evaluated["env_steps"], facts, policy)
        except OSError as error:
            self.progress.message(f"warning: the best policy so far could not be written ({error.strerror})")

    def log_last(self) -> None:
        if self.logged != self.counters:
            self.log(keep=True)

    def conclude(self) -> None:
        """The closing line and the evaluation of the final policy, unless the last tick has written just these."""
        self.begin()
        self.log_last()
        self.finish_evaluation()  # one that began on the way
        if self.evaluated_at != self.counters and not self.interrupted:
            took = f", about {self.took:.0f} s as the last one took" if self.took else ""
            count = evaluation.episodes_text(self.cfg.eval_episodes)
            self.progress.message(f"evaluating the final policy: {count}{took}")
            self.begin_evaluation()
            self.finish_evaluation()

    def show_profile(self, traces: list[dict[str, Any]]) -> None:
        """trace.json, and the table of the roles' time."""
        told = f"the trace: {self.run_dir / profile.FILE} (ui.perfetto.dev)"
        try:
            profile.write(self.run_dir, traces)
        except OSError as error:
            told = f"warning: {profile.FILE} could not be written ({error.strerror})"
        self.progress.message(f"\n{profile.table(traces)}\n{told}")

    # --- checkpoints and the end ----------------------------------------------------------------------------

    def save_shared(self, folder: Path) -> None:
        """The part of a checkpoint that belongs to no role, and the manifest. The roles must stand still."""
        self.begin()
        s = self.shared
        if self.cfg.checkpoint_replay:
            checkpoint.save_tensors(folder, "replay", ring_state(s.ring))
        readings = {**self.readings.state_dict(), "episodes": s.episodes}
        checkpoint.save_tensors(folder, "boards", {**readings, **{f"conflicts.{k}": v for k, v in s.conflicts.items()}})
        facts = {
            "task": self.cfg.task.name,
            "env_steps": self.env_steps,
            "vector_steps": int(s.vector_steps),
            "critic_updates": int(s.critic_updates),
            "policy_updates": int(s.policy_updates),
            "invalid": int(s.invalid),
            "learning_starts": s.learning_starts,
            "seen": self.seen,
            "wall_time_s": self.wall_time,
            **clock.alone(self),
        }
        checkpoint.finish(folder, self.clock, facts)

    def restore_shared(self, folder: Path) -> None:
        """After `restore_counters`: the readings that a log line's means are taken from."""
        state = checkpoint.load_tensors(folder, "boards")
        self.readings.load_state_dict(state)
        self.shared.episodes.copy_(state["episodes"])
        for role, count in self.shared.conflicts.items():
            count.copy_(state.get(f"conflicts.{role}", count))

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
            **clock.times(self),
            "critic_updates": updates,
            "policy_updates": int(s.policy_updates),
            "utd": updates / max(1, self.env_steps),
            "utd_requested": cfg.algo.utd,
            "critic_flops": updates * self.flops_per_update,
            "critic_flops_per_update": self.flops_per_update,
            "critic_parameters": self.survey.parameters["critic"],
            "agent_parameters": self.survey.agent_parameters,
            "invalid_transitions": int(s.invalid),
            "diverged_episodes": int(s.diverged),
            "contact_overflows": int(s.contact_overflows),
            "device": cfg.device,
            "torch": torch.__version__,
            "runs_side_by_side": self.side_by_side,
            "python": platform.python_version(),
            **self.told(),
            **more,
        }
        values = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}  # JSON
        write_atomically(self.run_dir / "summary.json", json.dumps(values, indent=1))
        return values
