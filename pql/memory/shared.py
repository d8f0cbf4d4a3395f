"""What crosses a process border: allocated once, before the processes start; then only indices and versions move.

Every counter and every mailbox has exactly one writer, so nothing here needs a lock, and a process that is killed
at any moment leaves nothing locked. On a GPU what roles compute with lies in its memory (CUDA IPC, mapped once), and
what they wait for, the counters of steps and updates, in the host's. A step copies nothing between the two but the
actor's report of faults, four numbers for which nobody waits (`runtime.device.InFlight`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pql.memory.pinned import mapped
from pql.memory.replay import Layout

ROLES = ("actor", "v_learner", "p_learner")


class Mailbox:
    """One writer publishes vectors of a fixed size; readers take the newest whole one.

    Two buffers: version v lies in buffer v % 2. `begun` goes up before a buffer is touched, `version` after it is
    complete. A copy of version v is whole if by its end nobody had begun version v + 2.

    On a GPU the versions lie beside the buffers and nobody looks at them from the host: each operation is a kernel,
    those of one stream run in order, and so the same rule holds between processes, without an event and within a
    CUDA graph. A reader that was overtaken keeps what it had.
    """

    def __init__(self, size: int, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"):
        self.buffers = torch.zeros(2, size, dtype=dtype, device=device)
        self.begun = torch.zeros(1, dtype=torch.int64, device=device)
        self.version = torch.zeros(1, dtype=torch.int64, device=device)
        self.on_device = self.buffers.is_cuda

    def publish(self, value: Tensor) -> None:
        self.begun += 1
        if self.on_device:
            self.buffers.index_copy_(0, self.begun % 2, value.to(self.buffers.device).unsqueeze(0))
        else:
            self.buffers[int(self.begun) % 2].copy_(value)
        self.version.copy_(self.begun)

    def replace(self, value: Tensor) -> None:
        """Put a vector in place of the newest, or publish the first; before there are readers."""
        if not int(self.version):
            self.publish(value)
        self.buffers[int(self.version) % 2].copy_(value)

    def receive(self, into: Tensor, seen: Tensor) -> None:
        """Copy the newest vector into `into` if it is newer than version `seen` (1,), and its version into `seen`."""
        if self.on_device:
            self._receive_on_device(into, seen)
            return
        while int(self.version) != int(seen):
            version = int(self.version)
            into.copy_(self.buffers[version % 2])
            if int(self.begun) <= version + 1:
                seen.fill_(version)

    def read(self, into: Tensor) -> None:
        """Copy the newest vector into `into`, if there is one; for those who may wait for the device."""
        seen = torch.zeros_like(self.version, device=into.device)
        while int(self.version) and not int(seen):
            self.receive(into, seen)

    def _receive_on_device(self, into: Tensor, seen: Tensor) -> None:
        """`receive` without a look at a value; `into` and `seen` may be on another GPU."""
        there = into.device
        version = self.version.clone()
        newest = self.buffers.index_select(0, version % 2).squeeze(0)
        whole = (self.begun <= version + 1).to(there)
        into.copy_(torch.where(whole, newest.to(there), into))
        seen.copy_(torch.where(whole, version.to(there), seen))

    def tensors(self) -> list[Tensor]:
        return [self.buffers, self.begun, self.version]


class Board:
    """Running sums of a role's measurements: one writer, any reader; a mean is a difference of two readings."""

    def __init__(self, names: tuple[str, ...], device: torch.device | str = "cpu"):
        self.names = names
        self.sums = torch.zeros(len(names) + 1, dtype=torch.float64, device=device)  # the last one counts
        self.one = torch.ones(1, dtype=torch.float64, device=device)

    def add(self, values: dict[str, Tensor]) -> None:
        """Add one measurement of every name, 0-d or (1,)."""
        new = torch.stack([values[name].double().reshape(()) for name in self.names])
        self.sums += torch.cat([new.to(self.one.device), self.one])

    def means(self, since: Tensor) -> dict[str, float]:
        """Means of what came after the reading `since`; empty if nothing did."""
        *sums, count = (self.sums - since).tolist()
        return {name: total / count for name, total in zip(self.names, sums)} if count else {}


class Gauges:
    """Running sums of what a role measures now and then, each over a count of its own; one writer, any reader."""

    def __init__(self, names: tuple[str, ...], device: torch.device | str = "cpu"):
        self.names = names
        self.sums = torch.zeros(2, len(names), dtype=torch.float64, device=device)  # totals, counts

    def add(self, totals: Tensor, counts: Tensor) -> None:
        """Sums (len(names),) over so many; a total that is no finite number counts as not measured."""
        new = torch.stack((totals.double(), counts.double())).to(self.sums.device)
        self.sums += torch.where(new[0].isfinite(), new, 0.0)

    def means(self, since: Tensor) -> dict[str, float]:
        """Means of what came after the reading `since`; a name of which nothing came is left out."""
        totals, counts = (self.sums - since).tolist()
        return {name: total / count for name, total, count in zip(self.names, totals, counts) if count > 0}


