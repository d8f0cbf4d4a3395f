"""An update is a fixed sequence of tensor operations: what a CUDA graph asks for, checked without a GPU.

`Recording` notes every operation of one call, autograd's and the optimizer's too, and `replay` does them again on the
same tensors without running any Python of ours. A value read on the host, a counter baked in as a number or a tensor
that has been replaced makes the replayed update differ from a called one.
"""

from __future__ import annotations

import collections
import copy
import random

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from pql import config
from pql.config import make_env
from pql.memory.device import InFlight
from pql.memory.replay import RING, Layout, Replay
from pql.memory.shared import Mailbox
from pql.memory.windows import Windows
from pql.roles.actor import Actor
from pql.roles.build import make_replay, prepare
from pql.roles.p_learner import PLearner
from pql.roles.v_learner import VLearner
from tasks.base import Spaces

OBS, ACTION = 5, 2


class Recording(TorchDispatchMode):
    """Operations on tensors while it is active; `replay` repeats them, new results taking the place of the old."""

    READS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "unique")

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert not any(name.startswith(read) for read in self.READS), f"the host looks at a value: {name}"
        result = function(*args, **(kwargs or {}))
        self.calls.append((function, args, kwargs or {}, result))
        return result

    def replay(self):
        for _ in self.operations():
            pass

    @torch.no_grad()
    def operations(self, pauses=(), halved=()):
        """Does all again; yields before the operations of these numbers, and amid those that are to be halved."""
        new = {}

        def current(tensor):
            return new.get(id(tensor), tensor)

        for number, (function, args, kwargs, result) in enumerate(self.calls):
            args, kwargs = tree_map_only(torch.Tensor, current, (args, kwargs))
            if number in pauses:
                yield
            if number in halved:
                name, (table, *rest) = function.overloadpacket.__name__, args
                middle = table.shape[1] // 2
                if name == "index_copy_":
                    dim, index, source = rest
                    function(table[:, :middle], dim, index, source[:, :middle])
                    yield
                    function(table[:, middle:], dim, index, source[:, middle:])
                    again = table
                else:
                    assert name == "index_select", f"{name} is no copy of rows"
                    left = function(table[:, :middle], *rest)
                    yield
                    again = torch.cat([left, function(table[:, middle:], *rest)], 1)
            else:
                again = function(*args, **kwargs)
            for old, value in zip(tensors(result), tensors(again)):
                new[id(old)] = value


def tensors(result):
    found = []
    tree_map_only(torch.Tensor, found.append, result)
    return found


def learner(role, tiny, algo, critic_obs_dim, **changes):
    """A learner on a filled ring, with mailboxes as on a GPU; the same for the same arguments."""
    cfg = config.load(tiny(algo=algo, **({"algo.num_atoms": 11} if algo == "pql_d" else {}), **changes))
    algorithm, _, shared = prepare(cfg, Spaces(OBS, ACTION, critic_obs_dim))
    for mailbox in (*shared.weights.values(), shared.average, shared.normalizer):
        mailbox.on_device = True
    replay = make_replay(cfg, algorithm, shared)
    generator = torch.Generator().manual_seed(0)
    width = OBS + critic_obs_dim
    for _ in range(40):
        obs, next_obs = torch.randn(2, 8, width, generator=generator)
        replay.append(obs, torch.rand(8, ACTION, generator=generator), obs[:, 0], next_obs)
    return role(cfg, algorithm, replay, shared)


def everything(one):
    """All that an update may change."""
    shared = one.shared
    state = {**one.state_dict(), "sums": shared.boards[one.role].sums, "conflicts": one.replay.conflicts}
    for name, box in {**shared.weights, "average": shared.average}.items():
        state.update({f"{name}.{i}": tensor for i, tensor in enumerate(box.tensors())})
    return {name: value.clone() for name, value in state.items() if name != "generator"}


@pytest.mark.parametrize("critic_obs_dim", [0, 3])
@pytest.mark.parametrize("algo", ["pql", "pql_d"])
@pytest.mark.parametrize("role", [VLearner, PLearner])
def test_update_replayed_as_recorded_operations_is_an_update(tiny, plugin, role, algo, critic_obs_dim):
    called, recorded = (learner(role, tiny, algo, critic_obs_dim) for _ in range(2))

    def others_work(one, n):
        """Between updates the other roles publish and the actor writes: an update must see it."""
        generator = torch.Generator().manual_seed(n)
        for mailbox in one.shared.weights.values():
            mailbox.publish(torch.randn(mailbox.buffers.shape[1], generator=generator))
        moments = torch.rand(one.normalizer.state.shape, generator=generator, dtype=torch.float64) + 1
        one.shared.normalizer.publish(moments)
        obs = torch.randn(8, OBS + critic_obs_dim, generator=generator)
        one.replay.append(obs, torch.rand(8, ACTION, generator=generator), torch.ones(8), obs)

    for one in (called, recorded):
        one.step()
    with Recording() as recording:
        recorded.step()
    called.step()
    for n in range(6):
        for one in (called, recorded):
            others_work(one, n)
        called.step()
        recording.replay()
    before, after = everything(called), everything(recorded)
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0, msg=name)
    assert torch.equal(called.generator.get_state(), recorded.generator.get_state())
    untouched = everything(learner(role, tiny, algo, critic_obs_dim))
    assert not torch.equal(untouched["weights"], before["weights"])


