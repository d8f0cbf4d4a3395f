"""Numbers that tell how learning goes wrong: of networks seen from inside, of steps, of target distributions.

All are fixed sequences of tensor operations that look at no value. What each means for a user: docs/metrics.md.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, Tuple

import torch
from torch import Tensor, nn

from pql.algorithms.networks import Features
from pql.memory.replay import Batch

HIDDEN = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus)
DORMANT = 0.025  # share of a layer's mean, Sokar et al. 2023
SATURATED = 0.99  # size of an action from which on tanh hardly moves
NAMES = ("dormant_units", "feature_norm", "feature_rank")  # of what `inside` measures


def inside(module: nn.Module, compute: Callable[[], Any]) -> tuple[dict[str, Tensor], Any]:
    """The hidden units and features of `module` while `compute` calls it, 0-d each, and what that returned.

    Hidden are the outputs of activation modules (`HIDDEN`), features what the last layer takes: the output of a
    `Features` module, or of the last activation. A network without either has nothing to tell.
    """
    hidden: list[Tensor] = []
    features: list[Tensor] = []
    hooks = []
    for part in module.modules():
        if isinstance(part, (*HIDDEN, Features)):
            into = features if isinstance(part, Features) else hidden
            hooks.append(part.register_forward_hook(lambda _, __, out, into=into: into.append(out.detach().float())))
    try:
        result = compute()
    finally:
        for hook in hooks:
            hook.remove()
    if not hidden:
        return {}, result
    last = (features or hidden)[-1]
    values = dormant_share(hidden), last.square().sum(-1).sqrt().mean(), effective_rank(last)
    return dict(zip(NAMES, values)), result


def dormant_share(layers: list[Tensor]) -> Tensor:
    """Share of hidden units that hardly answer to any row: a mean size of at most 2.5 % of their layer's.

    Sokar et al. 2023, definition 3.1; a dead ReLU, 0 for every row, is one of them.

    Args:
        layers: (..., B, width) activations each, with the members of an ensemble before the rows.
    """
    still = []
    for units in layers:
        size = units.abs().mean(-2)
        still.append((size <= DORMANT * size.mean(-1, keepdim=True)).float().flatten())
    return torch.cat(still).mean()


def effective_rank(features: Tensor) -> Tensor:
    """Participation ratio of the features' covariance, (sum of eigenvalues)^2 / sum of their squares; (..., B, width).

    Between 1 and the lesser of rows and width: in how many directions features vary. It needs products alone, where a
    count of singular values (Kumar et al. 2021) needs a decomposition, which makes a host wait. Mean over an ensemble.
    """
    centred = features - features.mean(-2, keepdim=True)
    rows, width = centred.shape[-2:]
    other = centred.transpose(-2, -1)
    gram = other @ centred if width <= rows else centred @ other
    total, squares = centred.square().sum((-2, -1)), gram.square().sum((-2, -1))
    return (total.square() / squares.clamp(min=torch.finfo(squares.dtype).tiny)).mean()


def mass_at_ends(probs: Tensor) -> Tensor:
    """Mean probability (B, Z) of the two atoms at the ends of a categorical support."""
    return (probs[:, 0] + probs[:, -1]).mean()


Measured = Dict[str, Tuple[Tensor, Tensor]]  # name -> total and count, 0-d each: a mean is the one over the other


def of_critic(algorithm: Any, nets: Any, module: nn.Module, batch: Batch, fresh: Batch, noise: Tensor) -> Measured:
    """Of the V-learner's group "critic".

    Args:
        nets: as the losses have them; `module` is the critic that computes in them.
        batch: rows from all over the ring.
        fresh: rows that no sample has met; others of it weigh nothing.
        noise: of as many rows as `batch`, at least those of `fresh`.
    """
    (loss,) = (getattr(algorithm, group.loss) for group in algorithm.groups() if group.name == "critic")
    values, (on_replay, _) = inside(module, lambda: loss(nets, batch, noise))
    on_fresh, _ = loss(nets, fresh, noise[: len(fresh.weight)])
    with torch.no_grad():
        told = {f"critic_{name}": value for name, value in values.items()}
        told.update(algorithm.diagnose(nets, batch, noise))
        # a loss is the mean over all rows of what counts for each by its weight
        errors = {"td_error_replay": (on_replay, batch.weight), "td_error_fresh": (on_fresh, fresh.weight)}
        sums = {name: (mean.detach() * len(weight), weight.sum()) for name, (mean, weight) in errors.items()}
        return {**single(told), **sums}


@torch.no_grad()
def of_policy(algorithm: Any, nets: Any, module: nn.Module, batch: Batch) -> Measured:
    """Of the P-learner's group "policy", as it acts without exploration."""
    values, action = inside(module, lambda: algorithm.act(nets.policy, batch.obs))
    told = {f"policy_{name}": value for name, value in values.items()}
    return single({**told, "policy_saturation": (action.abs() > SATURATED).float().mean()})


def single(values: Mapping[str, Tensor]) -> Measured:
    """What was measured once."""
    return {name: (value, torch.ones_like(value)) for name, value in values.items()}
