"""Densities of squashed normals against numerical integration."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from pql.algorithms import gaussian


def density(action, mean, std):
    """Of tanh(u), u normal, by the change of variables, in float64 scalars."""
    return stats.norm.pdf(math.atanh(action), mean, std) / (1 - action**2)


@pytest.mark.parametrize("mean, log_std", [(0.0, 0.0), (0.7, -1.0), (-1.5, 0.5)])
def test_log_probability_is_that_of_a_density_that_integrates_to_one(mean, log_std):
    std = math.exp(log_std)
    total, _ = integrate.quad(density, -1 + 1e-12, 1 - 1e-12, (mean, std), limit=500, points=[math.tanh(mean)])
    assert total == pytest.approx(1.0, abs=1e-6)
    noise = torch.tensor([[-1.3], [0.0], [0.4], [2.0]], dtype=torch.float64)
    means = torch.full_like(noise, mean)
    action, log_prob = gaussian.sample(means, torch.full_like(noise, log_std), noise)
    for a, found in zip(action[:, 0].tolist(), log_prob.tolist()):
        assert found == pytest.approx(math.log(density(a, mean, std)), abs=1e-9)


def test_dimensions_are_independent_and_their_logarithms_add():
    generator = torch.Generator().manual_seed(0)
    mean, log_std, noise = torch.randn(3, 5, 4, generator=generator, dtype=torch.float64)
    _, together = gaussian.sample(mean, log_std, noise)
    apart = [gaussian.sample(*(x[:, i : i + 1] for x in (mean, log_std, noise)))[1] for i in range(4)]
    torch.testing.assert_close(together, sum(apart))


def test_action_at_the_edge_of_float32_has_a_finite_density_and_gradient():
    """tanh(30) is 1 in float32, where 1 - a^2 would be 0; the true log slope is 2 log 2 - 60."""
    mean = torch.tensor([[30.0]], requires_grad=True)
    action, log_prob = gaussian.sample(mean, torch.zeros(1, 1), torch.zeros(1, 1))
    log_prob.sum().backward()
    assert action.item() == 1.0
    assert log_prob.item() == pytest.approx(-0.5 * math.log(2 * math.pi) - 2 * math.log(2) + 60, rel=1e-6)
    assert mean.grad.item() == pytest.approx(2.0, rel=1e-6)


def test_entropy_estimate_is_the_entropy():
    """The mean of -log pi over draws against the integral of -p log p, within five standard errors."""
    mean, std, n = 0.3, 0.6, 40_000
    entropy, _ = integrate.quad(
        lambda a: -density(a, mean, std) * np.log(density(a, mean, std)), -1 + 1e-9, 1 - 1e-9, limit=500
    )
    noise = torch.randn(n, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    _, log_prob = gaussian.sample(torch.full_like(noise, mean), torch.full_like(noise, math.log(std)), noise)
    assert abs(-log_prob.mean().item() - entropy) < 5 * log_prob.std().item() / n**0.5


def test_mean_leaves_out_what_is_not_finite():
    values = torch.tensor([1.0, float("nan"), 3.0, float("-inf")])
    assert gaussian.finite_mean(values).item() == 2.0
    assert gaussian.finite_mean(torch.tensor([float("nan")])).item() == 0.0
