"""The contract of an algorithm: everything that is its own, in one class that knows no process, device or optimizer.

An algorithm says which groups of parameters there are and which role trains each, by which loss and with which
optimizer; how its networks act, exploring and not; and it has typed options. Roles and runtime are written once, for
all of them: from this declaration they size mailboxes, checkpoints and graphs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn

from pql.keys import key
from pql.memory.replay import Batch
from tasks.base import Spaces

V_LEARNER, P_LEARNER = "v_learner", "p_learner"
Require = Callable[[bool, str, str], None]


@dataclass
class Options:
    """The keys that every algorithm has; one with more keys inherits and adds them."""

    name: str = key("pql", "the algorithm", identity=True)
    batch_size: int = key(256, "transitions per critic and per policy update")
    critic_lr: float = key(3e-4, "step size of the critics")
    actor_lr: float = key(3e-4, "step size of the policy")
    critic_updates_per_step: Optional[float] = key(
        None, "critic updates per vector step, fractions allowed", identity=True
    )
    utd: Optional[float] = key(None, "critic updates per transition; give this or critic_updates_per_step")
    critic_updates_per_policy_update: int = key(1, "critic updates per policy update", identity=True)
    n_step: int = key(1, "steps summed before bootstrapping", identity=True)
    gamma: float = key(0.99, "discount per step", identity=True)
    tau: float = key(0.005, "share of the new critic in the soft target update")
    replay_size: int = key(1_000_000, "transitions kept", identity=True)
    replay_dtype: str = key(
        "float32", "how observations and actions are kept: float32, or bfloat16 in half the memory", identity=True
    )
    replay_ends: float = key(
        0.02, "share of the kept transitions that may end an episode; where more do, fewer are kept", identity=True
    )
    replay_device: Optional[str] = key(
        None, "cpu: the replay ring in the host's memory, for one too large for the GPU's; null: in the device's"
    )
    warmup_steps: int = key(32, "vector steps of uniform random actions before learning")
    reward_scale: float = key(
        1.0, "rewards are multiplied by this before learning (never in reported returns)", identity=True
    )
    policy_average: float = key(1.0, "least share of the newest policy in the averaged, deployed one; 1: no average")
    normalize_obs: bool = key(True, "normalise observations by their running moments")
    reset_interval: Optional[int] = key(None, "critic updates between two resets of networks and optimizers")
    reset_updates: List[int] = key([], "critic updates after which networks and optimizers begin anew")
    reset_env_steps: List[int] = key([], "the same, counted in transitions")
    v_device: Optional[str] = key(None, "the V-learner's own device, cuda:1 say; null: that of the run")
    p_device: Optional[str] = key(None, "the P-learner's own device; null: that of the run")

    def check(self, require: Require) -> None:
        """`require(ok, key, rule)` for every rule that its values must keep."""
        for name in ("batch_size", "n_step", "critic_updates_per_policy_update", "replay_size"):
            require(getattr(self, name) >= 1, name, "at least 1")
        for name in ("critic_lr", "actor_lr", "reward_scale", "critic_updates_per_step"):
            require(getattr(self, name) > 0, name, "greater than 0")
        require(0 <= self.gamma < 1, "gamma", "in [0, 1)")
        require(self.replay_dtype in ("float32", "bfloat16"), "replay_dtype", "float32 or bfloat16")
        require(0 <= self.replay_ends <= 1, "replay_ends", "in [0, 1]")
        require(0 < self.tau <= 1, "tau", "in (0, 1]")
        require(0 < self.policy_average <= 1, "policy_average", "in (0, 1]")
        require(self.reset_interval is None or self.reset_interval >= 1, "reset_interval", "at least 1")
        for name in ("reset_updates", "reset_env_steps"):
            counts = getattr(self, name)
            require(all(count >= 1 for count in counts), name, "a list of numbers of at least 1")
        require(self.warmup_steps >= self.n_step, "warmup_steps", f"at least algo.n_step ({self.n_step})")


@dataclass(frozen=True)
class Adam:
    """AdamW (Loshchilov and Hutter 2019) or, without decay, Adam (Kingma and Ba 2015)."""

    lr: float
    betas: Tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0  # decoupled from the gradient: a step shrinks the weights by lr * weight_decay
    max_grad_norm: Optional[float] = None  # the gradient of the whole group is clipped to this norm
    # updates of the group so far, 0-d float32 -> a factor for lr, 0-d
    schedule: Optional[Callable[[Tensor], Tensor]] = None


@dataclass(frozen=True)
class Group:
    """Parameters that are trained together: one network, or a scalar."""

    name: str
    make: Callable[[], nn.Module]  # a new network, drawn from torch's global generator
    role: str  # who trains it: V_LEARNER or P_LEARNER
    optimizer: Adam
    # The method of the algorithm whose value is lowered. Groups of one role that name the same loss share a gradient
    # pass; the losses of a role are lowered in the order in which the groups are declared, within every update.
    loss: str
    tau: Optional[float] = None  # share of the new weights in the target copy after an update; None: no such copy
    resets: bool = True  # begins anew where options ask for resets
    after_step: Optional[Callable[[nn.Module], None]] = None  # a constraint on weights, in place: a unit norm, say


class Nets:
    """An algorithm's networks as attributes: each group by its name, target copies as `<name>_target`."""

    def __init__(self, **modules: nn.Module):
        self.__dict__.update(modules)


