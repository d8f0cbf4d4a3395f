"""Diagnostics by hand: hidden units, ranks, masses; and on runs made to be sick."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pql import algorithms
from pql.algorithms.base import Nets
from pql.algorithms.diagnostics import NAMES, dormant_share, effective_rank, inside, mass_at_ends, of_critic
from pql.algorithms.networks import EnsembleMLP
from pql.memory.replay import Batch
from tasks.base import Spaces


def test_units_that_answer_to_no_row_or_hardly_to_any_are_dormant():
    units = torch.tensor([[0.0, 4.0, 0.01, -2.0], [0.0, 0.0, 0.01, 2.0]])  # mean sizes 0, 2, .01, 2: a mean of 1
    assert float(dormant_share([units])) == 0.5
    assert float(dormant_share([units, torch.ones(2, 4)])) == 0.25
    assert float(dormant_share([torch.zeros(3, 5)])) == 1.0  # a layer that is dead altogether


def test_effective_rank_counts_the_directions_in_which_features_vary():
    assert float(effective_rank(torch.eye(6) - torch.eye(6).mean(0))) == pytest.approx(5, rel=1e-5)
    line = torch.arange(7.0).unsqueeze(1) * torch.tensor([1.0, -2.0, 3.0]) + 100
    assert float(effective_rank(line)) == pytest.approx(1, rel=1e-4)
    x = torch.randn(40, 9, generator=torch.Generator().manual_seed(0))
    eigenvalues = torch.linalg.svdvals((x - x.mean(0)).double()).square()
    expected = float(eigenvalues.sum() ** 2 / eigenvalues.square().sum())
    assert float(effective_rank(x)) == pytest.approx(expected, rel=1e-4)
    both = torch.stack([x, x[:, :1].expand(40, 9)])  # an ensemble: the mean of its members'
    assert float(effective_rank(both)) == pytest.approx((expected + 1) / 2, rel=1e-3)


def test_mass_at_the_ends_is_that_of_the_first_and_last_atom():
    assert float(mass_at_ends(torch.tensor([[0.5, 0.3, 0.2], [0.0, 1.0, 0.0]]))) == pytest.approx(0.35)


@pytest.mark.parametrize("name", ["pql", "pql_d", "sac", "flash_sac", "bro"])
def test_every_algorithms_networks_are_seen_from_inside_and_left_as_they_were(name):
    algorithm = algorithms.make(algorithms.get(name).Options(name=name), Spaces(5, 2))
    modules = {group.name: group.make() for group in algorithm.groups() if group.name in ("critic", "policy")}
    obs = torch.randn(16, 5)
    for module, compute in (
        (modules["policy"], lambda: algorithm.act(modules["policy"], obs)),
        (modules["critic"], lambda: algorithm.value(modules["critic"], obs, torch.zeros(16, 2))),
    ):
        found, result = inside(module, compute)
        assert set(found) == set(NAMES) and torch.equal(result, compute())
        assert 0 <= found["dormant_units"] < 0.5 and 1 <= found["feature_rank"] <= 16 and found["feature_norm"] > 0
        assert not any(part._forward_hooks for part in module.modules())


def test_features_are_what_the_last_layer_takes():
    critic = EnsembleMLP(3, [8, 4], 1, layer_norm=False)
    x = torch.randn(32, 3)
    found, _ = inside(critic, lambda: critic(x))
    h = x
    for layer in range(2):
        h = (h @ critic.weights[layer] + critic.biases[layer]).relu()
    assert float(found["feature_norm"]) == pytest.approx(float(h.detach().norm(dim=2).mean()), rel=1e-5)
    assert inside(nn.Linear(3, 2), lambda: 7) == ({}, 7)  # nothing inside


def test_td_error_of_a_diagnosis_is_the_loss_of_the_rows_that_count():
    algorithm = algorithms.make(algorithms.get("pql").Options(name="pql", hidden=[8]), Spaces(3, 2))
    torch.manual_seed(0)
    modules = {group.name: group.make() for group in algorithm.groups()}
    nets = Nets(**modules, critic_target=modules["critic"])
    obs, action, ones = torch.randn(6, 3), torch.randn(6, 2).tanh(), torch.ones(6)
    batch = Batch(obs, action, obs[:, 0], obs + 1, 0.9 * ones, ones, obs, obs + 1)
    counts = torch.tensor([1.0, 0, 0, 1, 0, 0])
    noise = torch.zeros(6, 2)
    found = of_critic(algorithm, nets, modules["critic"], batch, batch._replace(weight=counts), noise)
    some = Batch(*(column[[0, 3]] for column in batch))
    for name, rows in (("td_error_replay", batch), ("td_error_fresh", some)):
        total, count = found[name]
        expected = algorithm.critic_loss(nets, rows, noise[: len(rows.weight)])[0]
        assert float(total / count) == pytest.approx(float(expected), rel=1e-5)
    total, count = of_critic(algorithm, nets, modules["critic"], batch, batch._replace(weight=0 * ones), noise)[
        "td_error_fresh"
    ]
    assert float(total) == float(count) == 0  # nothing was fresh: nothing was measured
