"""n-step windows and the replay ring.

One invariant each. `NStepWindows`: what it emits is a transition of ONE episode whose target is
`return_n + discount * Q(next_obs)`. `Replay`: a row that can be sampled is not being written.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Transitions as learners see them; B rows."""

    obs: Tensor  # (B, obs_dim)
    action: Tensor  # (B, action_dim)
    return_n: Tensor  # (B,) sum of gamma^i r_i over the k <= n steps of the window
    next_obs: Tensor  # (B, obs_dim) the observation after those k steps
    discount: Tensor  # (B,) gamma^k, or 0 if the episode terminated there
    weight: Tensor  # (B,) 1, or 0 for a row that must not be learned from


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

    def add(self, obs, action, reward, next_obs, terminated, truncated, valid) -> Batch | None:
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
        return Batch(self.obs[first], self.action[first], return_n, next_obs, discount, weight)

    def state_dict(self) -> dict[str, Tensor]:
        names = ("obs", "action", "reward", "next_obs", "terminated", "done", "valid")
        return {"steps": torch.tensor(self.steps), **{name: getattr(self, name) for name in names}}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.steps = int(state["steps"])
        for name, value in state.items():
            if name != "steps":
                getattr(self, name).copy_(value)


class Replay:
    """A ring of transitions, one wide row each: [obs | action | return_n | next_obs | discount | weight].

    The writer fills the N rows after `head` and only then advances `head`, so a reader never sees an unfinished
    row. Readers keep clear of the `guard` oldest rows, the next to be overwritten: as pacing bounds how far the
    writer can run ahead while a reader gathers one batch, `guard` rows of that many vector steps make a read of
    a row that is being overwritten impossible. `sample` checks even so and counts in `conflicts` (always 0).

    Args:
        capacity: rows; rounded down to a multiple of `num_envs`, so that a vector step never wraps.
        guard: rows behind the oldest one that are never sampled once the ring is full.
        rows: storage (capacity, row_dim) to use, shared memory for instance; allocated if None.
        head: int64 tensor (1,) on the CPU: rows written so far.
    """

    def __init__(
        self,
        capacity: int,
        num_envs: int,
        obs_dim: int,
        action_dim: int,
        guard: int = 0,
        device: torch.device | str = "cpu",
        rows: Tensor | None = None,
        head: Tensor | None = None,
    ):
        self.capacity = capacity // num_envs * num_envs
        self.num_envs, self.obs_dim, self.action_dim, self.guard = num_envs, obs_dim, action_dim, guard
        self.row_dim = 2 * obs_dim + action_dim + 3
        if self.capacity <= guard:
            raise ValueError(f"a ring of {self.capacity} rows must be larger than its guard of {guard} rows")
        self.rows = torch.zeros(self.capacity, self.row_dim, device=device) if rows is None else rows
        self.head = torch.zeros(1, dtype=torch.int64) if head is None else head
        self.conflicts = 0

    def __len__(self) -> int:
        """Rows that can be sampled now."""
        return min(int(self.head), self.capacity - self.guard)

    def add(self, batch: Batch) -> None:
        """Append one vector step of N rows."""
        head = int(self.head)
        at = head % self.capacity
        o, a = self.obs_dim, self.action_dim
        rows = self.rows[at : at + self.num_envs]
        rows[:, :o] = batch.obs
        rows[:, o : o + a] = batch.action
        rows[:, o + a] = batch.return_n
        rows[:, o + a + 1 : 2 * o + a + 1] = batch.next_obs
        rows[:, 2 * o + a + 1] = batch.discount
        rows[:, 2 * o + a + 2] = batch.weight
        self.head += self.num_envs

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """`batch_size` rows, uniformly with replacement, as a copy."""
        while True:
            head = int(self.head)
            oldest = max(0, head - self.capacity + self.guard)
            index = torch.randint(
                oldest, head, (batch_size,), generator=generator, device=self.rows.device, dtype=torch.int64
            )
            rows = self.rows.index_select(0, index.remainder_(self.capacity))
            # the writer may by now be writing the rows of [head, head + N), which held those of head - capacity
            if int(self.head) + self.num_envs - self.capacity <= oldest or self.guard == 0:
                return self.unpack(rows)
            self.conflicts += 1

    def unpack(self, rows: Tensor) -> Batch:
        o, a = self.obs_dim, self.action_dim
        return Batch(
            obs=rows[:, :o],
            action=rows[:, o : o + a],
            return_n=rows[:, o + a],
            next_obs=rows[:, o + a + 1 : 2 * o + a + 1],
            discount=rows[:, 2 * o + a + 1],
            weight=rows[:, 2 * o + a + 2],
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The filled rows and the head; no copy."""
        return {"rows": self.rows[: min(int(self.head), self.capacity)], "head": self.head}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.rows[: len(state["rows"])] = state["rows"]
        self.head.copy_(state["head"])