Loss = Tuple[Tensor, Dict[str, Tensor]]  # a scalar to lower, and metrics: 0-d, the same names every time


class Algorithm:
    """Base class. A subclass gives `groups`, a method for each loss that they name, and how to act.

    A loss is a pure function `loss(nets, batch, noise) -> (scalar, metrics)`: of networks, of a batch whose
    observations are already normalised, and of standard normal noise (B, `noise_columns(loss)`). A group named
    "policy" is the one that is deployed, and one named "critic" is what the frontier counts.
    """

    Options: type = Options
    # Rewards are divided by the running discounted return's standard deviation, or by its largest size over this
    # bound where that is more, so that values stay within about +-bound. None: they are not.
    return_bound: Optional[float] = None

    def __init__(self, options: Any, spaces: Spaces):
        self.cfg, self.spaces = options, spaces

    def groups(self) -> list[Group]:
        """What is trained, by whom and how, in the order of training."""
        raise NotImplementedError

    def noise_columns(self, loss: str) -> int:
        """Columns of the noise that a loss gets; 0: none is drawn."""
        return self.spaces.action_dim

    def diagnose(self, nets: Nets, batch: Batch, noise: Tensor) -> dict[str, Tensor]:
        """What shall be looked at now and then besides what roles measure for all algorithms (docs/metrics.md).

        Called as the critic's loss is, without a gradient, once in many updates. Returns 0-d tensors by name, the same
        names every time.
        """
        return {}

    def act(self, policy: nn.Module, obs: Tensor) -> Tensor:
        """Without exploration: (B, obs_dim) normalised observations -> (B, action_dim) actions in [-1, 1]."""
        return policy(obs)

    def exploration(self, num_envs: int, device: torch.device) -> dict[str, Tensor]:
        """What exploration remembers between steps, (N, ...) tensors; `explore` writes into them."""
        return {}

    def explore(self, nets: Nets, obs: Tensor, memory: dict[str, Tensor], generator: torch.Generator) -> Tensor:
        """The action to collect data with: (N, obs_dim) -> (N, action_dim) in [-1, 1].

        Args:
            nets: the groups that the P-learner trains.
            memory: what `exploration` made.
            generator: the only source of randomness.
        """
        raise NotImplementedError

    def value(self, critic: nn.Module, critic_obs: Tensor, action: Tensor) -> Tensor:
        """The critics' values (E, B) of actions."""
        return critic(torch.cat([critic_obs, action], 1)).squeeze(2)

    # what follows is the runtime's

    def trained_by(self, role: str) -> list[Group]:
        """The groups of a role, in order."""
        return [group for group in self.groups() if group.role == role]


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of `like`'s shape."""
    return torch.randn(like.shape, generator=generator, device=like.device)


@dataclass
class MLPOptions(Options):
    """Of algorithms whose networks are plain stacks of layers."""

    hidden: List[int] = key([256, 256], "widths of the hidden layers, policy and critics", identity=True)
    activation: str = key("relu", "relu, elu, silu", identity=True)
    layer_norm: bool = key(False, "normalise each hidden layer", identity=True)

    def check(self, require: Require) -> None:
        super().check(require)
        require(self.activation in ("relu", "elu", "silu"), "activation", "relu, elu or silu")
        require(bool(self.hidden) and min(self.hidden) >= 1, "hidden", "a list of positive widths, [256,128] say")

