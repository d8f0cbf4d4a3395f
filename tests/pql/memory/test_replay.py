"""Windows and ring against a slow loop that knows whole episodes; the ring and the mailboxes under a real writer."""

from __future__ import annotations

import random
import time

import pytest
import torch
import torch.multiprocessing

from pql.memory.pinned import mapped
from pql.memory.replay import RING, Layout, Replay, ring_state
from pql.memory.shared import Mailbox
from pql.memory.windows import NStepWindows, Places, Windows
from pql.runtime import checkpoint
from tasks.base import Spaces

OBS, ACTION = 3, 2


def rollout(seed, num_envs, steps, habit):
    """Random vector steps, as lists of dictionaries, one per environment and step.

    Observations are all different, so that a row tells where it came from. `habit`: "same step" resets within the
    step that ends an episode; "next step" spends one invalid step on it, whose transition joins two episodes; "all at
    once" ends all episodes every sixth step. In any case some steps in the middle of episodes are invalid too.
    """
    rng = random.Random(seed)
    number = iter(range(10**9))
    fresh = lambda: [float(next(number)) for _ in range(OBS)]  # noqa: E731
    history = []
    obs = [fresh() for _ in range(num_envs)]
    resetting = [False] * num_envs
    for t in range(steps):
        row = []
        for e in range(num_envs):
            after = fresh()
            step = {"obs": obs[e], "action": [rng.uniform(-1, 1) for _ in range(ACTION)], "next_obs": after,
                    "reward": rng.uniform(-1, 1), "terminated": False, "truncated": False, "valid": True}  # fmt: skip
            if resetting[e]:
                step["valid"], resetting[e] = False, False
            else:
                fate = rng.random()
                if habit == "all at once":
                    fate = 1.0 if t % 6 != 5 else 0.1 if t % 12 == 5 else 0.2
                step["terminated"], step["truncated"] = fate < 0.12, 0.12 <= fate < 0.24
                step["valid"] = rng.random() > 0.05
            ended = step["terminated"] or step["truncated"]
            resetting[e] = ended and habit == "next step"
            # same step: the next episode's first observation; next step: the terminal one, acted in once more
            obs[e] = fresh() if ended and habit != "next step" else after
            row.append(step)
        history.append(row)
    return history


def slow_row(history, e, start, n, gamma):
    """The transition that begins at `start` in environment `e`, written down from its definition."""
    first = history[start][e]
    if not first["valid"]:
        return None
    total, k = 0.0, 0
    while True:
        step = history[start + k][e]
        total += gamma**k * step["reward"]
        k += 1
        if step["terminated"]:
            return first["obs"], first["action"], total, step["next_obs"], 0.0
        following = history[start + k][e] if start + k < len(history) else None
        if step["truncated"] or k == n or following is None or not following["valid"]:
            return first["obs"], first["action"], total, step["next_obs"], gamma**k


def vector_step(row):
    tensors = {name: torch.tensor([step[name] for step in row]) for name in row[0]}
    return [tensors[k] for k in ("next_obs", "action", "reward", "terminated", "truncated", "valid")]


def observed(history, t):
    """What is observed before vector step t, (N, OBS)."""
    return torch.tensor([step["obs"] for step in history[t]])


class Loop:
    """The way of transitions into a ring, as the actor has it."""

    def __init__(self, obs, replay, n):
        self.replay, self.windows = replay, NStepWindows(len(obs), replay.layout.spaces.action_dim, n, GAMMA)
        replay.begin(obs)

    def add(self, obs, next_obs, *rest):
        """After a vector step: what is observed next, and its true successor. Whether there were finished windows."""
        windows = self.windows.add(self.replay.put(obs, next_obs), *rest)
        if windows is not None:
            self.replay.add(windows)
        return windows is not None


