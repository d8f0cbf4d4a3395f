"""What the two learners are: groups of parameters, an optimizer each, an update as a fixed sequence of operations."""

from __future__ import annotations

import copy
import hashlib
from contextlib import nullcontext
from typing import Any, Callable, NamedTuple, Sequence

import torch
from torch import Tensor

from pql.algorithms.base import Adam, Algorithm, Group, Nets
from pql.algorithms.diagnostics import Measured
from pql.memory.device import InFlight, device_of
from pql.memory.replay import Replay, Rows
from pql.memory.shared import Shared
from pql.roles.diagnosis import Diagnosis, look, of_steps
from pql.roles.flat import Flat
from pql.roles.fused import fuse
from pql.roles.normalizer import Normalizer, ReturnScale
from pql.roles.prefetch import Prefetch
from pql.roles.resets import Resets
from tasks.graphs import TorchGraph


def seed_of(seed: int, role: str) -> int:
    """A seed of its own for each role, so that no role's draws depend on another's."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{role}".encode()).digest()[:7], "little")


def generator_of(seed: int, role: str, device: torch.device | str) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed_of(seed, role))


class Optimizer:
    """One group's optimizer on its stretch of the flat vectors, as `pql.algorithms.base.Adam` says.

    It is torch's fused kernel on state of our own: torch.optim's object would import a compiler (a second at every
    start) and give its state new tensors when it is loaded, which a recorded graph would not see.

    Args:
        data, grad: parameters and their gradient, (P,).
    """

    def __init__(self, data: Tensor, grad: Tensor, settings: Adam):
        self.data, self.grad, self.settings = data, grad, settings
        self.exp_avg, self.exp_avg_sq = torch.zeros_like(data), torch.zeros_like(data)
        self.steps = torch.zeros((), device=data.device)  # where the kernel wants it, as float32
        self.kernel: Callable[[Sequence[Optimizer]], None] = fused_adamw

    def rate(self, steps: Tensor) -> Any:
        """The step size after so many steps: a number, or a tensor where a schedule makes it."""
        schedule = self.settings.schedule
        return self.settings.lr if schedule is None else self.settings.lr * schedule(steps)

    def step(self) -> Tensor:
        """Clip, update. Returns the norm of the gradient before clipping, 0-d."""
        norm = torch.linalg.vector_norm(self.grad)
        if self.settings.max_grad_norm is not None:
            self.grad.mul_((self.settings.max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
        self.kernel([self])
        return norm

    def relative_step(self) -> Tensor:
        """The norm of the last step as a share of that of the weights, without decay, 0-d."""
        beta1, beta2 = self.settings.betas
        n = self.steps.clamp(min=1)
        mean, square = self.exp_avg / (1 - beta1**n), self.exp_avg_sq / (1 - beta2**n)
        direction = torch.linalg.vector_norm(mean / (square.sqrt() + self.settings.eps))
        return direction * self.rate(n - 1) / torch.linalg.vector_norm(self.data)

    def begin_anew(self) -> None:
        for value in self.state_dict().values():
            value.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        return {"step": self.steps, "exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, mine in self.state_dict().items():
            mine.copy_(state[name])


def fused_adamw(optimizers: Sequence[Optimizer]) -> None:
    """A step of each, whose settings are the same, by torch's kernel: one pass over the weights."""
    first, s = optimizers[0], optimizers[0].settings
    options = {"beta1": s.betas[0], "beta2": s.betas[1], "weight_decay": s.weight_decay, "eps": s.eps}
    options.update(lr=first.rate(first.steps), amsgrad=False, maximize=False)
    for one in optimizers:
        one.steps += 1
    names = ("data", "grad", "exp_avg", "exp_avg_sq")
    data, grad, *moments = ([getattr(one, name) for one in optimizers] for name in names)
    torch._fused_adamw_(data, grad, *moments, [], [one.steps for one in optimizers], **options)


class Stage(NamedTuple):
    """One loss of an update, and the groups that its gradient moves."""

    name: str  # the algorithm's method
    columns: int  # of its noise
    groups: list[Group]


