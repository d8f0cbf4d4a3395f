"""Windows and ring against a slow loop that knows whole episodes; the ring and the mailboxes under a real writer."""

from __future__ import annotations

import random
import time

import pytest
import torch
import torch.multiprocessing

from pql.memory.replay import NStepWindows, Replay, Transition
from pql.memory.shared import Mailbox
from tasks.base import Spaces

OBS, ACTION = 3, 2


def rollout(seed, num_envs, steps, habit):
    """Random vector steps, as lists of dictionaries, one per environment and step.

    Observations are all different, so that a row tells where it came from. `habit`: "same step" resets within the
    step that ends an episode; "next step" spends one invalid step on it, whose transition joins two episodes;
    either way some steps in the middle of episodes are invalid too.
    """
    rng = random.Random(seed)
    number = iter(range(10**9))
    fresh = lambda: [float(next(number)) for _ in range(OBS)]  # noqa: E731
    history = []
    obs = [fresh() for _ in range(num_envs)]
    resetting = [False] * num_envs
    for _ in range(steps):
        row = []
        for e in range(num_envs):
            after = fresh()
            step = {"obs": obs[e], "action": [rng.uniform(-1, 1) for _ in range(ACTION)], "next_obs": after,
                    "reward": rng.uniform(-1, 1), "terminated": False, "truncated": False, "valid": True}  # fmt: skip
            if resetting[e]:
                step["valid"], resetting[e] = False, False
            else:
                fate = rng.random()
                step["terminated"], step["truncated"] = fate < 0.12, 0.12 <= fate < 0.24
                step["valid"] = rng.random() > 0.05
            ended = step["terminated"] or step["truncated"]
            resetting[e] = ended and habit == "next step"
            # same step: the next episode's first observation; next step: the terminal one, acted in once more
            obs[e] = fresh() if ended and habit == "same step" else after
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
    return [tensors[k] for k in ("obs", "action", "reward", "next_obs", "terminated", "truncated", "valid")]


@pytest.mark.parametrize("habit", ["same step", "next step"])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("num_envs", [1, 7])
def test_every_stored_row_equals_the_slow_loops(habit, n, num_envs):
    gamma, steps = 0.9, 150
    capacity = 40 * num_envs + num_envs // 2  # wraps around three times; not a multiple of num_envs
    history = rollout(hash((n, num_envs)) % 1000, num_envs, steps, habit)
    windows = NStepWindows(num_envs, OBS, ACTION, n, gamma)
    replay = Replay(capacity, num_envs, Spaces(OBS, ACTION))
    assert replay.capacity == 40 * num_envs
    checked = {"rows": 0, "invalid": 0, "terminated": 0, "cut": 0, "whole": 0}
    for t, row in enumerate(history):
        batch = windows.add(*vector_step(row))
        assert (batch is None) == (t < n - 1)
        if batch is None:
            continue
        replay.add(batch)
        written = t - n + 2  # vector steps stored so far
        assert len(replay) == min(written, 40) * num_envs
        if written % 13 and t != steps - 1:
            continue
        for age in range(min(written, 40)):  # everything that the ring now holds
            start = written - 1 - age
            stored = replay.unpack(replay.rows[start % 40 * num_envs : (start % 40 + 1) * num_envs])
            for e in range(num_envs):
                expected = slow_row(history[: start + n], e, start, n, gamma)
                checked["rows"] += 1
                if expected is None:
                    assert stored.weight[e] == 0
                    checked["invalid"] += 1
                    continue
                obs, action, return_n, next_obs, discount = expected
                assert stored.weight[e] == 1
                assert stored.obs[e].tolist() == obs and stored.next_obs[e].tolist() == next_obs
                assert torch.equal(stored.action[e], torch.tensor(action))
                assert float(stored.return_n[e]) == pytest.approx(return_n, abs=1e-6)
                assert float(stored.discount[e]) == pytest.approx(discount, abs=1e-7)
                kind = "terminated" if discount == 0 else "whole" if discount == gamma**n else "cut"
                checked[kind] += 1
    # the test saw what it is about
    assert checked["rows"] > 300 and min(checked["invalid"], checked["terminated"], checked["whole"]) > 10
    assert (checked["cut"] > 10) == (n > 1)


