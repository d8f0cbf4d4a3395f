"""An update is a fixed sequence of tensor operations: what a CUDA graph asks for, checked without a GPU.

`Recording` notes every operation of one call, autograd's and the optimizer's too, and `replay` does them again on the
same tensors without running any Python of ours. A value read on the host, a counter baked in as a number or a tensor
that has been replaced makes the replayed update differ from a called one.
"""

from __future__ import annotations

import collections
import copy
import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from pql import config
from pql.config import make_env
from pql.errors import UserError
from pql.memory.device import InFlight, device_of, mps_is_running
from pql.memory.replay import Replay, Transition
from pql.memory.shared import Mailbox
from pql.roles.actor import Actor
from pql.roles.build import make_replay, prepare
from pql.roles.p_learner import PLearner
from pql.roles.v_learner import VLearner
from tasks.base import Spaces
from tasks.graphs import TorchGraph

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
    def operations(self, halved=()):
        """Yields what the next operation touches, then does it; in two halves where that is one of `halved`."""
        new = {}

        def current(tensor):
            return new.get(id(tensor), tensor)

        for function, args, kwargs, result in self.calls:
            args, kwargs = tree_map_only(torch.Tensor, current, (args, kwargs))
            touched = tensors((args, kwargs))
            yield touched
            if any(tensor is other for tensor in touched for other in halved):
                name, (table, *rest) = function.overloadpacket.__name__, args
                middle = table.shape[1] // 2
                if name == "index_copy_":
                    dim, index, source = rest
                    function(table[:, :middle], dim, index, source[:, :middle])
                    yield touched
                    function(table[:, middle:], dim, index, source[:, middle:])
                    again = table
                else:
                    assert name == "index_select", f"{name} is no copy of rows"
                    left = function(table[:, :middle], *rest)
                    yield touched
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
        action, ones = torch.rand(8, ACTION, generator=generator), torch.ones(8)
        replay.add(Transition(obs, action, obs[:, 0], next_obs, 0.9 * ones, ones))
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
        ones = torch.ones(8)
        one.replay.add(Transition(obs, torch.rand(8, ACTION, generator=generator), ones, obs, 0.9 * ones, ones))

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


class Stream:
    """A recorded function's operations, executed up to the next one that touches what another process shares."""

    def __init__(self, recording, shared, halved):
        self.operations, self.shared = recording.operations(halved), shared
        self.over = False
        self.advance()

    def advance(self):
        """Do the shared operation that is next, and all up to the one after it."""
        for touched in self.operations:
            if any(tensor is other for tensor in touched for other in self.shared):
                return
        self.over = True


def interleavings(writer_steps, reader_steps):
    """Every order in which two streams can do so many operations; True: the writer's turn."""
    total = writer_steps + reader_steps
    for readers in itertools.combinations(range(total), reader_steps):
        yield [at not in readers for at in range(total)]


def recorded(function, *tensors_that_change):
    """The operations of a call, whose effects are undone."""
    before = [tensor.clone() for tensor in tensors_that_change]
    with Recording() as recording:
        function()
    for tensor, value in zip(tensors_that_change, before):
        tensor.copy_(value)
    return recording


def count(recording, shared, halved):
    stream, steps = Stream(recording, shared, halved), 0
    while not stream.over:
        stream.advance()
        steps += 1
    return steps


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
    shared, halved = mailbox.tensors(), [mailbox.buffers]
    steps = []
    for recording in (writes, read):
        steps.append(count(recording, shared, halved))
        for tensor, saved in zip(everything, start):
            tensor.copy_(saved)
    found = collections.Counter()
    for order in interleavings(*steps):
        for tensor, saved in zip(everything, start):
            tensor.copy_(saved)
        writer, reader = (Stream(recording, shared, halved) for recording in (writes, read))
        for writers_turn in order:
            (writer if writers_turn else reader).advance()
        assert writer.over and reader.over
        assert into.tolist() == [float(seen)] * 2, order
        found[int(seen)] += 1
    assert min(steps) >= 4 and set(found) == {1, 2, 3}, (steps, found)


