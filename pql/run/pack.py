"""Train several runs side by side: configurations in, a run directory each out, as if each had been trained alone."""

from __future__ import annotations

import contextlib
import time
import warnings
from pathlib import Path
from typing import Any, Callable, Sequence

import torch
from torch import Tensor

from pql.config import Config, make_env
from pql.config.together import differing_numbers, why_not_together
from pql.errors import RoleFailed
from pql.roles.build import prepare
from pql.roles.fused import network
from pql.roles.recorded import Recorded
from pql.roles.together import Together
from pql.run import evaluation, trainer
from pql.run.directory import owned
from pql.run.interrupt import Interrupt
from pql.run.monitor import Monitor
from pql.runtime import checkpoint, sync
from pql.runtime.alone import pace_alone
from pql.runtime.pack import Pack
from pql.runtime.packing import demand_room
from tasks import TaskError
from tasks.together import Sets

FAULTS = (RoleFailed, FloatingPointError)  # of one replica: the others go on
Member = tuple  # of a pack: its configuration, its checkpoint's folder and manifest or None


def train_together(cfgs: Sequence[Config], say: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Train each as configured; returns their summaries, in order. Raises UserError.

    What can't be done side by side is done one after the other, and a line says why. A run that fails does so alone:
    its summary says "failed", and the others go on.
    """
    summaries: list[dict[str, Any]] = [{"status": "interrupted"} for _ in cfgs]
    with Interrupt() as interrupt, evaluation.one_torch_thread(), contextlib.ExitStack() as locks:
        places: dict[Any, list[int]] = {}
        members: list[Member] = []
        for k, cfg in enumerate(cfgs):
            done = trainer.done_already(cfg)
            needed = not done or trainer.wants_more(cfg, done)
            if needed:
                locks.enter_context(owned(Path(cfg.run_dir)))
            folder, manifest = trainer.find_checkpoint(cfg, bool(done)) if needed else (None, None)
            members.append((cfg, folder, manifest))
            if needed:
                places.setdefault(_place(manifest), []).append(k)
            else:
                summaries[k] = done
        if places:
            trainer.introduce(cfgs[0])
        for group in places.values():  # those that were stopped at the same step go on together
            if not interrupt.name:
                for k, summary in zip(group, _train([members[k] for k in group], interrupt, say)):
                    summaries[k] = summary
    return summaries


def _place(manifest: dict[str, Any] | None) -> Any:
    """What must agree between checkpoints from which runs go on together."""
    if manifest is None:
        return None
    counters = ("vector_steps", "critic_updates", "policy_updates", "learning_starts", "seen")
    return (*(manifest[name] for name in counters), checkpoint.holds_ring(manifest))


def _train(members: Sequence[Member], interrupt: Interrupt, say: Callable[[str], None]) -> list[dict[str, Any]]:
    cfgs = [cfg for cfg, _, _ in members]
    why = why_not_together(cfgs)
    if why is None and len(cfgs) > 1:
        try:
            return _train_pack(members, interrupt)
        except (NotTogether, TaskError) as error:
            why = str(error)
    if len(cfgs) > 1:
        say(f"note: {why}; so these {len(cfgs)} runs are trained one after the other")
    summaries: list[dict[str, Any]] = []
    for cfg, folder, manifest in members:
        if interrupt.name:
            summaries.append({"status": "interrupted"})
            continue
        env = make_env(cfg, cfg.eval_episodes, trainer.evaluation_seed(cfg))
        try:
            summaries.append(trainer.go_on(cfg, env, interrupt, folder, manifest))
        except FAULTS as error:
            say(f"error: {cfg.run_dir}: {error}")
            summaries.append({"status": "failed", "reason": str(error)})
        finally:
            env.close()
    return summaries


class NotTogether(Exception):
    """An algorithm does what can't be done for several runs at once."""


def _train_pack(members: Sequence[Member], interrupt: Interrupt) -> list[dict[str, Any]]:
    cfgs = [cfg for cfg, _, _ in members]
    with contextlib.ExitStack() as open_things:
        open_things.enter_context(sync.torch_as_configured(cfgs[0]))
        open_things.enter_context(warnings.catch_warnings())
        # a gradient that is part of a common vector has not the layout that torch likes best
        warnings.filterwarnings("ignore", "(?s).*grad and param do not obey")
        env = make_env(cfgs[0], cfgs[0].eval_episodes, [trainer.evaluation_seed(cfg) for cfg in cfgs])
        open_things.callback(env.close)
        demand_room(cfgs[0], env, len(cfgs) + (env.device.type == "cuda"))  # and the ring of one timed alone
        parts = [prepare(cfgs[0], env.spaces, None, env.metric_names)]
        parts += [prepare(cfg, env.spaces, parts[0].survey, env.metric_names) for cfg in cfgs[1:]]
        numbers = {name: torch.tensor(values, device=env.device) for name, values in differing_numbers(cfgs).items()}
        pack = Pack(cfgs, parts, numbers)
        open_things.callback(pack.close)
        monitors = []
        for one, mine, (cfg, folder, manifest) in zip(env.sets, parts, members):
            monitors.append(trainer.begin(cfg, mine, one, interrupt, folder, manifest))
            open_things.callback(lambda monitor=monitors[-1]: monitor.writer and monitor.writer.close())
        pack.load([folder for _, folder, _ in members])
        pack.join()
        watch = Monitors(monitors, env, pack)
        try:
            for learners in pack.learners:
                learners.try_losses()
            watch.act(torch.zeros(env.num_envs, env.obs_dim, device=env.device))
        except Exception as error:
            what = f"algo={cfgs[0].algo.name} can't be computed for several runs at once"
            raise NotTogether(f"{what} ({str(error).splitlines()[0]})") from error
        pace = pace_alone(cfgs[0], env.spaces, parts[0].survey, env.metric_names)
        for monitor in monitors:
            monitor.pace_alone = pace
        if pack.compiles:
            monitors[0].progress.message("compiling the gradients of all: half a minute the first time")
        try:
            pack.run(watch)
            if not interrupt.name:
                watch.conclude()
            return watch.end()
        except (KeyboardInterrupt, Exception) as error:
            for monitor in watch.going:
                trainer.fail(monitor, error)
            trainer.explain_full_disk(error, cfgs[0].run_dir, "the same words and resume=true")
            raise


class Monitors:
    """The monitors of a pack, seen as one by those who take turns.

    Args:
        monitors: of the replicas.
        env: their environments for evaluation.
        pack: the replicas' roles.
    """

    def __init__(self, monitors: Sequence[Monitor], env: Sets, pack: Pack):
        self.monitors, self.env, self.pack = list(monitors), env, pack
        self.going = list(monitors)  # those that have not failed
        self.failed: dict[int, dict[str, Any]] = {}  # number of the replica -> its summary
        self.first_state = env.state_dict()
        weights = torch.stack([monitor.weights.data for monitor in monitors])
        for monitor, mine in zip(monitors, weights.unbind()):
            monitor.weights.lie_in(mine, torch.zeros_like(mine))
        (self.policies,) = monitors[0].weights.tensors(weights).values()
        self.all = Together(monitors, ["normalizer.mean", "normalizer.inv_std"])
        self.act = Recorded(self._act)
        for k, monitor in enumerate(monitors):
            monitor.save = lambda monitor=monitor, roles=pack.roles[k]: sync.save(monitor, roles)
            monitor.side_by_side = len(monitors)
            if k:
                monitor.progress.last = float("inf")  # one line is enough

    @property
    def interrupted(self) -> str | None:
        return self.monitors[0].interrupted

    @property
    def moved(self) -> bool:
        return self.monitors[0].moved

    def stop_clock(self) -> None:
        for monitor in self.monitors:
            monitor.stop_clock()

    def start_clock(self) -> None:
        for monitor in self.monitors:
            monitor.start_clock()

    def critic_update_due(self) -> bool:
        return self.monitors[0].critic_update_due()

    def policy_update_due(self) -> bool:
        return self.monitors[0].policy_update_due()

    def finished(self) -> bool:
        return not self.going or self.monitors[0].finished()

    def tick(self) -> None:
        """As `Monitor.tick`; a replica that has failed is left out from now on."""
        if not self.moved:
            return
        self._each(Monitor.begin)
        if self.pack.actors.any_faults():
            self._each(lambda monitor: self.pack.actors.demand_no_faults(self.monitors.index(monitor)))
        self._each(Monitor.log_if_due)
        if self.going and self.going[0].evaluation_due():
            self.evaluate(even_if_interrupted=True)
        self._each(Monitor.go_on)

    def _each(self, do: Callable[[Monitor], None]) -> None:
        for monitor in list(self.going):
            try:
                do(monitor)
            except FAULTS as error:
                self.going.remove(monitor)
                monitor.progress.message(f"error: {monitor.run_dir}: {error}")
                self.failed[self.monitors.index(monitor)] = trainer.fail(monitor, error)

    def evaluate(self, even_if_interrupted: bool = False) -> None:
        """The averaged policy of every replica, in one set of environments."""
        began, count = time.monotonic(), len(self.monitors)
        for monitor in self.going:
            monitor.begin_evaluation()
        # alone a replica would have stopped with its own last episode: what it draws next depends on that
        rest = self.env.get_draws()
        over = [False] * count
        for so_far in evaluation.played(self.env, self.act, self.first_state):
            draws = None if all(over) else self.env.get_draws()
            for k, one in enumerate(self.env.sets):
                if not over[k]:
                    rest[k] = draws[k]
                    over[k] = not so_far.alive[one.rows].any()
            if self.interrupted and not even_if_interrupted:
                return
        self.env.set_draws(rest)
        for monitor in self.going:
            if monitor.ended is None:
                monitor.set_aside += time.monotonic() - began
        self._each(lambda monitor: monitor.record_evaluation(so_far.result(monitor.env.rows)))

    @torch.no_grad()
    def _act(self, obs: Tensor) -> Tensor:
        """Each replica's policy for its environments: (K N, obs_dim) -> (K N, action_dim)."""

        def one(monitor: Monitor, tensors: dict[str, Tensor], obs: Tensor) -> Tensor:
            return monitor.algorithm.act(network(monitor.policy, tensors), monitor.normalizer(obs))

        return self.all(one, self.policies, obs.unflatten(0, (len(self.monitors), -1))).flatten(0, 1)

    def save(self) -> None:
        self._each(lambda monitor: monitor.save())

    def conclude(self) -> None:
        """As `Monitor.conclude`."""
        self._each(Monitor.begin)
        self._each(Monitor.log_last)
        if self.going and self.going[0].evaluated_at != self.going[0].counters and not self.interrupted:
            self.evaluate()

    def end(self) -> list[dict[str, Any]]:
        """The replicas' summaries."""
        if self.interrupted:
            made = {self.monitors.index(monitor): trainer.stop(monitor) for monitor in self.going}
            return self._in_order(made)
        policies = [evaluation.random_policy(one, m.cfg.seed) for one, m in zip(self.env.sets, self.monitors)]
        *_, random = evaluation.played(self.env, lambda obs: torch.cat([policy(obs) for policy in policies]))
        made = {}
        for k, monitor in enumerate(self.monitors):
            if monitor in self.going:
                made[k] = trainer.complete(monitor, random.result(monitor.env.rows))
        return self._in_order(made)

    def _in_order(self, made: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**made, **self.failed}[k] for k in range(len(self.monitors))]