GAMMA = 0.9


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("num_envs", "habit", "ends", "dtype"),
    [
        (1, "same step", 1.0, torch.float32),
        (7, "same step", 0.0, torch.float32),
        (7, "next step", 0.1, torch.float32),
        (7, "all at once", 0.05, torch.float32),
        (7, "all at once", 0.1, torch.bfloat16),
    ],
)
def test_every_stored_row_equals_the_slow_loops(num_envs, habit, ends, dtype, n):
    """After every 13th vector step all rows that were ever written: those in the ring, and that the others are gone."""
    steps, guard = 150, 3 * num_envs
    size = 40 * num_envs + num_envs // 2  # wraps around three times; not a multiple of num_envs
    history = rollout(10 * num_envs + n, num_envs, steps + 1, habit)
    replay = Replay(Layout(Spaces(OBS, ACTION), num_envs, size, guard, n, GAMMA, ends, dtype))
    assert replay.layout.capacity == 40 * num_envs
    loop = Loop(observed(history, 0), replay, n)
    stored_as = lambda values: torch.tensor(values).to(dtype).float().tolist()  # noqa: E731
    place, ended = [0], 0  # of each vector step; slots are filled in order
    checked = {"gone": 0, "invalid": 0, "terminated": 0, "cut": 0, "whole": 0}
    for t, row in enumerate(history[:-1]):
        written = t - n + 2  # vector steps stored by the end of this one
        obs = observed(history, t + 1)
        assert loop.add(obs, *vector_step(row)) == (written > 0)
        own = sum(stored_as(step["next_obs"]) != stored_as(seen) for step, seen in zip(row, obs.tolist()))
        place.append(place[-1] + num_envs + ended)
        ended = own
        if written < 1:
            continue
        left = place[-1] + num_envs + ended - replay.layout.slots  # what lies below was overwritten
        oldest = next(start for start in range(t + 2) if place[start] >= left + 2 * guard)
        oldest = max(min(oldest, written), written + 3 - 40)
        assert (int(replay.oldest), int(replay.head)) == (oldest * num_envs, written * num_envs)
        if written % 13 and t != steps - 1:
            continue
        found = replay.unpack(replay.rows_at(torch.arange(written * num_envs)))
        for start in range(written):
            for e in range(num_envs):
                at = start * num_envs + e
                expected = slow_row(history[: start + n], e, start, n, GAMMA)
                if place[start] + e < left or expected is None:
                    assert found.weight[at] == 0
                    checked["gone" if place[start] + e < left else "invalid"] += 1
                    continue
                obs, action, return_n, next_obs, discount = expected
                assert found.weight[at] == 1
                assert found.obs[at].tolist() == stored_as(obs) and found.next_obs[at].tolist() == stored_as(next_obs)
                assert found.action[at].tolist() == stored_as(action)
                assert float(found.return_n[at]) == pytest.approx(return_n, abs=1e-6)
                assert float(found.discount[at]) == pytest.approx(discount, abs=1e-7)
                kind = "terminated" if discount == 0 else "whole" if discount == GAMMA**n else "cut"
                checked[kind] += 1
    # the test saw what it is about
    assert min(checked["gone"], checked["invalid"], checked["terminated"], checked["whole"]) > 10, checked
    assert (checked["cut"] > 10) == (n > 1)
    assert len(replay) == 37 * num_envs or ends < 0.2


def test_a_ring_of_ants_transitions_takes_about_half_the_bytes_of_rows_with_both_observations():
    both = 2 * 60 + 8 + 3  # words of a row: observations, action; return, discount and weight
    for dtype, share in ((torch.float32, 0.55), (torch.bfloat16, 0.3)):
        ring = Layout(Spaces(60, 8), 512, 5_000_000, 20 * 512, 3, dtype=dtype)
        numbers = sum(tensor.numel() * tensor.element_size() for tensor in ring.allocate("meta").values())
        assert numbers <= share * 5_000_000 * both * 4


def windows_of(steps, n, gamma=0.5):
    """One environment; `steps` are (obs, reward, next_obs, terminated, truncated, valid). Returns all rows."""
    column = lambda value: torch.tensor([[float(value)]])  # noqa: E731
    replay = Replay(Layout(Spaces(1, 1), 1, 20, n_step=n, gamma=gamma, ends=1))
    windows = NStepWindows(1, 1, n, gamma)
    replay.begin(column(steps[0][0]))
    for t, (_, reward, next_obs, *facts) in enumerate(steps):
        then = steps[t + 1][0] if t + 1 < len(steps) else next_obs
        places = replay.put(column(then), column(next_obs))
        facts = (torch.tensor([fact]) for fact in facts)
        finished = windows.add(places, torch.zeros(1, 1), torch.tensor([float(reward)]), *facts)
        if finished is not None:
            replay.add(finished)
    batch = replay.unpack(replay.rows_at(torch.arange(len(replay))))
    columns = (batch.obs[:, 0], batch.return_n, batch.next_obs[:, 0], batch.discount, batch.weight)
    return list(zip(*(column.tolist() for column in columns)))


