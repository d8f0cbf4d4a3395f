"""A learner's update as one compiled function: losses, gradients, optimizer steps and target copies in one graph.

torch.compile ends at a loss. What follows it is then a kernel each, with the whole vector of weights read and written
again: gradients are accumulated, optimizers step, target copies follow; and between the compiled parts stands Python.
Here the update is traced with its derivatives, as operations on what it reads and writes, and compiled whole.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_unflatten

from pql.algorithms.activations import for_a_compiler
from pql.algorithms.base import Nets
from pql.roles.recorded import compiled, say_not_compiled
from pql.roles.together import at, stand_in

Improve = Callable[[Any, Sequence[Tensor]], "dict[str, Tensor]"]  # (rows, noise of each stage) -> measurements


def fuse(learner: Any, rows: Any) -> Improve:
    """`learner.improve`, compiled; itself where that is not to be had (there is no C++ compiler, say), after one line.

    Args:
        rows: an example of what the ring gives.
    """
    try:
        return Fused(learner, rows)
    except Exception as error:
        cause, advice = error, "install a C++ compiler (g++)"
        if isinstance(error, Untraceable):
            cause = error.__cause__ or error
            advice = f"let algo={learner.cfg.name} look at no tensor's value in its losses (torch.where for if)"
        say_not_compiled(cause, f"{advice}, or give compile=false")
        return learner.improve


class Untraceable(Exception):
    """An update that is no fixed sequence of operations."""


class Fused:
    """One update as a function of its state, rows and noise, which writes the state in place.

    State are the tensors that change between updates, whoever changes them; all else is taken as it is now, as a
    recorded CUDA graph would take it.
    """

    def __init__(self, learner: Any, rows: Any):
        paths = [f"{flat}.data" for flat in ("weights", "targets", "theirs")]
        paths += ["normalizer.mean", "normalizer.inv_std", *(["scale.factor"] if learner.scale is not None else [])]
        moments = ("steps", "exp_avg", "exp_avg_sq")
        paths += [f"optimizers.{name}.{moment}" for name in learner.optimizers for moment in moments]
        state = {path: at(learner, path) for path in paths}
        counts = {
            name: {key: tensor for key, tensor in module.named_buffers() if not tensor.is_floating_point()}
            for name, module in vars(learner.nets).items()
        }
        self.state, _ = tree_flatten((state, counts))
        size = learner.cfg.batch_size
        self.optimizers = list(learner.optimizers.values())
        self.betas = [self._double(one.settings.betas, learner.device) for one in self.optimizers]
        self.powers = self._double((-1.0, -0.5), learner.device)
        noises = [torch.zeros(size, stage.columns, device=learner.device) for stage in learner.stages]
        example, form = tree_flatten((state, counts, rows, noises, self.factors()))

        def update(*tensors: Tensor) -> list[Tensor]:
            measured = improve(learner, *tree_unflatten(list(tensors), form))
            self.names = list(measured)
            return list(measured.values())

        from torch.fx.experimental.proxy_tensor import make_fx  # a second, which only those pay who come here

        try:
            with for_a_compiler():
                graph = make_fx(update)(*_copies(example))
        except Exception as error:
            raise Untraceable from error
        self.compiled = compiled(graph, _copies(example))
        with torch.no_grad():
            self.compiled(*_copies(example))

    @staticmethod
    def _double(numbers: Sequence[float], device: torch.device) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float64, device=device)

    def factors(self) -> list[Tensor]:
        """What an optimizer's next step multiplies the mean gradient and the root of the mean square by, (2,) each.

        Compiled, powers of the betas would be computed anew for every few weights.
        """
        found = []
        for optimizer, betas in zip(self.optimizers, self.betas):
            correction = (1 - betas ** (optimizer.steps + 1)) ** self.powers
            correction[0] *= optimizer.rate(optimizer.steps)
            found.append(correction.float())
        return found

    def __call__(self, rows: Any, noises: Sequence[Tensor]) -> dict[str, Tensor]:
        with torch.no_grad():
            inputs, _ = tree_flatten((rows, noises, self.factors()))
            return dict(zip(self.names, self.compiled(*self.state, *inputs)))


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.clone() for tensor in tensors]


def improve(
    learner: Any, state: dict[str, Tensor], counts: dict[str, dict[str, Tensor]], rows: Any, noises: Any, factors: Any
) -> dict[str, Tensor]:
    """`Learner.improve` on other tensors than the learner's own, in operations that a compiler sees through.

    Args:
        state: dotted name in the learner -> what stands there.
        counts: of each network the buffers of integers, which lie in no vector.
    """
    one = stand_in(learner, state)
    kernels = {name: functools.partial(adamw, factor) for name, factor in zip(one.optimizers, factors)}
    measured: dict[str, Tensor] = {}
    for stage, noise in zip(one.stages, noises):
        with torch.enable_grad():
            trained = one.weights.tensors(one.weights.data, leaves=True)
            followed = one.targets.tensors(one.targets.data)
            tensors = {**trained, **{f"{name}_target": inner for name, inner in followed.items()}}
            tensors.update(one.theirs.tensors(one.theirs.data))
            leaves = {name: [t for t in inner.values() if t.requires_grad] for name, inner in trained.items()}
            seen = {name: {**inner, **counts[name]} for name, inner in tensors.items()}
            nets = Nets(**{name: network(getattr(one.nets, name), inner) for name, inner in seen.items()})
            loss, metrics = one.loss(nets, stage, rows, noise)
            wanted = [leaf for group in stage.groups for leaf in leaves[group.name]]
            found = iter(torch.autograd.grad(loss, wanted, allow_unused=True))
        measured.update(metrics)
        for group in stage.groups:
            gradients = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves[group.name], found)]
            optimizer = one.optimizers[group.name]
            optimizer.data = one.weights.data[one.weights.parameters[group.name]]
            optimizer.grad = torch.cat([gradient.reshape(-1) for gradient in gradients])
            optimizer.kernel = kernels[group.name]
            measured[f"{group.name}_grad_norm"] = optimizer.step()
            if group.after_step is not None:
                module = one.weights.modules[group.name]
                now = one.weights.tensors(one.weights.data)[group.name]
                inner = {f"module.{name}": tensor for name, tensor in now.items()}
                functional_call(Constraint(module, group.after_step), inner, ())
    one.follow()
    return measured


def adamw(factors: Tensor, optimizers: Sequence[Any]) -> None:
    """What torch's fused kernel does, in elementary operations."""
    (o,) = optimizers
    (beta1, beta2), s = o.settings.betas, o.settings
    o.exp_avg.lerp_(o.grad, 1 - beta1)
    o.exp_avg_sq.mul_(beta2).add_((1 - beta2) * o.grad.square())
    if s.weight_decay:
        o.data.mul_(1 - o.rate(o.steps) * s.weight_decay)
    o.data.sub_(factors[0] * o.exp_avg / (o.exp_avg_sq.sqrt() * factors[1] + s.eps))
    o.steps += 1


class Constraint(nn.Module):
    """What follows a step, as something to be called with other parameters."""

    def __init__(self, module: nn.Module, after_step: Callable[[nn.Module], None]):
        super().__init__()
        self.module, self.after_step = module, after_step

    def forward(self) -> None:
        self.after_step(self.module)


def network(module: nn.Module, tensors: dict[str, Tensor]) -> Callable[..., Any]:
    """`module` as a function that computes with other tensors."""
    return lambda *inputs: functional_call(module, tensors, inputs)
