"""PQL-D: the projection against a slow loop, the choice of the twin, cross-entropy."""

from __future__ import annotations

import math

import pytest
import torch

from pql.algorithms import pql_d
from pql.algorithms.base import Nets
from pql.algorithms.pql_d import PQLD, PQLDOptions, project
from pql.memory.replay import Batch
from tasks.base import Spaces


def slow_projection(probs, return_n, discount, v_min, v_max):
    """Atom by atom in Python's floats: mass at distance d < 1 (in atoms) from an atom gives it 1 - d."""
    atoms = len(probs)
    spacing = (v_max - v_min) / (atoms - 1)
    out = [0.0] * atoms
    for i, p in enumerate(probs):
        place = return_n + discount * (v_min + i * spacing)
        place = min(max(place, v_min), v_max)
        for j in range(atoms):
            distance = abs(place - (v_min + j * spacing)) / spacing
            if distance < 1:
                out[j] += p * (1 - distance)
    return out


@pytest.fixture(params=["scattered", "gathered"])
def form(request, monkeypatch):
    """Both forms of the projection, a CPU's and a GPU's, on whatever device the test runs."""
    monkeypatch.setattr(pql_d, "gathered", getattr(pql_d, request.param))
    monkeypatch.setattr(pql_d, "scattered", getattr(pql_d, request.param))
    return request.param


GRIDS = [(51, -10.0, 10.0), (2, 0.0, 1.0), (101, -2.0, 20.0), (11, -100.0, -5.0)]


@pytest.mark.parametrize("atoms, v_min, v_max", GRIDS)
def test_projection_equals_a_slow_loop(form, atoms, v_min, v_max):
    generator = torch.Generator().manual_seed(0)
    rows = 60
    probs = torch.randn(rows, atoms, generator=generator).mul(3).softmax(1)
    return_n = (torch.rand(rows, generator=generator) * 1.6 - 0.3) * (v_max - v_min) + v_min
    discount = torch.rand(rows, generator=generator)
    discount[::5] = 0.0
    discount[1::5] = 1.0
    return_n[::7] = 0.0
    found = project(probs, return_n, discount, v_min, v_max)
    for row in range(rows):
        expected = slow_projection(
            probs[row].tolist(), float(return_n[row]), float(discount[row]), v_min, v_max
        )
        assert found[row].tolist() == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(found.sum(1), probs.sum(1), rtol=0, atol=1e-6)
    assert (found >= -1e-7).all()


def test_identity_shift_keeps_the_distribution(form):
    probs = torch.randn(4, 51).softmax(1)
    found = project(probs, torch.zeros(4), torch.ones(4), -10.0, 10.0)
    torch.testing.assert_close(found, probs, rtol=0, atol=1e-6)


def test_terminal_row_is_the_reward_alone(form):
    """Atoms -1, 0, 1: a terminal return of .25 lies a quarter of the way from 0 to 1, whatever was predicted."""
    probs = torch.tensor([[0.9, 0.05, 0.05]])
    found = project(probs, torch.tensor([0.25]), torch.tensor([0.0]), -1.0, 1.0)
    assert found[0].tolist() == pytest.approx([0.0, 0.75, 0.25], abs=1e-6)


@pytest.mark.parametrize("return_n, end", [(50.0, -1), (-50.0, 0), (10.0, -1), (-10.0, 0)])
def test_mass_beyond_an_end_goes_to_the_end_atom(form, return_n, end):
    found = project(torch.full((1, 51), 1 / 51), torch.tensor([return_n]), torch.tensor([0.0]), -10.0, 10.0)
    assert found[0, end] == pytest.approx(1.0, abs=1e-6)
    assert found.sum() == pytest.approx(1.0, abs=1e-6)


def test_both_forms_agree_where_shifted_atoms_meet_the_grid_or_lie_far_beyond_it():
    """Discounts of 0, 1, 1/2 and nearly 0 put atoms on atoms or on one another, where rounding could misplace mass."""
    generator = torch.Generator().manual_seed(1)
    places = [0.0, 25.0, 50.0, 10.5, 24.999999999999996, 49.5, -math.inf, math.inf]
    shift = torch.tensor(places).double().repeat(6).unsqueeze(1)
    discount = torch.tensor([0.0, 0.5, 1.0, 1e-300, 1e-12, 0.970299]).double().repeat_interleave(8).unsqueeze(1)
    probs = torch.randn(48, 51, generator=generator).mul(3).softmax(1)
    found, expected = pql_d.gathered(probs, shift, discount), pql_d.scattered(probs, shift, discount)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.sum(1), probs.sum(1), rtol=0, atol=1e-6)