@pytest.mark.parametrize("told", ["false", "true"])
def test_actor_looks_at_no_value_of_what_it_handles(tiny, plugin, told, monkeypatch):
    """The report of faults is what it would wait for on a GPU, two steps late; the environment's part is its own."""
    cfg = config.load(tiny(**{"task.options.told": told}))
    env = make_env(cfg, cfg.num_envs, 0)
    algorithm, _, shared = prepare(cfg, env.spaces)
    for mailbox in (shared.weights["p_learner"], shared.normalizer):
        mailbox.on_device = True
    replay = make_replay(cfg, algorithm, shared)
    actor = Actor(cfg, env, algorithm, replay, shared)
    counter = shared.vector_steps  # the host's own
    for _ in range(cfg.algo.warmup_steps):
        actor.step()
    monkeypatch.setattr(actor, "in_flight", InFlight(torch.device("cpu")))
    monkeypatch.setattr(type(actor), "demand_no_faults", lambda *_: None)
    monkeypatch.setattr(shared, "vector_steps", HostCounter(int(counter)))
    with Recording() as recording:
        for _ in range(5):
            actor.step()
    assert int(replay.head) == 8 * (int(counter) + 5 - 2) and len(recording.calls) > 100


class HostCounter(int):
    """A counter that is no tensor: what the host alone knows may be read."""


def memory(tensor):
    """The bytes in which a tensor lies."""
    start = tensor.data_ptr()
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    return range(start, start + (last + 1) * tensor.element_size())


def overlap(one, other):
    return max(one.start, other.start) < min(one.stop, other.stop)


class Steps:
    """A recording in steps: each ends before the next operation on what another process shares.

    Args:
        shared: what another process shares.
        halved: of that, what takes time to copy: such an operation is two steps.
        writes: only those operations count that change it, of a function that reads what it alone writes.
    """

    def __init__(self, recording, shared, halved, writes=False):
        self.recording, self.numbers, self.halved = recording, set(), set()
        self.touched = []  # by each step, memory
        shared, halved = (list(map(memory, some)) for some in (shared, halved))
        for number, (function, args, kwargs, _) in enumerate(recording.calls):
            if writes:
                aliases = (argument.alias_info for argument in function._schema.arguments)
                args = [arg for arg, alias in zip(args, aliases) if alias is not None and alias.is_write]
            places = [] if function.is_view else [memory(tensor) for tensor in tensors((args, kwargs))]
            places = [place for place in places if any(overlap(place, other) for other in shared)]
            if places:
                self.numbers.add(number)
                self.touched.append(places)
            if any(overlap(place, other) for place in places for other in halved):
                self.halved.add(number)
                self.touched.append(places)

    def begin(self):
        """The steps, to be done one by one; all before the first is done."""
        steps = self.recording.operations(self.numbers, self.halved)
        next(steps)
        return steps


def in_order(order, writer, reader):
    """Do the steps of two streams in an order; True: the writer's turn."""
    turns = {True: writer.begin(), False: reader.begin()}
    for writers in order:
        next(turns[writers], None)
    assert all(next(steps, "over") == "over" for steps in turns.values())


def some_orders(writer, reader):
    rng, total = random.Random(0), len(writer) + len(reader)
    for _ in range(100):
        readers = rng.sample(range(total), len(reader))
        yield [at not in readers for at in range(total)]


def recorded(function, *tensors_that_change):
    """The operations of a call, whose effects are undone."""
    before = [tensor.clone() for tensor in tensors_that_change]
    with Recording() as recording:
        function()
    for tensor, value in zip(tensors_that_change, before):
        tensor.copy_(value)
    return recording


def different_orders(writer, reader):
    """Of the orders of two streams one of each kind: operations that touch nothing in common may change places.

    Yields lists, True: the writer's turn. Left out are those in which the reader has a turn just before one of the
    writer's that it might as well have after it.
    """

    def rest(w, r, last_read):
        if w == len(writer) and r == len(reader):
            yield []
        if w < len(writer) and (last_read is None or any(overlap(a, b) for a in writer[w] for b in reader[last_read])):
            for order in rest(w + 1, r, None):
                yield [True, *order]
        if r < len(reader):
            for order in rest(w, r + 1, r):
                yield [False, *order]

    return rest(0, 0, None)


