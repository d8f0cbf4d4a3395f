"""Replicas of the roles side by side (a pack): K runs that differ in seed and step sizes, in one set of operations.

What takes the time is done at once, by torch.vmap: losses and their gradients, sampling, statistics, environments.
What is drawn comes from each replica's own generator, and what has settings of its own (an optimizer, a target copy)
is done replica by replica, so that each is the run that it would be alone. All counters are one.
"""

from __future__ import annotations

import functools
from typing import Any, Mapping, Sequence

import torch
from torch import Tensor

from pql.algorithms.base import Nets
from pql.memory.replay import RING, Rows
from pql.memory.shared import Shared
from pql.roles.actor import Actor
from pql.roles.diagnosis import look, of_steps
from pql.roles.flat import Flat
from pql.roles.fused import network
from pql.roles.learner import Learner, Optimizer, Stage, fused_adamw
from pql.roles.recorded import Recorded
from pql.roles.together import Together, as_one, in_rows, stand_in
from tasks.base import Step
from tasks.graphs import TorchGraph
from tasks.together import COUNTS, Sets

OF_REPLAY = [f"replay.{name}" for name in RING]
MAILBOXES = ("average", "normalizer", "returns", "weights.v_learner", "weights.p_learner")


def lay_out_rings(shareds: Sequence[Shared]) -> None:
    """Give the replicas' rings, empty so far, common storage."""
    first = shareds[0].ring["rows"]
    shape = first.shape
    for shared in shareds:  # their own go first: on a GPU there may be no room for both
        shared.ring["rows"] = first = first.new_empty(0)
    rows = first.new_zeros(len(shareds), *shape)
    for row, shared in enumerate(shareds):
        shared.ring["rows"] = rows[row]


def share_counters(shareds: Sequence[Shared]) -> None:
    """Count what all do in one place, and lay what each has beside the others'."""
    as_one(shareds, "vector_steps", "critic_updates", "policy_updates")
    as_one(shareds, *(f"{box}.{name}" for box in MAILBOXES for name in ("begun", "version")))
    conflicts = (f"conflicts.{role}" for role in shareds[0].conflicts)
    ring = (f"ring.{name}" for name in RING)
    for name in (*ring, "episodes", "invalid", "diverged", "contact_overflows", *conflicts):
        in_rows(shareds, name)


def in_common(flats: Sequence[Flat]) -> tuple[Tensor, Tensor]:
    """Lay the vectors of networks of one shape side by side. Returns values and gradients, (K, P)."""
    data = torch.stack([flat.data for flat in flats])
    grad = torch.zeros_like(data)
    for k, flat in enumerate(flats):
        flat.lie_in(data[k], grad[k])
    return data, grad


class Optimizers:
    """One group's optimizers of all replicas.

    Args:
        data, grad: the group's stretch of the common vectors, (K, P).
    """

    def __init__(self, optimizers: Sequence[Optimizer], data: Tensor, grad: Tensor):
        self.optimizers, self.grad = optimizers, grad
        self.bounds: Tensor | None = None
        if optimizers[0].settings.max_grad_norm is not None:
            self.bounds = grad.new_tensor([one.settings.max_grad_norm for one in optimizers])
        for one, mine, slope in zip(optimizers, data, grad):
            one.data, one.grad = mine, slope
        alike: list[list[Optimizer]] = []
        for one in optimizers:
            known = next((some for some in alike if some[0].settings == one.settings), None)
            alike.append([one]) if known is None else known.append(one)
        self.alike = alike

    def step(self) -> Tensor:
        """As `Optimizer.step` of each: the norms, (K,)."""
        norms = torch.linalg.vector_norm(self.grad, dim=1)
        if self.bounds is not None:
            self.grad.mul_((self.bounds / (norms + 1e-6)).clamp_(max=1.0).unsqueeze(1))
        for optimizers in self.alike:
            fused_adamw(optimizers)
        return norms