def test_truncated_episode_bootstraps_from_terminal_obs():
    # an episode cut after two steps at observation 99; the next one begins at 50
    steps = [(1, 1, 2, False, False, True), (2, 10, 99, False, True, True), (50, 100, 51, False, False, True),
             (51, 1000, 52, False, False, True)]  # fmt: skip
    rows = windows_of(steps, n=3)
    assert rows[0] == (1, 1 + 0.5 * 10, 99, 0.25, 1)
    assert rows[1] == (2, 10, 99, 0.5, 1)


def test_terminated_episode_has_no_future():
    steps = [(1, 1, 2, False, False, True), (2, 10, 99, True, False, True), (50, 100, 51, False, False, True)]
    assert windows_of(steps, n=3) == [(1, 6, 99, 0, 1)]


def test_joining_transition_of_next_step_reset_is_never_learned_from():
    # the episode ends at 99; the next vector step only resets, from 99 to 50, with a reward that means nothing
    steps = [(1, 1, 99, True, False, True), (99, 7, 50, False, False, False), (50, 2, 51, False, False, True),
             (51, 4, 52, False, False, True)]  # fmt: skip
    rows = windows_of(steps, n=2)
    assert rows[0] == (1, 1, 99, 0, 1)
    assert rows[1][4] == 0  # weight
    assert rows[2] == (50, 2 + 0.5 * 4, 52, 0.25, 1)


def test_window_stops_before_an_invalid_step():
    steps = [(1, 1, 2, False, False, True), (2, 10, 3, False, False, False), (3, 100, 4, False, False, True)]
    assert windows_of(steps, n=3) == [(1, 1, 2, 0.5, 1)]


def test_pending_windows_continue_from_a_checkpoint():
    history = rollout(5, 4, 60, "same step")
    whole, first, second = (NStepWindows(4, ACTION, 3, GAMMA) for _ in range(3))
    rows, places = [], [Places(torch.tensor([9 * t]), 9 * t + torch.arange(4)) for t in range(len(history))]
    for t, row in enumerate(history):
        found = whole.add(places[t], *vector_step(row)[1:])
        rows.append(found and [part.clone() for part in found])  # it is valid until the next `add`
    for t, row in enumerate(history):
        if t == 31:
            second.load_state_dict({k: v.clone() for k, v in first.state_dict().items()})
            first = second
        found = first.add(places[t], *vector_step(row)[1:])
        assert (found is None) == (rows[t] is None)
        assert found is None or all(torch.equal(a, b) for a, b in zip(found, rows[t]))


def filled(num_envs, capacity, guard, vector_steps):
    """A ring whose rows say in their return when they were written."""
    replay = Replay(Layout(Spaces(1, 1), num_envs, capacity, guard, ends=1))
    for t in range(vector_steps):
        stamp = torch.full((num_envs,), float(t))
        replay.append(stamp[:, None], stamp[:, None], stamp, stamp[:, None] + 0.5)
    return replay


@pytest.mark.parametrize("vector_steps", [1, 9, 10, 11, 25, 1000])
def test_sample_draws_from_all_but_the_guard_rows(vector_steps):
    replay = filled(num_envs=4, capacity=40, guard=12, vector_steps=vector_steps)
    stamps = replay.unpack(replay.sample(20_000, torch.Generator().manual_seed(0))).return_n
    # ten vector steps fit; the three oldest are the guard, as soon as they are the next to be overwritten
    oldest = max(0, vector_steps - 7)
    assert sorted(set(stamps.tolist())) == list(range(oldest, vector_steps))
    # uniform: counts are binomial; six standard deviations are passed by chance once in 5e8 draws of a count
    share = 20_000 / (vector_steps - oldest)
    counts = torch.bincount(stamps.long() - oldest).double()
    assert float((counts - share).abs().max()) <= 6 * share**0.5
    assert len(replay) == 4 * (vector_steps - oldest)


