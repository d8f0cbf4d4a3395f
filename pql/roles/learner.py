"""What the two learners share: seeding, the optimizer step, the loss as it is computed, their state."""

from __future__ import annotations

import hashlib
import sys
from typing import Any, Callable

import torch
from torch import Tensor

from pql.algorithms.networks import FlatParameters
from pql.memory.device import InFlight, device_of
from pql.memory.replay import Replay
from pql.memory.shared import Shared
from pql.roles.normalizer import Normalizer
from tasks.graphs import TorchGraph


def seed_of(seed: int, role: str) -> int:
    """A seed of its own for each role, so that no role's draws depend on another's."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{role}".encode()).digest()[:7], "little")


def generator_of(seed: int, role: str, device: torch.device | str) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed_of(seed, role))


class Optimizer:
    """AdamW (Loshchilov and Hutter 2019) with gradient clipping on the flat parameters of one network.

    It is torch's fused kernel on state of our own: torch.optim's object would import a compiler (a second at every
    start) and give its state new tensors when it is loaded, which a recorded graph would not see.
    """

    BETAS, EPSILON = (0.9, 0.999), 1e-8

    def __init__(self, weights: FlatParameters, lr: float, weight_decay: float, max_grad_norm: float):
        self.weights, self.max_grad_norm = weights, max_grad_norm
        self.exp_avg, self.exp_avg_sq = torch.zeros_like(weights.data), torch.zeros_like(weights.data)
        self.steps = torch.zeros((), device=weights.data.device)  # where the kernel wants it, as float32
        self.options = {"lr": lr, "weight_decay": weight_decay, "eps": self.EPSILON}
        self.options.update(beta1=self.BETAS[0], beta2=self.BETAS[1], amsgrad=False, maximize=False)

    def step(self, loss: Tensor) -> Tensor:
        """Backward, clip, update. Returns the norm of the gradient before clipping, 0-d."""
        grad = self.weights.grad.zero_()
        loss.backward()
        norm = torch.linalg.vector_norm(grad)
        grad.mul_((self.max_grad_norm / (norm + 1e-6)).clamp_(max=1.0))
        self.steps += 1
        state = [grad], [self.exp_avg], [self.exp_avg_sq], [], [self.steps]
        torch._fused_adamw_([self.weights.data], *state, **self.options)
        return norm

    def state_dict(self) -> dict[str, Tensor]:
        return {"step": self.steps, "exp_avg": self.exp_avg, "exp_avg_sq": self.exp_avg_sq}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, mine in self.state_dict().items():
            mine.copy_(state[name])


def fuse(loss: Callable[..., Any], *example: Any) -> Callable[..., Any]:
    """`loss` through torch.compile, after a trial on an example of its arguments, forward and backward.

    Where that is not to be had (there is no C++ compiler, say) one line says so and `loss` itself is returned.
    """
    # one compiler, in this process: a pool of its own would outlive a role that is killed
    fused = torch.compile(loss, dynamic=False, options={"compile_threads": 1})
    try:
        fused(*example)[0].backward()
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        advice = "install a C++ compiler (g++), or give compile=false"
        print(f"note: not compiled ({reason}), so updates are slower: {advice}", file=sys.stderr, flush=True)
        return loss
    return fused


class Learner:
    """A role that trains one network: `weights`, `optimizer`, and further networks in `others`.

    A subclass gives `loss_of`, from replay rows to a loss, and `step`, a whole update as a fixed sequence of tensor
    operations: the same whatever the values, so that a GPU can replay it as a graph.
    """

    role: str
    weights: FlatParameters
    optimizer: Optimizer
    others: dict[str, FlatParameters]

    def __init__(self, cfg, algorithm, replay: Replay, shared: Shared):
        home = replay.rows.device  # of what is shared; what is drawn there is copied to a learner elsewhere
        self.device = device = device_of(cfg, self.role)
        self.cfg, self.algorithm, self.replay, self.shared = cfg.algo, algorithm, replay, shared
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=cfg.autocast, cache_enabled=False)
        self.normalizer = Normalizer(replay.obs_dim + replay.critic_obs_dim, device)
        self.generator = generator_of(cfg.seed, self.role, home)
        graphs = cfg.cuda_graphs and device == home
        self.graphed_step = TorchGraph(self.step, device, [self.generator], graphs, "updates")
        self.in_flight = InFlight(device)

    def sample(self) -> Tensor:
        """Replay rows (B, row_dim) where this learner is."""
        return self.replay.sample(self.cfg.batch_size, self.generator).to(self.device)

    def step(self) -> None:
        """Receive, sample, differentiate, update: one gradient step without a look at a value."""
        raise NotImplementedError

    def publish(self) -> None:
        """Give the other roles the current weights."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Tensor]:
        state = {"weights": self.weights.data, "generator": self.generator.get_state()}
        state.update({f"others.{name}": flat.data for name, flat in self.others.items()})
        state.update({f"optimizer.{name}": value for name, value in self.optimizer.state_dict().items()})
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.weights.data.copy_(state["weights"])
        self.generator.set_state(state["generator"].cpu())
        for name, flat in self.others.items():
            flat.data.copy_(state[f"others.{name}"])
        prefix = "optimizer."
        self.optimizer.load_state_dict({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)})
        self.publish()
