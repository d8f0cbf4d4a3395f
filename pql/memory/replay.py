"""n-step windows and the replay ring.

One invariant each. `NStepWindows`: what it emits is a transition of ONE episode whose target is
`return_n + discount * Q(next_obs)`. `Replay`: a row that can be sampled is not being written.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import torch
from torch import Tensor

from tasks.base import Spaces


class Batch(NamedTuple):
    """Transitions as learners see them; B rows."""

    obs: Tensor  # (B, obs_dim)
    action: Tensor  # (B, action_dim)
    return_n: Tensor  # (B,) sum of gamma^i r_i over the k <= n steps of the window
    next_obs: Tensor  # (B, obs_dim) the observation after those k steps
    discount: Tensor  # (B,) gamma^k, or 0 if the episode terminated there
    weight: Tensor  # (B,) 1, or 0 for a row that must not be learned from
    critic_obs: Tensor  # (B, critic_obs_dim) what the critic sees in place of obs, or obs itself
    next_critic_obs: Tensor  # likewise for next_obs


class Transition(NamedTuple):
    """Transitions on their way to replay; an observation holds all that the policy or the critic may see of it."""

    obs: Tensor  # (N, D), the policy's part, then the critic's own
    action: Tensor  # (N, action_dim)
    return_n: Tensor  # (N,), this and the others as in `Batch`
    next_obs: Tensor  # (N, D)
    discount: Tensor  # (N,)
    weight: Tensor  # (N,)


class NStepWindows:
    """Turns vector steps into n-step transitions; every step past the first n - 1 emits exactly N rows.

    The rows emitted at step t are the windows that began at step t - n + 1, each cut at the end of its episode:
    a terminated episode gives discount 0, a truncated one bootstraps from its terminal observation. A window
    stops before an invalid step and has weight 0 if it begins with one. No branch depends on data, so the whole
    insert can be captured in a CUDA graph.
    """

    def __init__(self, num_envs: int, obs_dim: int, action_dim: int, n_step: int, gamma: float, device="cpu"):
        self.n_step, self.gamma, self.steps = n_step, gamma, 0
        shape = (n_step, num_envs)
        self.obs = torch.zeros(*shape, obs_dim, device=device)
        self.action = torch.zeros(*shape, action_dim, device=device)
        self.next_obs = torch.zeros(*shape, obs_dim, device=device)
        self.reward = torch.zeros(*shape, device=device)
        self.terminated = torch.zeros(*shape, dtype=torch.bool, device=device)
        self.done = torch.zeros(*shape, dtype=torch.bool, device=device)
        self.valid = torch.zeros(*shape, dtype=torch.bool, device=device)

    def add(self, obs, action, reward, next_obs, terminated, truncated, valid) -> Transition | None:
        """Take in one vector step (N rows each); returns the N finished windows, or None in the first n - 1 steps.

        The batch shares memory with the windows: it is valid until the next `add`.
        """
        slot = self.steps % self.n_step
        self.obs[slot] = obs
        self.action[slot] = action
        self.reward[slot] = reward
        self.next_obs[slot] = next_obs
        self.terminated[slot] = terminated
        self.done[slot] = terminated | truncated
        self.valid[slot] = valid
        self.steps += 1
        if self.steps < self.n_step:
            return None
        first = self.steps % self.n_step  # the oldest slot is the next to be overwritten
        alive = self.valid[first]
        weight = alive.float()
        return_n = self.reward[first] * weight
        next_obs = self.next_obs[first]
        discount = torch.full_like(return_n, self.gamma)
        terminated = self.terminated[first]
        for k in range(1, self.n_step):
            previous, slot = (first + k - 1) % self.n_step, (first + k) % self.n_step
            alive = alive & ~self.done[previous] & self.valid[slot]
            return_n = torch.where(alive, return_n + self.gamma**k * self.reward[slot], return_n)
            next_obs = torch.where(alive.unsqueeze(1), self.next_obs[slot], next_obs)
            discount = torch.where(alive, torch.full_like(discount, self.gamma ** (k + 1)), discount)
            terminated = torch.where(alive, self.terminated[slot], terminated)
        discount = torch.where(terminated, torch.zeros_like(discount), discount)
        return Transition(self.obs[first], self.action[first], return_n, next_obs, discount, weight)

    def state_dict(self) -> dict[str, Tensor]:
        names = ("obs", "action", "reward", "next_obs", "terminated", "done", "valid")
        return {"steps": torch.tensor(self.steps), **{name: getattr(self, name) for name in names}}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.steps = int(state["steps"])
        for name, value in state.items():
            if name != "steps":
                getattr(self, name).copy_(value)


class Replay:
    """A ring of transitions, one wide row each: obs | next_obs | action | return_n | discount | weight.

    Observations are the policy's numbers and, where the critic sees something else, its own behind them.

    The writer fills the N rows after `head` and only then advances `head`, so a reader never sees an unfinished
    row. Readers keep clear of the `guard` oldest rows, the next to be overwritten: as pacing bounds how far the
    writer can run ahead while a reader gathers one batch, `guard` rows of that many vector steps make a read of
    a row that is being overwritten impossible. `sample` looks even so, gives such a row weight 0 and counts it in
    `conflicts` (always 0).

    `add` and `sample` look at no value on the host. On a GPU `head` lies beside the rows: as one stream runs its
    kernels in order, what holds of the order of operations here holds between processes too, without an event.

    Args:
        capacity: rows; rounded down to a multiple of `num_envs`, so that a vector step never wraps.
        guard: rows behind the oldest one that are never sampled once the ring is full; 0 where nobody can write
            during a `sample`.
        rows: storage (capacity, row_dim) to use, shared memory for instance; allocated if None.
        head: int64 tensor (1,) on the same device: rows written so far.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        spaces: Spaces,
        guard: int = 0,
        device: torch.device | str = "cpu",
        rows: Tensor | None = None,
        head: Tensor | None = None,
    ):
        self.capacity = capacity // num_envs * num_envs
        self.num_envs, self.guard = num_envs, guard
        self.spaces, self.row_dim = spaces, row_dim(spaces)
        if self.capacity <= guard:
            raise ValueError(f"a ring of {self.capacity} rows must be larger than its guard of {guard} rows")
        self.rows = torch.zeros(self.capacity, self.row_dim, device=device) if rows is None else rows
        self.head = torch.zeros(1, dtype=torch.int64, device=device) if head is None else head
        self.conflicts = torch.zeros((), dtype=torch.int64, device=self.rows.device)
        self._envs = torch.arange(num_envs, device=self.rows.device)

    def __len__(self) -> int:
        """Rows that can be sampled now."""
        return min(int(self.head), self.capacity - self.guard)

    def add(self, step: Transition) -> None:
        """Append one vector step of N rows."""
        rest = torch.stack((step.return_n, step.discount, step.weight), 1)
        rows = torch.cat((step.obs, step.next_obs, step.action, rest), 1)
        self.rows.index_copy_(0, self.head % self.capacity + self._envs, rows)
        self.head += self.num_envs

    def sample(self, batch_size: int, generator: torch.Generator) -> Tensor:
        """`batch_size` rows (B, row_dim), uniformly with replacement, as a copy; `unpack` names their columns."""
        return self.gather(torch.rand(batch_size, generator=generator, device=self.rows.device, dtype=torch.float64))

    def gather(self, unit: Tensor) -> Tensor:
        """The rows at places `unit` (B,) in [0, 1) of those that can be sampled."""
        newest, index = self._places(unit)
        rows = self.rows.index_select(0, index % self.capacity)
        # the writer may by now be writing the rows of [head, head + N), which held those of head - capacity
        written = self.head + (self.num_envs if self.guard else 0)
        whole = (index >= written - self.capacity) & (index < newest)
        rows[:, -1] *= whole
        self.conflicts += (~whole).sum()
        return rows

    def _places(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """The head, and the numbers (B,) of the rows at places `unit`, counted from the first one ever written."""
        newest = self.head.clone()
        oldest = (newest - self.capacity + self.guard).clamp(min=0)
        # a product may round up to the count itself, and an empty ring has no last row
        return newest, torch.minimum(oldest + (unit * (newest - oldest)).long(), newest - 1).clamp(min=0)

    def ages(self, unit: Tensor) -> Tensor:
        """How many rows were written after those that `gather` finds at places `unit`, (B,)."""
        newest, index = self._places(unit)
        return newest - 1 - index

    def newest(self, count: int) -> tuple[Tensor, Tensor]:
        """`count` <= N rows of the last vector step, spread over its environments, and their numbers (count,)."""
        spread = torch.arange(count, device=self.rows.device) * self.num_envs // count
        index = (self.head - self.num_envs + spread).clamp(min=0)
        return self.rows.index_select(0, index % self.capacity), index

    def unpack(self, rows: Tensor, normalizer: Callable[[Tensor], Tensor] | None = None) -> Batch:
        """The columns of rows (B, row_dim), observations through `normalizer`."""
        o, a, c, _ = self.spaces
        both, action, rest = rows.split((2 * (o + c), a, 3), 1)
        both = both.unflatten(1, (2, o + c))
        obs, next_obs = (both if normalizer is None else normalizer(both)).unbind(1)
        return_n, discount, weight = rest.unbind(1)
        seen_by_critic = slice(o, None) if c else slice(None)
        return Batch(
            obs[:, :o], action, return_n, next_obs[:, :o], discount, weight,
            obs[:, seen_by_critic], next_obs[:, seen_by_critic],
        )  # fmt: skip

    def state_dict(self) -> dict[str, Tensor]:
        """The filled rows and the head; no copy."""
        return {"rows": self.rows[: min(int(self.head), self.capacity)], "head": self.head}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.rows[: len(state["rows"])] = state["rows"]
        self.head.copy_(state["head"])


def row_dim(spaces: Spaces) -> int:
    """Columns of a replay row."""
    return 2 * spaces.seen_dim + spaces.action_dim + 3
