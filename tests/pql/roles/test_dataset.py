"""A dataset in the ring: the windows and moments that an actor would have made of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pql.memory.dataset import Steps
from pql.memory.replay import Layout, Replay
from pql.roles import dataset
from pql.roles.normalizer import ReturnScale
from tasks import Spaces


def random_steps(lengths, seed=0):
    rng, count = np.random.default_rng(seed), sum(lengths)
    last = np.zeros(count, bool)
    last[np.cumsum(lengths) - 1] = True
    terminated = last & (rng.random(count) < 0.5)
    new = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
    return Steps(new(count, 3), new(count, 2), new(count), new(count, 3), terminated, last)


@pytest.mark.parametrize(("n_step", "columns"), [(1, 1 << 16), (3, 1 << 16), (3, 5), (5, 7)])
def test_rows_are_the_windows_of_each_episode(monkeypatch, n_step, columns):
    """Against a slow loop over steps; also where windows are made in several goes."""
    monkeypatch.setattr(dataset, "COLUMNS", columns)
    steps, gamma = random_steps([4, 1, 7, 2, 3]), 0.9
    count = len(steps.reward)
    replay = Replay(Layout(Spaces(3, 2), count, count, n_step=n_step, gamma=gamma))
    dataset.fill(replay, steps, n_step, gamma, 0.5)
    assert len(replay) == count
    batch = replay.unpack(replay.gather(torch.arange(count, dtype=torch.float64) / count + 1e-9))
    for i in range(count):
        end = i
        while end < i + n_step - 1 and not steps.last[end]:
            end += 1
        total = sum(0.5 * gamma ** (j - i) * float(steps.reward[j]) for j in range(i, end + 1))
        discount = 0.0 if steps.terminated[end] else gamma ** (end - i + 1)
        assert batch.return_n[i].item() == pytest.approx(total, abs=1e-6)
        assert batch.discount[i].item() == pytest.approx(discount, abs=1e-6)
        assert (batch.obs[i].numpy() == steps.obs[i]).all() and (batch.next_obs[i].numpy() == steps.next_obs[end]).all()
        assert (batch.action[i].numpy() == steps.action[i]).all() and batch.weight[i] == 1


def test_moments_of_returns_are_those_of_an_actor_that_met_them_one_by_one():
    steps, gamma = random_steps([5, 1, 20]), 0.95
    scale = ReturnScale(5.0, 1, gamma)
    for reward, last in zip(steps.reward, steps.last):
        scale.update(torch.tensor([2.0 * reward]), torch.tensor([last]))
    torch.testing.assert_close(dataset.return_moments(steps, gamma, 2.0), scale.state, rtol=1e-6, atol=1e-9)