def windows_of(steps, n, gamma=0.5):
    """One environment; `steps` are (obs, reward, next_obs, terminated, truncated, valid). Returns all rows."""
    windows = NStepWindows(1, 1, 1, n, gamma)
    rows = []
    for obs, reward, next_obs, terminated, truncated, valid in steps:
        batch = windows.add(
            torch.tensor([[float(obs)]]), torch.zeros(1, 1), torch.tensor([float(reward)]),
            torch.tensor([[float(next_obs)]]), torch.tensor([terminated]), torch.tensor([truncated]),
            torch.tensor([valid]),
        )  # fmt: skip
        if batch is not None:
            rows.append(tuple(float(x) for x in (
                batch.obs, batch.return_n, batch.next_obs, batch.discount, batch.weight)))  # fmt: skip
    return rows


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
    whole, first, second = (NStepWindows(4, OBS, ACTION, 3, 0.9) for _ in range(3))
    rows = []
    for row in history:
        batch = whole.add(*vector_step(row))
        rows.append(batch and [part.clone() for part in batch])  # a batch is valid until the next `add`
    for t, row in enumerate(history):
        if t == 31:
            second.load_state_dict({k: v.clone() for k, v in first.state_dict().items()})
            first = second
        found = first.add(*vector_step(row))
        assert (found is None) == (rows[t] is None)
        assert found is None or all(torch.equal(a, b) for a, b in zip(found, rows[t]))


def filled(num_envs, capacity, guard, vector_steps):
    """A ring whose rows say in their return when they were written."""
    replay = Replay(capacity, num_envs, Spaces(1, 1), guard)
    for t in range(vector_steps):
        stamp = torch.full((num_envs,), float(t))
        replay.add(Transition(stamp[:, None], stamp[:, None], stamp, stamp[:, None], stamp, stamp))
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


def test_ring_no_larger_than_its_guard_is_refused():
    with pytest.raises(ValueError, match="larger than its guard"):
        Replay(16, 4, Spaces(1, 1), guard=16)


def test_ring_continues_from_a_checkpoint():
    replay = filled(4, 40, 0, 25)
    copy = Replay(40, 4, Spaces(1, 1))
    copy.load_state_dict({k: v.clone() for k, v in replay.state_dict().items()})
    assert torch.equal(copy.rows, replay.rows) and len(copy) == len(replay)
    one, two = (ring.sample(64, torch.Generator().manual_seed(1)) for ring in (replay, copy))
    assert torch.equal(one, two)


# --- a real writer process --------------------------------------------------------------------------------------

STEPS, ENVS, WIDE = 3000, 64, 61


def stamped(t, device):
    """A vector step whose every column says t: a row mixed from two steps shows."""
    column = torch.full((ENVS, WIDE), float(t), device=device)
    return Transition(column, column[:, :5], column[:, 0], column, column[:, 0], column[:, 0])


def write_ring(rows, head, read, lead):
    """The actor's part, held back only by the reader's progress as pacing would."""
    replay = Replay(len(rows), ENVS, Spaces(WIDE, 5), 0, rows=rows, head=head)
    for t in range(STEPS):
        while t > int(read) + lead:
            pass
        replay.add(stamped(t, rows.device))


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
def test_ring_under_a_writer_process_gives_no_torn_and_no_stale_row(device):
    """The reader draws as fast as it can while the writer laps it again and again, `lead` vector steps ahead."""
    lead, slots = 6, 16
    # at most lead + 1 steps are written while the reader gathers, and one more may be in the writing
    replay = Replay(slots * ENVS, ENVS, Spaces(WIDE, 5), guard=(lead + 2) * ENVS, device=device)
    read = torch.zeros(1, dtype=torch.int64)
    for tensor in (replay.rows, replay.head, read):
        tensor.share_memory_()
    process = torch.multiprocessing.get_context("spawn").Process(
        target=write_ring, args=(replay.rows, replay.head, read, lead), daemon=True
    )
    process.start()
    generator = torch.Generator(device).manual_seed(0)
    samples = 0
    while int(replay.head) < STEPS * ENVS:
        if int(replay.head) == 0:
            continue
        before = int(replay.head) // ENVS
        read.fill_(before)  # from here the writer may go on to step before + lead
        batch = replay.unpack(replay.sample(512, generator))
        after = int(replay.head) // ENVS
        stamps = batch.return_n
        for column in (batch.obs, batch.action, batch.next_obs, batch.discount[:, None], batch.weight[:, None]):
            assert (column == stamps[:, None]).all(), "a torn row"
        assert stamps.min() >= max(0, before - slots + lead + 2) and stamps.max() < after, "a stale row"
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