def test_ring_gives_no_torn_row_a_weight_in_any_order_of_two_gpu_streams():
    """A writer that nothing holds back laps the reader: rows that it may have touched come without a weight."""
    replay = Replay(3, 1, Spaces(1, 1), guard=1)
    stamp = torch.zeros(1)

    def add_two():
        for _ in range(2):
            stamp.add_(1)
            column = stamp[:, None]
            replay.add(Transition(column, column, stamp, column, stamp, torch.ones(1)))

    for _ in range(2):
        add_two()
    generator, drawn = torch.Generator(), torch.zeros(8, replay.row_dim)
    everything = [replay.rows, replay.head, stamp, replay.conflicts, drawn]
    start, randomness = [tensor.clone() for tensor in everything], generator.get_state()
    writes = recorded(add_two, *everything)
    read = recorded(lambda: drawn.copy_(replay.sample(8, generator)), *everything)
    shared, halved = [replay.rows, replay.head], [replay.rows]
    steps = []
    for recording in (writes, read):
        steps.append(count(recording, shared, halved))
        for tensor, saved in zip(everything, start):
            tensor.copy_(saved)
    kept = lost = 0
    for order in interleavings(*steps):
        for tensor, saved in zip(everything, start):
            tensor.copy_(saved)
        generator.set_state(randomness)
        writer, reader = (Stream(recording, shared, halved) for recording in (writes, read))
        for writers_turn in order:
            (writer if writers_turn else reader).advance()
        whole = drawn[drawn[:, -1] == 1]
        assert (whole[:, :-1] == whole[:, :1]).all() and (whole[:, 0] >= 3).all(), order
        kept, lost = kept + len(whole), lost + 8 - len(whole)
    assert min(steps) >= 4 and kept > 100 and lost > 100, (steps, kept, lost)


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


def test_on_a_cpu_a_graphed_function_is_called_and_nothing_waits():
    calls = []
    graphed = TorchGraph(lambda: calls.append(1), torch.device("cpu"), [])
    for _ in range(6):
        graphed()
    report = torch.tensor([4])
    assert len(calls) == 6 and InFlight(torch.device("cpu"))(report) is report


def test_a_row_that_is_being_overwritten_has_no_weight():
    """The reader's view of the head is that before the writer went on, as of a reader overtaken in a gather."""
    replay = Replay(40, 4, Spaces(1, 1), guard=4)
    stamp = torch.zeros(4)
    for t in range(12):
        stamp = torch.full((4,), float(t))
        replay.add(Transition(stamp[:, None], stamp[:, None], stamp, stamp[:, None], stamp, torch.ones(4)))

    class Overtaken:
        """Steps 3..11 may be sampled; by the second look the writer has written 12 and 13 and writes 14."""

        def __init__(self, head):
            self.looks = [head + 8, head.clone()]

        def clone(self):
            return self.looks.pop()

        def __add__(self, number):
            return self.looks.pop() + number

    replay.head = Overtaken(replay.head)
    batch = replay.unpack(replay.sample(4000, torch.Generator().manual_seed(0)))
    lost = batch.return_n < 5
    assert (batch.weight == (~lost).float()).all() and 0 < int(lost.sum()) == int(replay.conflicts)


def test_an_empty_ring_gives_rows_without_weight():
    replay = Replay(40, 4, Spaces(1, 1), guard=4)
    replay.rows.fill_(1.0)  # what memory may hold before the first row is written
    rows = replay.sample(16, torch.Generator().manual_seed(0))
    assert (rows[:, -1] == 0).all() and int(replay.conflicts) == 16


def test_mps_is_seen_by_its_daemons_pipe(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert not mps_is_running()
    (tmp_path / "control").touch()
    assert mps_is_running()


@pytest.mark.parametrize("name", ["v_device", "p_device"])
def test_learners_own_device_must_be_there(tiny, plugin, name):
    with pytest.raises(UserError, match=rf"^algo\.{name}=cuda:99 is not there"):
        config.load(tiny(**{f"algo.{name}": "cuda:99"}))
    cfg = config.load(tiny(**{f"algo.{name}": "cpu"}))
    assert device_of(cfg, name.replace("device", "learner")) == torch.device("cpu")


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