@pytest.mark.gpu
def test_projection_on_a_gpu_equals_a_cpus():
    probs, discount = torch.randn(64, 51).softmax(1), torch.rand(64)
    values = probs, torch.randn(64) * 10, discount.masked_fill_(discount < 0.2, 0.0)
    found = project(*(value.cuda() for value in values), -10.0, 10.0)
    torch.testing.assert_close(found.cpu(), project(*values, -10.0, 10.0), rtol=0, atol=1e-6)


class Table:
    """A critic that answers the same logits whatever it is asked: (2, B, atoms)."""

    def __init__(self, logits):
        self.logits = torch.tensor(logits).requires_grad_()

    def __call__(self, *inputs):
        return self.logits


def loss_of(critic, target, return_n, discount, weight):
    algorithm = PQLD(PQLDOptions(num_atoms=3, v_min=-1.0, v_max=1.0), Spaces(2, 1))
    rows = len(return_n)
    obs, action = torch.zeros(rows, 2), torch.zeros(rows, 1)
    batch = Batch(obs, action, torch.tensor(return_n), obs, torch.tensor(discount), torch.tensor(weight), obs, obs)
    nets = Nets(critic=critic, critic_target=target, policy=lambda obs: torch.zeros(rows, 1))
    return algorithm.critic_loss(nets, batch, action)


def test_twin_with_the_smaller_mean_is_chosen_row_by_row_and_scored_by_cross_entropy():
    """Atoms -1, 0, 1. Row 0: twin 1 has the smaller mean; row 1: twin 0. The target is that twin's distribution."""
    p = [[[0.2, 0.2, 0.6], [0.5, 0.25, 0.25]], [[0.6, 0.1, 0.3], [0.1, 0.1, 0.8]]]
    chosen = [p[1][0], p[0][1]]
    target = Table([[[math.log(x) for x in row] for row in twin] for twin in p])
    q = [[[0.3, 0.3, 0.4], [0.2, 0.5, 0.3]], [[0.1, 0.8, 0.1], [0.4, 0.4, 0.2]]]
    critic = Table([[[math.log(x) for x in row] for row in twin] for twin in q])
    loss, metrics = loss_of(critic, target, [0.0, 0.0], [1.0, 1.0], [1.0, 1.0])
    expected = 0.0
    for twin in q:
        expected += sum(-sum(y * math.log(x) for y, x in zip(chosen[row], twin[row])) for row in range(2)) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    means = [sum(x * atom for x, atom in zip(row, (-1, 0, 1))) for twin in q for row in twin]
    assert float(metrics["q"]) == pytest.approx(sum(means) / 4, abs=1e-6)


def test_gradient_is_that_of_cross_entropy():
    """d/dlogits of -sum y log softmax is softmax - y, over the rows of the mean."""
    target = Table([[[0.0, 0.0, 0.0]] * 2] * 2)
    critic = Table([[[0.5, -0.5, 0.0]] * 2, [[0.0, 1.0, 2.0]] * 2])
    loss, _ = loss_of(critic, target, [1.0, -1.0], [0.0, 0.0], [1.0, 1.0])
    loss.backward()
    y = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(critic.logits.grad, (critic.logits.detach().softmax(2) - y) / 2)


def test_row_of_weight_zero_contributes_nothing():
    target, critic = Table([[[0.0, 0.0, 0.0]] * 2] * 2), Table([[[0.5, -0.5, 0.0]] * 2] * 2)
    loss, _ = loss_of(critic, target, [1.0, 1e6], [0.0, 1.0], [1.0, 0.0])
    loss.backward()
    assert (critic.logits.grad[:, 1] == 0).all() and (critic.logits.grad[:, 0] != 0).any()
    half = -math.log(math.exp(0.0) / (math.exp(0.5) + math.exp(-0.5) + 1.0)) / 2
    assert loss.item() == pytest.approx(2 * half, rel=1e-5)


def test_policy_climbs_the_smaller_expected_value():
    algorithm = PQLD(PQLDOptions(num_atoms=3, v_min=-1.0, v_max=1.0), Spaces(2, 1))
    logits = torch.tensor([[[0.2, 0.2, 0.6]], [[0.6, 0.1, 0.3]]]).log()
    critic = Table(logits.tolist())
    obs, one = torch.zeros(1, 2), torch.zeros(1)
    batch = Batch(obs, torch.zeros(1, 1), one, obs, one, one, obs, obs)
    loss, _ = algorithm.policy_loss(Nets(critic=critic, policy=lambda obs: torch.zeros(1, 1)), batch, torch.empty(1, 0))
    assert loss.item() == pytest.approx(0.3, rel=1e-5)  # -(.3 - .6)
