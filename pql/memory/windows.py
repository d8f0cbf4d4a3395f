"""n-step windows: vector steps become transitions of ONE episode; a target is `return_n + discount * Q(next_obs)`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Places(NamedTuple):
    """Where the ring holds a vector step's observations, as positions that only ever grow."""

    start: Tensor  # (1,) of the first of the N observations acted in; the others follow it
    after: Tensor  # (N,) of each environment's next observation


class Windows(NamedTuple):
    """N finished windows; their observations are in the ring already."""

    start: Tensor  # (1,) where the observations lie that they begin with, one after the other
    action: Tensor  # (N, action_dim) the first of each window
    return_n: Tensor  # (N,) sum of gamma^i r_i over the k <= n steps of the window
    after: Tensor  # (N,) where the observation lies that comes after those steps
    steps: Tensor  # (N,) k, or 0 if the episode terminated there
    weight: Tensor  # (N,) bool, False for a row that must not be learned from


class NStepWindows:
    """Turns vector steps into n-step transitions; every step past the first n - 1 emits exactly N rows.

    The rows emitted at step t are the windows that began at step t - n + 1, each cut at the end of its episode:
    a terminated episode gives discount 0, a truncated one bootstraps from its terminal observation. A window
    stops before an invalid step and has weight 0 if it begins with one. No branch depends on data, so the whole
    insert can be captured in a CUDA graph.
    """

    def __init__(self, num_envs: int, action_dim: int, n_step: int, gamma: float, device="cpu"):
        self.n_step, self.gamma, self.steps = n_step, gamma, 0
        shape = (n_step, num_envs)
        self.start = torch.zeros(n_step, dtype=torch.int64, device=device)
        self.after = torch.zeros(*shape, dtype=torch.int64, device=device)
        self.action = torch.zeros(*shape, action_dim, device=device)
        self.reward = torch.zeros(*shape, device=device)
        self.terminated = torch.zeros(*shape, dtype=torch.bool, device=device)
        self.done = torch.zeros(*shape, dtype=torch.bool, device=device)
        self.valid = torch.zeros(*shape, dtype=torch.bool, device=device)

    def add(self, places: Places, action, reward, terminated, truncated, valid) -> Windows | None:
        """Take in one vector step (N rows each); returns the N finished windows, or None in the first n - 1 steps.

        They share memory with what is pending: they are valid until the next `add`.
        """
        slot = self.steps % self.n_step
        self.start[slot : slot + 1] = places.start
        self.after[slot] = places.after
        self.action[slot] = action
        self.reward[slot] = reward
        self.terminated[slot] = terminated
        self.done[slot] = terminated | truncated
        self.valid[slot] = valid
        self.steps += 1
        if self.steps < self.n_step:
            return None
        first = self.steps % self.n_step  # the oldest slot is the next to be overwritten
        alive = weight = self.valid[first]
        return_n = self.reward[first] * weight
        after = self.after[first]
        steps = torch.ones_like(after)
        terminated = self.terminated[first]
        for k in range(1, self.n_step):
            previous, slot = (first + k - 1) % self.n_step, (first + k) % self.n_step
            alive = alive & ~self.done[previous] & self.valid[slot]
            return_n = torch.where(alive, return_n + self.gamma**k * self.reward[slot], return_n)
            after = torch.where(alive, self.after[slot], after)
            steps = steps + alive
            terminated = torch.where(alive, self.terminated[slot], terminated)
        start = self.start[first : first + 1]
        return Windows(start, self.action[first], return_n, after, steps * ~terminated, weight)

    def state_dict(self) -> dict[str, Tensor]:
        names = ("start", "after", "action", "reward", "terminated", "done", "valid")
        return {"steps": torch.tensor(self.steps), **{name: getattr(self, name) for name in names}}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.steps = int(state["steps"])
        for name, value in state.items():
            if name != "steps":
                getattr(self, name).copy_(value)