class Learners:
    """The learners of one role of all replicas.

    Args:
        numbers: option of the algorithm -> its values (K,), where these differ.
        compile: make one function of losses and gradients.
    """

    def __init__(self, learners: Sequence[Learner], numbers: Mapping[str, Tensor], compile: bool = False):
        self.learners, self.first = learners, learners[0]
        first = self.first
        self.weights, self.grad = in_common([learner.weights for learner in learners])
        self.targets, _ = in_common([learner.targets for learner in learners])
        theirs, _ = in_common([learner.theirs for learner in learners])
        for learner in learners:
            learner.replay.lie_in(learner.shared.ring)
            learner.replay.conflicts = learner.shared.conflicts[learner.role]
        self.optimizers = {name: self._optimizers(name) for name in first.optimizers}
        followed = first.targets.tensors(self.targets)
        self.tensors = {**first.weights.tensors(self.weights, leaves=True), **first.theirs.tensors(theirs)}
        self.tensors.update({f"{name}_target": value for name, value in followed.items()})
        self.modules = {**first.weights.modules, **first.theirs.modules}
        self.modules.update({f"{name}_target": module for name, module in first.targets.modules.items()})
        paths = ["normalizer.state", "normalizer.mean", "normalizer.inv_std", "weights.data", "theirs.data"]
        paths += [*OF_REPLAY, "replay.conflicts", "box.buffers", "their_box.buffers"]
        paths += ["shared.normalizer.buffers", f"shared.boards.{first.role}.sums"]
        paths += ["diagnosis.sampled", f"shared.gauges.{first.role}.sums"]
        counters = ["counter", "updates", "their_version", "normalizer.version"]
        if first.scale is not None:
            paths += ["scale.state", "scale.factor", "shared.returns.buffers"]
            counters += ["scale.version"]
        if hasattr(first, "average"):
            in_common([learner.average for learner in learners])
            paths += ["average.data", "shared.average.buffers"]
            counters += ["averaged"]
        as_one(learners, *counters)
        seen = {f"{place}.{name}": value for name, value in numbers.items() for place in ("cfg", "algorithm.cfg")}
        self.all = Together(learners, paths, seen)
        # what publishes takes whole vectors, whatever their shape: (2, K, P) is as good as (2, P)
        self.box = stand_in(first.box, {"buffers": self.all.rows["box.buffers"].transpose(0, 1)})
        self.publisher = stand_in(first, {"box": self.box, "weights.data": self.weights})
        self.taus = {group.name: self._taus(i) for i, group in enumerate(first.groups) if group.tau is not None}
        self.gather = Recorded(lambda unit: self.all(gather, unit))
        self.gradients = [Recorded(functools.partial(self._gradients, stage), compile) for stage in first.stages]
        generators, graphs = [learner.generator for learner in learners], first.graphed_step.enabled
        self.graphed_step = TorchGraph(self.step, first.device, generators, graphs, "updates")
        self.graphed_diagnose = TorchGraph(self.diagnose, first.device, [], graphs, "diagnoses")

    def _optimizers(self, name: str) -> Optimizers:
        stretch = self.first.weights.parameters[name]
        each = [learner.optimizers[name] for learner in self.learners]
        return Optimizers(each, self.weights[:, stretch], self.grad[:, stretch])

    def _taus(self, group: int) -> float | Tensor:
        """How fast that group's target copies follow; (K, 1) where that differs."""
        taus = [learner.groups[group].tau for learner in self.learners]
        return taus[0] if len(set(taus)) == 1 else self.weights.new_tensor(taus).unsqueeze(1)

    def update(self) -> None:
        """One update of all replicas, as `Learner.update`."""
        for learner in self.learners:
            learner.begin_anew_if_due()
        counts = int(self.first.counter), int(self.first.shared.vector_steps)
        due = [learner.diagnosis.due(*counts) for learner in self.learners]  # of all of them or of none
        if due[0]:
            self.graphed_diagnose()
        self.graphed_step()
        self.publisher.count()

    def step(self) -> None:
        """As `Learner.step`."""
        first, count = self.first, len(self.learners)
        self.receive()
        unit = torch.empty(count, first.cfg.batch_size, dtype=torch.float64, device=first.device)
        for mine, learner in zip(unit, self.learners):
            torch.rand(mine.shape, generator=learner.generator, out=mine)
        rows = self.gather(unit)
        measured: dict[str, Tensor] = {}
        for stage, gradients in zip(first.stages, self.gradients):
            noise = torch.empty(count, first.cfg.batch_size, stage.columns, device=first.device)
            for mine, learner in zip(noise if stage.columns else (), self.learners):
                torch.randn(mine.shape, generator=learner.generator, out=mine)
            metrics, slopes = gradients(rows, noise)
            measured.update(metrics)
            for group in stage.groups:
                self.grad[:, first.weights.parameters[group.name]] = slopes[group.name]
                measured[f"{group.name}_grad_norm"] = self.optimizers[group.name].step()
                if group.after_step is not None:
                    for learner in self.learners:
                        group.after_step(learner.weights.modules[group.name])
        self.follow()
        with torch.no_grad():
            self.all(lambda learner, measured: learner.conclude(measured), measured)

    def receive(self) -> None:
        """As `Learner.receive`; on a CPU where there is anything new."""
        first, shared = self.first, self.first.shared
        seen = [(first.their_box, first.their_version), (shared.normalizer, first.normalizer.version)]
        seen += [(shared.returns, first.scale.version)] if first.scale is not None else []
        if first.their_box.on_device or any(int(box.version) != int(version) for box, version in seen):
            self.all(lambda learner: learner.receive())

    def follow(self) -> None:
        """As `Learner.follow`."""
        mine, theirs = self.first.weights, self.first.targets
        for name, tau in self.taus.items():
            trained = mine.parameters[name]
            self.targets[:, theirs.parameters[name]].lerp_(self.weights[:, trained], tau)
            statistics = slice(trained.stop, mine.all[name].stop)
            self.targets[:, slice(theirs.parameters[name].stop, theirs.all[name].stop)] = self.weights[:, statistics]

    def _gradients(self, stage: Stage, rows: Tensor, noise: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The stage's metrics, (K,) each, and the gradient of its loss by group, (K, P)."""
        count, (losses, metrics) = len(self.learners), self.losses(stage, rows, noise)
        of_group = {g.name: [t for t in self.tensors[g.name].values() if t.requires_grad] for g in stage.groups}
        every = [t for tensors in of_group.values() for t in tensors]
        found = iter(torch.autograd.grad(losses.sum(), every, allow_unused=True, materialize_grads=True))
        slopes = {name: [next(found).reshape(count, -1) for _ in some] for name, some in of_group.items()}
        return metrics, {name: torch.cat(some, 1) for name, some in slopes.items()}

    def diagnose(self) -> None:
        """As `Learner.diagnose`."""
        found = self.look()
        steps = [of_steps(learner.optimizers) for learner in self.learners]
        for name in steps[0]:
            found[name] = tuple(torch.stack([one[name][i] for one in steps]) for i in (0, 1))
        self.all(lambda learner, found: learner.note(found), found)

    def look(self) -> dict[str, Any]:
        """What each replica's diagnosis sees of its networks: total and count by name, (K,) each."""
        modules = self.first.weights.modules
        return self.all(lambda learner, tensors: look(learner, self.nets(tensors), modules), self.tensors)

    def nets(self, tensors: dict[str, dict[str, Tensor]]) -> Nets:
        """The networks that compute with one replica's tensors."""
        return Nets(**{name: network(module, tensors[name]) for name, module in self.modules.items()})

    def losses(self, stage: Stage, rows: Rows, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Each replica's loss (K,) and metrics, on its rows (K, B, ...)."""

        def one(learner: Learner, tensors: dict, rows: Rows, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return learner.loss(self.nets(tensors), stage, rows, noise)

        return self.all(one, self.tensors, rows, noise)

    def try_losses(self) -> None:
        """Every loss once, forward and backward, on nothing: raises whatever vmap can't do of an algorithm."""
        torch.vmap(lambda words: words.view(torch.int32))(torch.zeros(1, 1))  # so rings are read; torch 2.4 can't
        first, size = self.first, (len(self.learners), self.first.cfg.batch_size)
        for stage in first.stages:
            blank = Rows(*(part.expand(size[0], *part.shape) for part in first.replay.blank(size[1], first.device)))
            self._gradients(stage, blank, torch.zeros(*size, stage.columns, device=first.device))
        self.look()


def gather(learner: Learner, unit: Tensor) -> Rows:
    rows = learner.replay.gather(unit)
    learner.diagnosis.note_sampled(learner.replay)
    return rows


class Actors:
    """The actors of all replicas, with their environments in one simulation."""

    def __init__(self, actors: Sequence[Actor], env: Sets):
        self.actors, self.env, first = actors, env, actors[0]
        for actor in actors:
            actor.replay.lie_in(actor.shared.ring)
        paths = ["obs", "faults", "normalizer.state", "normalizer.mean", "normalizer.inv_std"]
        paths += [*OF_REPLAY, "shared.normalizer.buffers"]
        paths += [f"episodes.{name}" for name in first.episodes.state_dict()]
        paths += [f"windows.{name}" for name in first.windows.state_dict() if name != "steps"]
        paths += [f"shared.{name}" for name in ("episodes", "invalid", "diverged", "contact_overflows")]
        paths += ["shared.gauges.actor.sums"]
        if first.scale is not None:
            paths += ["scale.state", "scale.running", "shared.returns.buffers"]
        self.all = Together(actors, paths)
        self.faults: Tensor | None = None  # (K, 4) on the host, as far as they are known there

    @torch.no_grad()
    def step(self) -> None:
        """As `Actor.step`, but that nobody looks for faults: `demand_no_faults` does."""
        action = torch.cat([actor.act() for actor in self.actors])
        step = self.env.step(action)
        each = (len(self.actors), -1)
        told = {name: t.unflatten(0, each) for name, t in step._asdict().items() if isinstance(t, Tensor)}
        told["info"] = {name: step.info[name] for name in COUNTS if name in step.info}
        for name in self.env.metric_names:
            value = step.info[name]
            told["info"][name] = value.unflatten(0, each) if value.dim() else value.expand(len(self.actors))
        self.all(note_and_take, action.unflatten(0, each), told)
        for actor in self.actors:
            actor.windows.steps += 1
        self.actors[0].shared.vector_steps += 1
        self.faults = self.actors[0].in_flight(self.all.rows["faults"])

    def demand_no_faults(self, k: int) -> None:
        """Raises where replica k has had any."""
        self.actors[k].demand_no_faults(self.actors[k].faults)

    def any_faults(self) -> bool:
        return self.faults is not None and bool(self.faults[:, :3:2].any())


def note_and_take(actor: Actor, action: Tensor, told: dict[str, Any]) -> None:
    step = Step(**told)
    actor.note(action, step)
    actor.take(action, step)