class Learner:
    """A role that trains an algorithm's groups: `weights`, an optimizer each, target copies.

    An update is a fixed sequence of tensor operations, the same whatever the values, so that a GPU can replay it as a
    graph: receive, sample, and for each loss differentiate and step; then the target copies follow.
    """

    role: str
    counter: Tensor  # (1,) updates so far, where all roles see them
    updates: Tensor  # (1,) the same, where the device can count them

    def __init__(self, cfg: Any, algorithm: Algorithm, replay: Replay, shared: Shared):
        home = replay.rows.device  # of what is shared; what is drawn there is copied to a learner elsewhere
        self.device = device = device_of(cfg, self.role)
        self.cfg, self.algorithm, self.replay, self.shared = cfg.algo, algorithm, replay, shared
        replay.conflicts = shared.conflicts[self.role]
        self.seed = cfg.seed
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=cfg.autocast, cache_enabled=False)
        self.normalizer = Normalizer(algorithm.spaces.seen_dim, device)
        self.scale = None if algorithm.return_bound is None else ReturnScale(algorithm.return_bound, device=device)
        self.generator = generator_of(cfg.seed, self.role, home)

        self.groups = algorithm.trained_by(self.role)
        (other,) = {group.role for group in algorithm.groups()} - {self.role}
        self.box, self.their_box = shared.weights[self.role], shared.weights[other]
        self.weights = Flat({group.name: group.make() for group in self.groups}, device)
        self.box.read(self.weights.data)  # the initial weights
        followed = {g.name: copy.deepcopy(self.weights.modules[g.name]) for g in self.groups if g.tau is not None}
        self.targets = Flat(followed, device).fixed()
        self.theirs = Flat({group.name: group.make() for group in algorithm.trained_by(other)}, device).fixed()
        self.their_version = torch.zeros(1, dtype=torch.int64, device=device)
        targets = {f"{name}_target": module for name, module in self.targets.modules.items()}
        self.nets = Nets(**self.weights.modules, **targets, **self.theirs.modules)
        self.optimizers = {g.name: self._optimizer(g) for g in self.groups}
        self.stages = [
            Stage(name, algorithm.noise_columns(name), [group for group in self.groups if group.loss == name])
            for name in dict.fromkeys(group.loss for group in self.groups)
        ]
        self.resets = Resets(cfg, self.role)
        self.clock = shared.critic_updates if cfg.data is not None else shared.vector_steps
        graphs = cfg.cuda_graphs and device == home
        self.graphed_step = TorchGraph(self.step, device, [self.generator], graphs, "updates")
        self.diagnosis = Diagnosis(algorithm, self.role, self.cfg.batch_size, replay, device)
        self.graphed_diagnose = TorchGraph(self.diagnose, device, [], graphs, "diagnoses")
        self.in_flight = InFlight(device)
        far = replay.layout.on_host and device == home and cfg.runtime == "parallel"
        self.prefetch = Prefetch(self.sample, device) if far else None
        self.improved = self.improve
        if cfg.compile:
            self.improved = fuse(self, replay.blank(self.cfg.batch_size, device))

    def _optimizer(self, group: Group) -> Optimizer:
        stretch = self.weights.parameters[group.name]
        return Optimizer(self.weights.data[stretch], self.weights.grad[stretch], group.optimizer)

    def loss(self, nets: Nets, stage: Stage, rows: Rows, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The algorithm's loss on B rows of the ring, and its metrics."""
        with self.autocast:
            return getattr(self.algorithm, stage.name)(nets, self.unpack(rows), noise)

    def unpack(self, rows: Rows) -> Any:
        """Rows as a batch, as the algorithm sees it: observations normalised, rewards scaled."""
        batch = self.replay.unpack(rows, self.normalizer)
        return batch if self.scale is None else batch._replace(return_n=batch.return_n * self.scale.factor)

    def sample(self) -> Rows:
        """B rows of the ring, where this learner is."""
        rows = self.replay.sample(self.cfg.batch_size, self.generator).to(self.device)
        self.diagnosis.note_sampled(self.replay)
        return rows

    def noise(self, columns: int) -> Tensor:
        """(B, columns) standard normal; nothing is drawn for none."""
        shape, home = (self.cfg.batch_size, columns), self.generator.device
        if columns == 0:
            return torch.empty(shape, device=self.device)
        return torch.randn(shape, generator=self.generator, device=home).to(self.device)

    def update(self) -> None:
        """One gradient step of every group."""
        self.begin_anew_if_due()
        if self.diagnosis.due(int(self.counter), int(self.clock)):
            self.graphed_diagnose()
        if self.prefetch is not None:
            self.prefetch.begin()
        self.graphed_step()
        self.count()

    def count(self) -> None:
        """Say that an update is done."""
        raise NotImplementedError

    def step(self) -> None:
        """One update without a look at a value."""
        self.receive()
        rows = self.sample() if self.prefetch is None else self.prefetch.rows
        noises = [self.noise(stage.columns) for stage in self.stages]
        with nullcontext() if self.prefetch is None else self.prefetch.beside():
            self.conclude(self.improved(rows, noises))

    def improve(self, rows: Rows, noises: Sequence[Tensor]) -> dict[str, Tensor]:
        """One update with these rows and this noise of each stage; its measurements."""
        measured: dict[str, Tensor] = {}
        for stage, noise in zip(self.stages, noises):
            loss, metrics = self.loss(self.nets, stage, rows, noise)
            self.differentiate(loss)
            measured.update(metrics)
            measured.update(self.descend(stage))
        self.follow()
        return measured

    def diagnose(self) -> None:
        """Look at what may go wrong; nothing that learning depends on changes."""
        found = look(self, self.nets, self.weights.modules)
        self.note({**found, **of_steps(self.optimizers)})

    def note(self, found: Measured) -> None:
        """A diagnosis for those who log."""
        gauges = self.shared.gauges[self.role]
        gauges.add(*(torch.stack([found[name][i] for name in gauges.names]) for i in (0, 1)))

    def receive(self) -> None:
        """Take the newest of what the other roles have published."""
        shared = self.shared
        self.their_box.receive(self.theirs.data, self.their_version)
        self.normalizer.receive(shared.normalizer)
        if self.scale is not None:
            self.scale.receive(shared.returns)

    def differentiate(self, loss: Tensor) -> None:
        self.weights.grad.zero_()
        loss.backward()

    def descend(self, stage: Stage) -> dict[str, Tensor]:
        """A step of the stage's groups along their gradients; the gradients' norms."""
        norms = {}
        for group in stage.groups:
            norms[f"{group.name}_grad_norm"] = self.optimizers[group.name].step()
            if group.after_step is not None:
                group.after_step(self.weights.modules[group.name])
        return norms

    def follow(self) -> None:
        """The target copies move towards the new weights."""
        for group in self.groups:
            if group.tau is not None:
                self._follow(group)

    def _follow(self, group: Group) -> None:
        """One of them; running statistics are taken over."""
        mine, theirs = self.weights, self.targets
        theirs.data[theirs.parameters[group.name]].lerp_(mine.data[mine.parameters[group.name]], group.tau)
        ends = [flat.parameters[group.name].stop for flat in (theirs, mine)]
        stops = [flat.all[group.name].stop for flat in (theirs, mine)]
        if ends[0] < stops[0]:
            theirs.data[ends[0] : stops[0]].copy_(mine.data[ends[1] : stops[1]])

    def conclude(self, measured: dict[str, Tensor]) -> None:
        """What a role does besides at the end of an update, and the update's measurements on the board."""
        self.shared.boards[self.role].add(measured)
        self.updates += 1

    def begin_anew_if_due(self) -> None:
        """Where counters alone say so."""
        number = self.resets.due(int(self.counter))
        if number:
            self.begin_anew(number)

    def begin_anew(self, number: int) -> None:
        """Reset: new weights, target copies and optimizers, drawn from the run's seed and the reset's number."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.seed, f"{self.role}/reset/{number}"))
            fresh = Flat({group.name: group.make() for group in self.groups}, "cpu")
        for group in self.groups:
            if group.resets:
                self.weights.data[self.weights.all[group.name]].copy_(fresh.data[fresh.all[group.name]])
                self.optimizers[group.name].begin_anew()
                if group.tau is not None:
                    stretch = self.weights.all[group.name]
                    self.targets.data[self.targets.all[group.name]].copy_(self.weights.data[stretch])

    def publish(self) -> None:
        """Give the other roles the current weights."""
        self.box.publish(self.weights.data)

    def state_dict(self) -> dict[str, Tensor]:
        state = {"weights": self.weights.data, "targets": self.targets.data, "generator": self.generator.get_state()}
        for name, optimizer in self.optimizers.items():
            state.update({f"optimizer.{name}.{key}": value for key, value in optimizer.state_dict().items()})
        return {**state, **self.diagnosis.state_dict()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.weights.data.copy_(state["weights"])
        self.targets.data.copy_(state["targets"])
        self.generator.set_state(state["generator"].cpu())
        for name, optimizer in self.optimizers.items():
            prefix = f"optimizer.{name}."
            optimizer.load_state_dict({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
        self.diagnosis.load_state_dict(state, self.replay)
        self.publish()