class Shared:
    """Counters, mailboxes, boards, the ring's storage.

    Args:
        ring: layout of the replay ring.
        weights: learner -> length of the vector of its networks.
        average_size, normalizer_size, returns_size: lengths of the vectors in the other mailboxes.
        boards: measurement names of each learner.
        gauges: names of what each role measures now and then.
    """

    def __init__(self, ring: Layout, weights, average_size, normalizer_size, returns_size, boards, gauges, device):
        self.learning_starts = 0  # vector step before which no learner samples; constant while processes run
        self.ring = ring.allocate(device)
        self._rows: Tensor | None = None  # the ring's, where they lie in the host's memory, as a GPU sees them
        self.weights = {role: Mailbox(size, device=device) for role, size in weights.items()}
        self.average = Mailbox(average_size, device=device)  # of the policies: the one that is evaluated
        self.normalizer = Mailbox(normalizer_size, torch.float64, device)
        self.returns = Mailbox(returns_size, torch.float64, device)
        self.boards = {role: Board(names, device) for role, names in boards.items()}
        self.gauges = {role: Gauges(names, device) for role, names in gauges.items()}
        counter = torch.int64
        # written by the actor: mean return, mean length and count of the last episodes; transitions that joined two
        # episodes or diverged; environment steps for whose contacts the simulator had no room
        self.episodes = torch.full((3,), float("nan"), dtype=torch.float64, device=device)
        self.invalid = torch.zeros(1, dtype=counter, device=device)
        self.diverged = torch.zeros(1, dtype=counter, device=device)  # of those, what left the finite numbers
        self.contact_overflows = torch.zeros(1, dtype=counter, device=device)
        # written by each learner: rows that it met while they were written
        self.conflicts = {role: torch.zeros((), dtype=counter, device=device) for role in boards}
        self.vector_steps = torch.zeros(1, dtype=counter)  # written by the actor
        self.critic_updates = torch.zeros(1, dtype=counter)  # written by the V-learner
        self.policy_updates = torch.zeros(1, dtype=counter)  # written by the P-learner
        self.step_limit = torch.zeros(1, dtype=counter)  # written by the parent: the actor stops here
        self.stop = torch.zeros(1, dtype=counter)  # written by the parent
        self.save = torch.zeros(1, dtype=counter)  # written by the parent: number of the checkpoint asked for
        self.saved = torch.zeros(1, dtype=counter)  # written by the parent: number of the checkpoint finished
        self.paused = {role: torch.zeros(1, dtype=counter) for role in ROLES}  # checkpoint a role stands still for
        self.unsaved = {role: torch.zeros(1, dtype=counter) for role in ROLES}  # errno where it can't save
        self.ready = {role: torch.zeros(1, dtype=counter) for role in ROLES}
        self.heartbeat = {role: torch.zeros(1, dtype=torch.float64) for role in ROLES}
        self.waited = {role: torch.zeros(1, dtype=torch.float64) for role in ROLES}  # seconds spent blocked

    def ring_on_device(self) -> dict[str, Tensor]:
        """The ring as roles see it: rows that lie in the host's memory are a GPU's. Raises UserError."""
        rows, home = self.ring["rows"], self.ring["head"].device
        if rows.device == home:
            return self.ring
        if self._rows is None:
            self._rows = mapped(rows, home)
        return {**self.ring, "rows": self._rows}

    def tensors(self) -> list[Tensor]:
        found = [*self.ring.values(), self.vector_steps, self.critic_updates, self.policy_updates]
        found += [self.episodes, self.invalid, self.diverged, self.contact_overflows]
        found += [self.step_limit, self.stop, self.save, self.saved]
        for mailbox in (*self.weights.values(), self.average, self.normalizer, self.returns):
            found += mailbox.tensors()
        found += [board.sums for board in (*self.boards.values(), *self.gauges.values())]
        found += self.conflicts.values()
        for group in (self.paused, self.unsaved, self.ready, self.heartbeat, self.waited):
            found += group.values()
        return found

    def share(self) -> Shared:
        """Move CPU tensors to shared memory; CUDA tensors are shared as they are (CUDA IPC)."""
        for tensor in self.tensors():
            tensor.share_memory_()
        return self