def test_an_empty_ring_gives_rows_without_weight():
    replay = Replay(Layout(Spaces(1, 1), 4, 40, guard=4))
    for _ in range(2):
        batch = replay.unpack(replay.sample(16, torch.Generator().manual_seed(0)))
        assert (batch.weight == 0).all() and len(replay) == int(replay.conflicts) == 0
        replay.begin(torch.ones(4, 1))  # with observations, but without a transition


def test_ring_no_larger_than_its_guard_is_refused():
    with pytest.raises(ValueError, match="larger than its guard"):
        Replay(Layout(Spaces(1, 1), 4, 16, guard=16))


@pytest.mark.parametrize("vector_steps", [3, 25])
def test_ring_continues_from_a_checkpoint(tmp_path, vector_steps):
    replay, copy = filled(4, 40, 0, vector_steps), filled(4, 40, 0, 0)
    assert copy.is_untouched() and not replay.is_untouched()
    state = {name: getattr(replay, name) for name in RING}
    checkpoint.save_tensors(tmp_path, "replay", ring_state(state))
    checkpoint.load_into(tmp_path, "replay", {name: getattr(copy, name) for name in RING})
    for ring in (replay, copy):
        ring.append(*torch.ones(2, 4, 1), torch.ones(4), torch.ones(4, 1))
    assert torch.equal(copy.rows, replay.rows) and len(copy) == len(replay) == 4 * min(vector_steps + 1, 10)
    one, two = (ring.sample(64, torch.Generator().manual_seed(1)) for ring in (replay, copy))
    assert all(torch.equal(a, b) for a, b in zip(one, two))


# --- a real writer process --------------------------------------------------------------------------------------

STEPS, ENVS, WIDE = 1500, 64, 61


def layout(ends, on_host=False):
    """Of 16 vector steps. At most lead + 1 are written while the reader gathers, and one more may be in the writing."""
    return Layout(Spaces(WIDE, 5), ENVS, 16 * ENVS, (LEAD + 2) * ENVS, ends=ends, on_host=on_host)


LEAD = 6


def on_device(storage):
    """Rows on the host as a GPU sees them."""
    rows, home = storage["rows"], storage["head"].device
    return storage if rows.device == home else {**storage, "rows": mapped(rows, home)}


def write_ring(storage, ends, read):
    """The actor's part, held back only by the reader's progress as pacing would; every column says the vector step.

    Half of the episodes end in each of them, at an observation half a step later.
    """
    replay = Replay(layout(ends), storage=on_device(storage))
    column = torch.zeros(ENVS, WIDE, device=replay.rows.device)
    own = (torch.arange(ENVS, device=column.device) % 2)[:, None]
    one = torch.ones(ENVS, dtype=torch.int64, device=column.device)
    replay.begin(column)
    for t in range(STEPS):
        while t > int(read) + LEAD:
            pass
        start, after = replay.put(column + 1, column + 1 - own / 2)
        replay.add(Windows(start, column[:, :5], column[:, 0], after, one, one.bool()))
        column += 1


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", [*DEVICES, pytest.param("cuda, rows on host", marks=pytest.mark.gpu, id="far")])
@pytest.mark.parametrize("ends", [1.0, 0.0])
def test_ring_under_a_writer_process_gives_no_torn_and_no_stale_row(ends, device):
    """The reader draws as fast as it can while the writer laps it again and again, `LEAD` vector steps ahead."""
    device, _, far = device.partition(", ")
    storage = layout(ends, bool(far)).allocate(device)
    read = torch.zeros(1, dtype=torch.int64)
    for tensor in (*storage.values(), read):
        tensor.share_memory_()
    replay = Replay(layout(ends), storage=on_device(storage))
    assert storage["rows"].is_cuda == (device == "cuda" and not far)
    process = torch.multiprocessing.get_context("spawn").Process(
        target=write_ring, args=(storage, ends, read), daemon=True
    )
    process.start()
    generator = torch.Generator(device).manual_seed(0)
    samples = 0
    while int(replay.head) < STEPS * ENVS:
        if int(replay.head) == 0:
            continue
        before = int(replay.head) // ENVS
        read.fill_(before)  # from here the writer may go on to step before + LEAD
        batch = replay.unpack(replay.sample(512, generator))
        after = int(replay.head) // ENVS
        stamps = batch.return_n[:, None]
        assert (batch.weight == 1).all()
        assert (batch.obs == stamps).all() and (batch.action == stamps).all(), "a torn row"
        next_obs = batch.next_obs[:, :1]
        assert (batch.next_obs == next_obs).all(), "a torn row"
        assert ((next_obs == stamps + 1) | (next_obs == stamps + 0.5)).all(), "another's next observation"
        assert stamps.min() >= max(0, before - 16 + LEAD + 2) and stamps.max() < after, "a stale row"
        samples += 1
    process.join(30)
    assert process.exitcode == 0 and replay.conflicts == 0
    assert samples > 100