def test_mailbox_gives_a_whole_version_in_every_order_of_two_gpu_streams():
    """A stream does its kernels in order, two streams theirs in any; and a copy is not done at once."""
    mailbox = Mailbox(2)
    mailbox.on_device = True
    value, into, seen = torch.zeros(2), torch.zeros(2), torch.zeros(1, dtype=torch.int64)
    everything = [*mailbox.tensors(), value, into, seen]

    def publish_two():
        for _ in range(2):
            value.add_(1)
            mailbox.publish(value)

    def publish_and_receive():
        value.fill_(1)
        mailbox.publish(value)
        mailbox.receive(into, seen)

    publish_and_receive()  # version 1 is there, and has been seen
    start = [tensor.clone() for tensor in everything]
    writes, read = recorded(publish_two, *everything), recorded(lambda: mailbox.receive(into, seen), *everything)
    for tensor, saved in zip(everything, start):
        tensor.copy_(saved)
    shared, halved = mailbox.tensors(), [mailbox.buffers]
    writer, reader = Steps(writes, shared, halved, writes=True), Steps(read, shared, halved)
    found = collections.Counter()
    for order in different_orders(writer.touched, reader.touched):
        for tensor, saved in zip(everything, start):
            tensor.copy_(saved)
        in_order(order, writer, reader)
        assert into.tolist() == [float(seen)] * 2, order
        found[int(seen)] += 1
    assert set(found) == {1, 2, 3}, found


@pytest.mark.parametrize("room", ["of ends", "of rows"])
def test_ring_gives_no_torn_row_a_weight_in_any_order_of_two_gpu_streams(room):
    """A writer that nothing holds back laps the reader: rows that it may have touched come without a weight.

    Of ends: where each step ends an episode, one step overwrites the oldest rows; every order of it. Of rows: many
    steps lap the whole ring; 100 orders drawn at random.
    """
    ring = Layout(Spaces(2, 1), 1, 3, guard=0, ends=0)
    replay, stamp = Replay(ring), torch.zeros(1)
    steps, more = (1, 0.5) if room == "of ends" else (ring.slots, 1)

    def add():
        for _ in range(steps):
            start, after = replay.put((stamp + 1).expand(1, 2), (stamp + more).expand(1, 2))
            one = torch.ones(1, dtype=torch.int64)
            replay.add(Windows(start, stamp[:, None], stamp, after, one, one.bool()))
            stamp.add_(1)

    replay.begin(stamp.expand(1, 2))
    for _ in range(20):
        add()
    unit, drawn = torch.linspace(0, 0.99, 8, dtype=torch.float64), replay.blank(8)

    def read():
        for mine, found in zip(drawn, replay.gather(unit)):
            mine.copy_(found)

    shared, halved = [getattr(replay, name) for name in RING], [replay.rows]
    everything = [*shared, replay.conflicts, stamp, *drawn]
    start = [tensor.clone() for tensor in everything]
    writes, reads = recorded(add, *everything), recorded(read, *everything)
    writer, reader = Steps(writes, shared, halved, writes=True), Steps(reads, shared, halved)
    possible = different_orders if room == "of ends" else some_orders
    kept = lost = 0
    for order in possible(writer.touched, reader.touched):
        for tensor, saved in zip(everything, start):
            tensor.copy_(saved)
        in_order(order, writer, reader)
        batch = replay.unpack(drawn)
        whole = batch.weight == 1
        stamps = batch.return_n[whole]
        for column, since in ((batch.obs, 0), (batch.action, 0), (batch.next_obs, more)):
            assert (column[whole] == stamps[:, None] + since).all(), order
        kept, lost = kept + len(stamps), lost + 8 - len(stamps)
    assert kept > 50 and lost > 50, (kept, lost)


def test_recording_catches_what_a_graph_would_not_repeat():
    count = {"host": 0}
    into, source = torch.zeros(1), torch.ones(1)

    def adds_a_host_number():
        count["host"] += 1
        into.copy_(source * count["host"])

    with Recording() as recording:
        adds_a_host_number()
    recording.replay()
    assert float(into) == 1.0  # called twice it would be 2
    with pytest.raises(AssertionError, match="looks at a value"), Recording():
        float(source)


def test_autocast_gives_nearly_the_same_update(tiny, plugin):
    plain, half = (learner(VLearner, tiny, "pql", 0, autocast=autocast) for autocast in ("false", "true"))
    before = plain.weights.data.clone()
    for one in (plain, half):
        one.step()
    a, b = plain.weights.grad, half.weights.grad
    assert a.dtype == b.dtype == torch.float32 and not torch.equal(a, b)
    assert float(torch.dot(a, b) / (a.norm() * b.norm())) > 0.99
    assert not torch.equal(before, half.weights.data)


def test_networks_and_optimizer_are_restored_into_no_new_memory(tiny, plugin):
    """What other tensors of a graph point to stays where it is, whatever is received or restored."""
    one = learner(VLearner, tiny, "pql", 0)
    one.step()
    optimizer = one.optimizers["critic"]
    places = {"targets": one.targets.data.data_ptr(), "weights": one.weights.data.data_ptr()}
    places.update({f"optimizer.{name}": tensor.data_ptr() for name, tensor in optimizer.state_dict().items()})
    one.load_state_dict(copy.deepcopy(one.state_dict()))
    one.step()
    assert places["weights"] == one.weights.data.data_ptr() == next(one.nets.critic.parameters()).data_ptr()
    assert places["targets"] == next(one.nets.critic_target.parameters()).data_ptr()
    assert all(places[f"optimizer.{name}"] == t.data_ptr() for name, t in optimizer.state_dict().items())
