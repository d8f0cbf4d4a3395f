"""What an algorithm is, found by trying it: sizes of its networks, names of its metrics, what an update asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Mapping

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pql.algorithms.base import P_LEARNER, V_LEARNER, Algorithm, Nets
from pql.algorithms.diagnostics import of_critic, of_policy
from pql.errors import UserError
from pql.memory.replay import Batch

ROWS = 8  # of the trial's batch, to which the count of operations is proportional


class ProductFlops(TorchDispatchMode):
    """Counts the floating-point operations of matrix products, by torch's formulas.

    torch's own FlopCounterMode would import a compiler (a second at every start), as modes do by default, and so would
    the meta device.
    """

    total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func.overloadpacket in flop_registry:
            self.total += flop_registry[func.overloadpacket](*args, **kwargs, out_val=out)
        return out


@dataclass(frozen=True)
class Survey:
    """Of one algorithm in environments of given sizes."""

    metrics: Mapping[str, tuple]  # learner -> names of what its losses and optimizers measure
    diagnostics: Mapping[str, tuple]  # learner -> names of what diagnoses measure
    parameters: Mapping[str, int]  # group -> how many
    agent_parameters: int  # of all groups and their target copies
    norms: Mapping[str, float]  # group -> Euclidean norm of new weights
    flops: Mapping[str, int]  # learner -> floating-point operations of the products in one update


def survey(algorithm: Algorithm) -> Survey:
    """Every loss once, forward and backward, on a small batch. Raises UserError where it breaks the contract."""
    groups = algorithm.groups()
    name = type(algorithm).__name__
    for role, needed in ((V_LEARNER, "critic"), (P_LEARNER, "policy")):
        if needed not in (group.name for group in groups if group.role == role):
            raise UserError(f"{name}: groups() gives the {role} no group named '{needed}'")
    spaces = algorithm.spaces
    obs, critic_obs = torch.ones(ROWS, spaces.obs_dim), torch.ones(ROWS, spaces.critic_dim)
    action, ones = torch.zeros(ROWS, spaces.action_dim), torch.ones(ROWS)
    batch = Batch(obs, action, ones, obs, ones, ones, critic_obs, critic_obs)
    metrics: dict[str, tuple] = {}
    flops: dict[str, int] = {}
    with torch.random.fork_rng(devices=[]):
        modules: dict[str, nn.Module] = {group.name: group.make() for group in groups}
        modules.update({f"{group.name}_target": group.make() for group in groups if group.tau is not None})
        parameters = {group.name: sum(p.numel() for p in modules[group.name].parameters()) for group in groups}
        agent = sum(p.numel() for module in modules.values() for p in module.parameters())
        norms = {group.name: _norm(modules[group.name]) for group in groups}
        for role in (V_LEARNER, P_LEARNER):
            mine = algorithm.trained_by(role)
            for key, module in modules.items():
                module.requires_grad_(key in (group.name for group in mine))
            names: list[str] = []
            with ProductFlops() as counted:
                for loss in dict.fromkeys(group.loss for group in mine):
                    if not hasattr(algorithm, loss):
                        raise UserError(f"{name}: a group names the loss '{loss}', but there is no such method")
                    noise = torch.zeros(ROWS, algorithm.noise_columns(loss))
                    value, found = getattr(algorithm, loss)(Nets(**modules), batch, noise)
                    value.backward()
                    names += found
            metrics[role] = (*names, *(f"{group.name}_grad_norm" for group in mine))
            flops[role] = counted.total * algorithm.cfg.batch_size // ROWS
        nets, (loss,) = Nets(**modules), {group.loss for group in groups if group.name == "critic"}
        noise = torch.zeros(ROWS, algorithm.noise_columns(loss))
        seen = {V_LEARNER: of_critic(algorithm, nets, modules["critic"], batch, batch, noise)}
        seen[P_LEARNER] = of_policy(algorithm, nets, modules["policy"], batch)
        diagnostics = {role: tuple(found) for role, found in seen.items()}
    return Survey(metrics, diagnostics, parameters, agent, norms, flops)


def _norm(module: nn.Module) -> float:
    return math.sqrt(sum(float(p.detach().double().square().sum()) for p in module.parameters()))