RECEIVED = 200  # a busy machine gives the reader few turns: the writer goes on until it has had as many


def write_mailbox(buffers, begun, version, received, on_device):
    """Three versions at once, which lap a reader that is in the middle of its copy; then time for a whole one."""
    mailbox = Mailbox(1)
    mailbox.buffers, mailbox.begun, mailbox.version = buffers, begun, version
    mailbox.on_device = on_device
    value = 0
    while int(received) < RECEIVED:
        for _ in range(3):
            value += 1
            mailbox.publish(torch.full((1,), float(value), device=buffers.device).expand(buffers.shape[1]))
        time.sleep(1e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("on_device", [False, True])
def test_mailbox_under_load_never_shows_a_mixture_nor_goes_back(on_device, device):
    size = 200_000
    mailbox = Mailbox(size, device=device)
    mailbox.on_device = on_device  # as on a GPU, where nobody looks at a version before the copy
    received = torch.zeros((), dtype=torch.int64)
    for tensor in (*mailbox.tensors(), received):
        tensor.share_memory_()
    process = torch.multiprocessing.get_context("spawn").Process(
        target=write_mailbox, args=(*mailbox.tensors(), received, on_device), daemon=True
    )
    process.start()
    # slow to copy into: there is time for harm
    into = torch.zeros(size, 4, dtype=torch.float64, device=device)[:, 0]
    seen = torch.zeros(1, dtype=torch.int64, device=device)
    while int(received) < RECEIVED:
        before = int(seen)
        mailbox.receive(into, seen)
        assert int(seen) >= before
        if int(seen) > before:
            assert (into == float(seen)).all(), "a mixture of two versions"
            received += 1
    process.join(30)
    assert process.exitcode == 0


def test_mailbox_tells_a_reader_that_nothing_is_new():
    mailbox = Mailbox(3)
    into = torch.zeros(3)
    seen = torch.zeros(1, dtype=torch.int64)
    mailbox.receive(into, seen)
    assert int(seen) == 0
    mailbox.publish(torch.tensor([1.0, 2.0, 3.0]))
    mailbox.receive(into, seen)
    assert int(seen) == 1 and into.tolist() == [1, 2, 3]
    into.zero_()
    mailbox.receive(into, seen)
    assert int(seen) == 1 and into.tolist() == [0, 0, 0]


def test_a_next_observation_that_is_equal_in_number_but_not_in_bits_is_its_own():
    replay = Replay(Layout(Spaces(2, 1), 2, 8))
    obs = torch.zeros(2, 2)
    replay.begin(obs)
    start, after = replay.put(obs, torch.tensor([[0.0, -0.0], [0.0, 0.0]]))
    none = torch.zeros(2, dtype=torch.int64)
    replay.add(Windows(start, torch.zeros(2, 1), torch.zeros(2), after, none + 1, none == 0))
    batch = replay.unpack(replay.gather(torch.tensor([0.1, 0.6], dtype=torch.float64)))
    assert torch.signbit(batch.next_obs).tolist() == [[False, True], [False, False]]
    assert not torch.signbit(batch.obs).any()
