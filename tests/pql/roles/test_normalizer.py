"""Running moments against numpy over all that was seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pql.memory.shared import Mailbox
from pql.roles.normalizer import Normalizer, ReturnScale


@pytest.mark.parametrize("seed", range(5))
def test_moments_equal_numpys_over_everything_seen(seed):
    rng = np.random.default_rng(seed)
    scale, shift = 10.0 ** rng.uniform(-2, 3, 6), 10.0 ** rng.uniform(0, 3, 6)
    batches = [rng.normal(shift, scale, (rng.integers(1, 200), 6)) for _ in range(40)]
    normalizer = Normalizer(6)
    for batch in batches:
        normalizer.update(torch.from_numpy(batch))
    seen = np.concatenate(batches)
    count, mean, squares = normalizer.state[0], normalizer.state[1:7], normalizer.state[7:]
    assert int(count) == len(seen)
    np.testing.assert_allclose(mean.numpy(), seen.mean(0), rtol=1e-9)
    np.testing.assert_allclose((squares / count).numpy(), seen.var(0), rtol=1e-9)
    x = torch.from_numpy(seen[:10]).float()
    expected = np.clip((seen[:10].astype(np.float32) - seen.mean(0)) / seen.std(0), -10, 10)
    # float32: a mean a thousand deviations from zero costs four of its seven digits
    np.testing.assert_allclose(normalizer(x).numpy(), expected, atol=2e-7 * np.abs(shift / scale).max() + 1e-5)


def test_constant_dimension_keeps_its_scale_and_gives_zero():
    normalizer = Normalizer(2)
    for _ in range(3):
        normalizer.update(torch.tensor([[7.0, 1.0], [7.0, 3.0]]))
    assert normalizer(torch.tensor([[7.0, 3.0]])).tolist() == [[0.0, 1.0]]
    assert normalizer(torch.tensor([[8.0, 2.0]])).tolist() == [[1.0, 0.0]]


def test_before_any_observation_nothing_is_changed_but_clipped():
    assert Normalizer(3)(torch.tensor([[1.0, -2.0, 50.0]])).tolist() == [[1.0, -2.0, 10.0]]


def test_statistics_travel_through_a_mailbox():
    writer, reader, mailbox = Normalizer(2), Normalizer(2), Mailbox(5, torch.float64)
    reader.receive(mailbox)  # nothing there yet
    assert int(reader.version) == 0 and reader.mean.tolist() == [0, 0]
    for value in (1.0, 5.0):
        writer.update(torch.tensor([[value, -value], [value + 1, value]]))
        mailbox.publish(writer.state)
        reader.receive(mailbox)
        assert torch.equal(reader.state, writer.state)
        assert torch.equal(reader.mean, writer.mean) and torch.equal(reader.inv_std, writer.inv_std)


def test_return_scale_is_that_of_a_loop_over_episodes():
    """gamma .9, three environments, ends here and there: spread and largest size of the running discounted returns."""
    generator = torch.Generator().manual_seed(0)
    gathers, reads, mailbox = ReturnScale(5.0, 3, 0.9), ReturnScale(5.0), Mailbox(ReturnScale.SIZE, torch.float64)
    running, seen = [0.0] * 3, []
    for _ in range(40):
        reward, done = torch.randn(3, generator=generator), torch.rand(3, generator=generator) < 0.2
        gathers.update(reward, done)
        for e in range(3):
            running[e] = 0.9 * running[e] + reward[e].item()
            seen.append(running[e])
            if done[e]:
                running[e] = 0.0
    mailbox.publish(gathers.state)
    reads.receive(mailbox)
    mean = sum(seen) / len(seen)
    std = (sum((x - mean) ** 2 for x in seen) / len(seen)) ** 0.5
    assert std > max(abs(x) for x in seen) / 5
    assert reads.factor.item() == pytest.approx(1 / std, rel=1e-6)


def test_return_scale_keeps_the_largest_return_within_the_bound():
    """One return of 100 among many of 1: the spread alone (3.1) would leave it at 32."""
    gathers, mailbox = ReturnScale(5.0, 1000, 0.0), Mailbox(ReturnScale.SIZE, torch.float64)
    reward = torch.ones(1000)
    reward[7] = 100.0
    gathers.update(reward, torch.ones(1000, dtype=torch.bool))
    mailbox.publish(gathers.state)
    reads = ReturnScale(5.0)
    reads.receive(mailbox)
    assert 100 * reads.factor.item() == pytest.approx(5.0)


def test_return_scale_of_nothing_is_one():
    mailbox, reads = Mailbox(ReturnScale.SIZE, torch.float64), ReturnScale(5.0)
    mailbox.publish(torch.zeros(ReturnScale.SIZE, dtype=torch.float64))
    reads.receive(mailbox)
    assert reads.factor.item() == 1.0


@pytest.mark.parametrize("unit", [1e-12, 1e-5, 1.0, 1e5, 1e12])
def test_units_of_an_observation_do_not_matter(unit):
    obs = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 2.0
    one, other = Normalizer(3), Normalizer(3)
    one.update(obs)
    other.update(unit * obs)
    torch.testing.assert_close(other((unit * obs).float()), one(obs.float()), rtol=1e-3, atol=1e-3)


def test_a_constant_observation_is_only_shifted_whatever_its_size():
    for constant in (0.0, 0.1, 1e6, -3e-7):
        normalizer = Normalizer(1)
        for _ in range(100):
            normalizer.update(torch.full((64, 1), constant))
        assert normalizer.inv_std.item() == 1.0 and abs(normalizer(torch.full((1, 1), constant)).item()) < 1e-6
