"""The replay ring: each observation once.

Its invariant: a row that can be sampled is whole, and nobody is writing what it consists of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pql.memory.windows import Places, Windows
from tasks.base import Spaces

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WORD = 4  # bytes
RING = ("rows", "offsets", "head", "oldest", "floor", "latest")  # what a ring consists of


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


class Rows(NamedTuple):
    """A sample as it lies in the ring; `Replay.unpack` names its columns."""

    first: Tensor  # (B, words) the rows
    last: Tensor  # (B, seen_words) the observations after them
    code: Tensor  # (B,) int32, 0 for a row that the writer may have been at

    def to(self, device: torch.device) -> Rows:
        return Rows(*(part.to(device) for part in self))


@dataclass(frozen=True)
class Layout:
    """What a ring holds, and the room that it takes.

    Args:
        spaces: what is observed, and how an action looks.
        num_envs: N, rows of a vector step.
        size: transitions to keep; rounded down to a multiple of N.
        guard: rows behind the oldest one that are never sampled once the ring is full; 0 where nobody can write
            during a sample.
        n_step, gamma: of the windows.
        ends: share of the transitions that may end an episode while `size` are kept.
        dtype: of observations and actions.
        on_host: the rows lie in the host's memory, whatever the device of all else.
    """

    spaces: Spaces
    num_envs: int
    size: int
    guard: int = 0
    n_step: int = 1
    gamma: float = 0.99
    ends: float = 0.02
    dtype: torch.dtype = torch.float32
    on_host: bool = False

    @property
    def capacity(self) -> int:
        return self.size // self.num_envs * self.num_envs

    @property
    def slots(self) -> int:
        """Observations for which there is room: of the rows kept, pending or being written, and those of ends."""
        return self.capacity + self.guard + 2 * (self.n_step + 1) * self.num_envs + math.ceil(self.ends * self.capacity)

    @property
    def blocks(self) -> int:
        """Vector steps whose place is known: more than have room."""
        return -(-self.slots // self.num_envs)

    @property
    def bits(self) -> int:
        """Of a row's code that tell its steps and weight; those above tell the slot of its next observation."""
        return (2 * self.n_step + 1).bit_length()

    @property
    def most_slots(self) -> int:
        """As many as a code of 32 bits can tell apart."""
        return 1 << 31 - self.bits

    @property
    def seen_words(self) -> int:
        return -(-self.spaces.seen_dim * self.dtype.itemsize // WORD)

    @property
    def action_words(self) -> int:
        return -(-self.spaces.action_dim * self.dtype.itemsize // WORD)

    @property
    def words(self) -> int:
        return self.seen_words + self.action_words + 2

    def allocate(self, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """An empty ring, see `Replay`; with `on_host` a GPU finds the rows by `pinned.mapped`."""
        # torch's zeros are written, and so take memory twice where they are moved to be shared; numpy's cost none yet
        rows = torch.from_numpy(np.zeros((self.slots, self.words), np.float32))
        rows = rows if self.on_host else rows.to(device)
        offsets = torch.zeros(self.blocks, dtype=torch.int64, device=device)
        numbers = {name: torch.zeros(1, dtype=torch.int64, device=device) for name in RING[2:]}
        numbers["floor"] -= self.slots
        return {"rows": rows, "offsets": offsets, **numbers}


class Replay:
    """A ring of transitions whose observations are held once.

    Observations lie in the order in which they were made: the N of a vector step, then the terminal ones of the
    episodes that ended with the step before it, which are nobody's current observation. Each has one slot of `rows`:
    obs | action | return_n | code, of which a terminal observation uses the first. The code of a row says in which slot
    its next observation lies, how many steps its window has and whether it is to be learned from. What lies where is
    decided by comparing numbers, not by flags: a row shares its next observation with the next step if the two are
    equal to the bit, else it has its own, so that a row is what was put in whatever an environment does.

    Positions count the slots that were ever filled; position p lies in slot `p % slots`, and row j of vector step
    t = j // N at position `j + offsets[t % blocks]`. `head` rows were written so far, those from `oldest` on may be
    sampled, nothing is left of what lies below position `floor`, and `latest` is where the newest vector step's
    observations begin. Where more episodes end than there is room for, the oldest rows leave earlier: an end takes the
    room of a transition.

    The writer moves `oldest` and `floor` before it overwrites, then fills the rows, then advances `head`, so a reader
    never sees an unfinished row. Readers keep clear of the `guard` oldest rows, the next to be overwritten, and of what
    so many rows with all their ends can overwrite: as pacing bounds how far the writer can run ahead while a reader
    gathers one batch, that makes a read of a row that is being overwritten impossible. `gather` looks even so, gives
    such a row weight 0 and counts it in `conflicts` (always 0).

    `put`, `add` and `sample` look at no value on the host. On a GPU these numbers lie beside the rows: as one stream
    runs its kernels in order, what holds of the order of operations here holds between processes too, without an event.

    Args:
        storage: what `Layout.allocate` gave, in shared memory for instance; allocated if there is none.
    """

    def __init__(self, layout: Layout, device: torch.device | str = "cpu", storage: dict[str, Tensor] | None = None):
        self.layout = layout
        if layout.capacity <= layout.guard:
            guard = layout.guard
            raise ValueError(f"a ring of {layout.capacity} rows must be larger than its guard of {guard} rows")
        self._num_envs, self._slots, self._blocks = layout.num_envs, layout.slots, layout.blocks
        self._guard, self._bits, self._seen_words = layout.guard, layout.bits, layout.seen_words
        self.lie_in(storage or layout.allocate(device))
        device = self.rows.device
        self.conflicts = torch.zeros((), dtype=torch.int64, device=device)
        self._envs = torch.arange(layout.num_envs, device=device)
        self._two = layout.num_envs * torch.arange(2, device=device)
        self._steps_and_weight = (1 << layout.bits) - 1  # mask of a code
        codes = range(1 << layout.bits)
        told = [(layout.gamma ** (code >> 1) if code >> 1 else 0.0, code & 1) for code in codes]
        self._told = torch.tensor(told, dtype=torch.float32, device=device)  # discount and weight

    def lie_in(self, storage: dict[str, Tensor]) -> None:
        """Go on in other storage."""
        self.rows, self.offsets, self.head, self.oldest, self.floor, self.latest = (storage[name] for name in RING)

    def __len__(self) -> int:
        """Rows that can be sampled now."""
        return int(self.head - self.oldest)

    def is_untouched(self) -> bool:
        """Whether nothing was ever put in; looks at a value on the host."""
        return int(self.floor) == -self._slots

    def begin(self, obs: Tensor) -> None:
        """Episodes begin everywhere, with `obs` (N, D); no row spans what was before."""
        self.put(obs, obs)

    def put(self, obs: Tensor, next_obs: Tensor) -> Places:
        """Take in the observations after a vector step: to act on next, and the true successors (N, D).

        Returns where those lie that the step began and ended with.
        """
        envs, slots = self._num_envs, self._slots
        obs, next_obs = self._packed(obs, self._seen_words), self._packed(next_obs, self._seen_words)
        differing = obs.view(torch.int32) ^ next_obs.view(torch.int32)
        own = differing.count_nonzero(1) > 0  # any() takes three times as long
        ends = own.cumsum(0)
        before, base = self.latest.clone(), self.floor + slots
        after = base + torch.where(own, ends + (envs - 1), self._envs)
        floor = base + ends[-1:] + (envs - slots)
        # what this step overwrites is part of two vector steps at most
        lost = self._places(self.oldest + self._two) < floor + 2 * self._guard
        self.oldest.copy_(torch.minimum(self.oldest + envs * lost.sum(), self.head))
        self.floor.copy_(floor)
        seen = self.rows[:, : self._seen_words]
        seen.index_copy_(0, after % slots, next_obs)  # where it is not its own, it is equal to obs
        seen.index_copy_(0, (base + self._envs) % slots, obs)
        self.latest.copy_(base)
        return Places(before, after)

    def add(self, windows: Windows) -> None:
        """Append the N rows of windows that begin with the vector step after that of the last ones."""
        ring, envs, slots = self.layout, self._num_envs, self._slots
        code = (windows.after % slots << self._bits) | windows.steps << 1 | windows.weight
        action = self._packed(windows.action, ring.action_words)
        rest = torch.stack((windows.return_n.float(), code.int().view(torch.float32)), 1)
        rest = torch.cat((action, rest), 1)
        self.oldest.clamp_(min=self.head + (envs + self._guard - ring.capacity))
        self.rows[:, self._seen_words :].index_copy_(0, (windows.start + self._envs) % slots, rest)
        self.offsets.index_copy_(0, self.head // envs % self._blocks, windows.start - self.head)
        self.head += envs

    def append(self, obs: Tensor, action: Tensor, return_n: Tensor, next_obs: Tensor, steps: Any = 1) -> None:
        """N rows of windows of so many steps (a number or (N,), see `Windows`), which share no observation."""
        self.begin(obs)
        start, after = self.put(next_obs, next_obs)
        none = torch.zeros_like(self._envs)
        self.add(Windows(start, action, return_n, after, none + steps, none == 0))

    def sample(self, batch_size: int, generator: torch.Generator) -> Rows:
        """`batch_size` rows, uniformly with replacement, as copies."""
        return self.gather(torch.rand(batch_size, generator=generator, device=self.rows.device, dtype=torch.float64))

    def gather(self, unit: Tensor) -> Rows:
        """The rows at places `unit` (B,) in [0, 1) of those that can be sampled."""
        _, index = self._numbers(unit)
        return self.rows_at(index)

    def _numbers(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """The head, and the numbers (B,) of the rows at places `unit`, counted from the first one ever written."""
        newest, oldest = self.head.clone(), self.oldest.clone()
        # a product may round up to the count itself; an empty ring gives its last slot, which has weight 0
        return newest, torch.minimum(oldest + (unit * (newest - oldest)).long(), newest - 1)

    def ages(self, unit: Tensor) -> Tensor:
        """How many rows were written after those that `gather` finds at places `unit`, (B,)."""
        newest, index = self._numbers(unit)
        return newest - 1 - index

    def newest(self, count: int) -> tuple[Rows, Tensor]:
        """`count` <= N rows of the last vector step, spread over its environments, and their numbers (count,)."""
        spread = torch.arange(count, device=self.rows.device) * self._num_envs // count
        index = self.head - self._num_envs + spread
        return self.rows_at(index), index

    def rows_at(self, index: Tensor) -> Rows:
        """Rows by number (B,), counted from the first that was ever written."""
        places = self._places(index)
        first = self.rows.index_select(0, places % self._slots)
        code = first[:, -1].view(torch.int32).contiguous()
        last = self.rows[:, : self._seen_words].index_select(0, code >> self._bits)
        lost = places < self.floor  # by now the writer may have overwritten what lies below
        code.masked_fill_(lost, 0)
        self.conflicts += lost.sum()
        return Rows(first, last, code)

    def unpack(self, rows: Rows, normalizer: Callable[[Tensor], Tensor] | None = None) -> Batch:
        """The columns of rows, observations through `normalizer`."""
        o, a, c, _ = self.layout.spaces
        obs = self._unpacked(rows.first[:, : self._seen_words], o + c)
        next_obs = self._unpacked(rows.last, o + c)
        if normalizer is not None:
            obs, next_obs = normalizer(obs), normalizer(next_obs)
        action = self._unpacked(rows.first[:, self._seen_words : -2], a)
        told = self._told.to(rows.code.device).index_select(0, rows.code & self._steps_and_weight)
        discount, weight = told.unbind(1)
        seen_by_critic = slice(o, None) if c else slice(None)
        return Batch(
            obs[:, :o], action, rows.first[:, -2], next_obs[:, :o], discount, weight,
            obs[:, seen_by_critic], next_obs[:, seen_by_critic],
        )  # fmt: skip

    def blank(self, batch_size: int, device: torch.device | str = "cpu") -> Rows:
        """Rows of zeros, to try things on."""
        first, last = (torch.zeros(batch_size, k, device=device) for k in (self.layout.words, self._seen_words))
        return Rows(first, last, torch.zeros(batch_size, dtype=torch.int32, device=device))

    def _places(self, index: Tensor) -> Tensor:
        """Positions of rows (B,)."""
        return index + self.offsets.index_select(0, index // self._num_envs % self._blocks)

    def _packed(self, values: Tensor, words: int) -> Tensor:
        """(N, K) numbers as (N, words) words."""
        values = values.to(self.layout.dtype)
        if values.dtype == torch.float32:
            return values
        missing = words * WORD // values.element_size() - values.shape[1]
        return torch.nn.functional.pad(values, (0, missing)).contiguous().view(torch.float32)

    def _unpacked(self, words: Tensor, columns: int) -> Tensor:
        """(B, words) as the (B, columns) numbers they hold, float32."""
        return words if self.layout.dtype == torch.float32 else words.view(self.layout.dtype)[:, :columns].float()


def ring_state(storage: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a checkpoint holds of a ring: the filled slots and what is known of them; no copy."""
    rows = storage["rows"]
    return {**storage, "rows": rows[: len(rows) + min(int(storage["floor"]), 0)]}
