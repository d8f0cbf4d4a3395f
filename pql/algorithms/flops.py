"""What an update asks for, counted: the unit of the compute-optimal frontier."""

from __future__ import annotations

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pql import algorithms
from pql.config import Config
from pql.memory.replay import Batch


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


def critic_update_flops(cfg: Config, obs_dim: int, action_dim: int, critic_obs_dim: int = 0) -> int:
    """Floating-point operations of the matrix products in one critic update, counted on the real networks."""
    algorithm = algorithms.make(cfg.algo, obs_dim, action_dim, critic_obs_dim)
    rows = 8  # the count is proportional to the batch
    with torch.random.fork_rng(devices=[]):
        policy, critic, target = algorithm.make_policy(), algorithm.make_critic(), algorithm.make_critic()
    sizes = (rows, obs_dim), (rows, action_dim), (rows, critic_obs_dim or obs_dim), (rows,)
    obs, action, critic_obs, ones = (torch.zeros(*size) for size in sizes)
    batch = Batch(obs, action, ones, obs, ones, ones, critic_obs, critic_obs)
    with ProductFlops() as counted:
        algorithm.critic_loss(critic, target, policy, batch, action)[0].backward()
    return counted.total * cfg.algo.batch_size // rows
