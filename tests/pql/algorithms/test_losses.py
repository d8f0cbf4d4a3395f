"""PQL's losses against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch

from pql.algorithms.base import Nets
from pql.algorithms.pql import PQL, PQLOptions
from pql.memory.replay import Batch
from tasks.base import Spaces

ALGORITHM = PQL(PQLOptions(target_noise=0.8, target_noise_clip=0.2), Spaces(1, 1))


def batch(return_n, discount, weight, action):
    rows = len(return_n)
    obs, next_obs = torch.ones(rows, 1), torch.full((rows, 1), 2.0)
    column = torch.tensor(action).unsqueeze(1)
    numbers = torch.tensor(return_n), next_obs, torch.tensor(discount), torch.tensor(weight)
    return Batch(obs, column, *numbers, critic_obs=obs, next_critic_obs=next_obs)


def critic_loss(critic, target, policy, batch, noise):
    return ALGORITHM.critic_loss(Nets(critic=critic, critic_target=target, policy=policy), batch, noise)


def policy_loss(policy, critic, batch):
    return ALGORITHM.policy_loss(Nets(critic=critic, policy=policy), batch, torch.empty(len(batch.obs), 0))


def critic(x):
    """Two linear critics: 3 obs + action, and 2 obs + 5 action."""
    obs, action = x.split(1, 1)
    return torch.stack([3 * obs + action, 2 * obs + 5 * action])


def test_target_is_the_smaller_twin_at_the_smoothed_action():
    """The policy says .5, the noise .1 / .8 -> .1: a' = .6; twins at obs 2: 6.6 and 7. y = 1 + .9 * 6.6 = 6.94.

    At obs 1 and action 0 the critics say 3 and 2: loss (3 - 6.94)^2 + (2 - 6.94)^2 = 39.9272.
    """
    noise = torch.tensor([[0.125]])
    loss, metrics = critic_loss(
        critic, critic, lambda obs: torch.full_like(obs, 0.5), batch([1.0], [0.9], [1.0], [0.0]), noise
    )
    assert float(loss) == pytest.approx(39.9272, rel=1e-6)
    assert float(metrics["critic_loss"]) == pytest.approx(39.9272, rel=1e-6)
    assert float(metrics["q"]) == pytest.approx(2.5, rel=1e-6)


def test_terminal_row_does_not_bootstrap():
    """y = 1: loss (3 - 1)^2 + (2 - 1)^2 = 5."""
    loss, _ = critic_loss(
        critic, critic, torch.zeros_like, batch([1.0], [0.0], [1.0], [0.0]), torch.zeros(1, 1)
    )
    assert float(loss) == pytest.approx(5.0, rel=1e-6)


def test_loss_is_a_sum_over_twins_and_a_mean_over_rows():
    """Rows of y = 1 and y = 3 at action 0: ((4 + 1) + (0 + 1)) / 2 = 3."""
    loss, _ = critic_loss(
        critic, critic, torch.zeros_like, batch([1.0, 3.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]), torch.zeros(2, 1)
    )
    assert float(loss) == pytest.approx(3.0, rel=1e-6)


def test_row_of_weight_zero_contributes_nothing():
    """Only the first row's (4 + 1) / 2 is left, whatever the second holds."""
    scale = torch.ones((), requires_grad=True)
    rows = torch.tensor([[1.0], [0.0]])

    def scaled(x):
        return critic(x) * torch.where(rows == 1, torch.ones(()), scale)

    loss, _ = critic_loss(
        scaled, critic, torch.zeros_like, batch([1.0, 1e6], [0.0, 0.9], [1.0, 0.0], [0.0, 0.5]), torch.zeros(2, 1)
    )
    loss.backward()
    assert float(loss) == pytest.approx(2.5, rel=1e-6)
    assert scale.grad == 0


def test_smoothed_action_clips_noise_and_action():
    """Noise 10 and -10 are clipped to +-.2; .9 + .2 is clipped to 1."""
    found = ALGORITHM.smoothed_action(
        lambda obs: torch.tensor([[0.9], [0.3], [0.3]]), torch.zeros(3, 1), torch.tensor([[10.0], [-10.0], [0.1]])
    )
    torch.testing.assert_close(found, torch.tensor([[1.0], [0.1], [0.38]]))


def test_no_gradient_reaches_target_or_policy():
    weight = torch.ones((), requires_grad=True)
    loss, _ = critic_loss(
        lambda x: critic(x) * weight, lambda x: critic(x) * weight.square(), lambda o: o * weight,
        batch([1.0], [0.9], [1.0], [0.0]), torch.zeros(1, 1),
    )  # fmt: skip
    loss.backward()
    # a' = clip(2) = 1, twins 7 and 9: y = 7.3; d/dw of (3w - y)^2 + (2w - y)^2 at 1 is 6 (3 - y) + 4 (2 - y)
    assert float(weight.grad) == pytest.approx(6 * (3 - 7.3) + 4 * (2 - 7.3), rel=1e-5)


def test_policy_loss_is_minus_the_mean_of_the_smaller_twin():
    """At actions .25 and 1, obs 1: twins 3.25, 3.25 and 4, 7 -> -(3.25 + 4) / 2."""
    rows = batch([0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0])
    loss, _ = policy_loss(lambda o: torch.tensor([[0.25], [1.0]]), critic, rows)
    assert float(loss) == pytest.approx(-3.625, rel=1e-6)


def test_cloning_pulls_the_policy_to_the_data_and_scales_values_to_one():
    """Obs 1, actions 0 and .6, the policy's .2: twins 3.2 and 3, so -3 / 3 + w ((.2^2 + .4^2) / 2) = -1 + .1 w.

    The second row weighs nothing in another batch: -1 + w .2^2 / 2. In the gradient the 3 counts as a number:
    d/da (-(2 + 5 a) / 3 + .4 ((a - 0)^2 + (a - .6)^2) / 2) at a = .2 is -5/3 + .4 (.2 - .4) = -1.746667.
    """
    algorithm = PQL(PQLOptions(bc_weight=0.4), Spaces(1, 1))
    a = torch.tensor(0.2, requires_grad=True)
    nets = Nets(critic=critic, policy=lambda obs: a.expand(len(obs), 1))
    none = torch.empty(2, 0)
    loss, _ = algorithm.policy_loss(nets, batch([0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.6]), none)
    assert float(loss) == pytest.approx(-1 + 0.4 * 0.1, rel=1e-6)
    loss.backward()
    assert float(a.grad) == pytest.approx(-5 / 3 + 0.4 * (0.2 - 0.4), rel=1e-6)
    loss, _ = algorithm.policy_loss(nets, batch([0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.6]), none)
    assert float(loss) == pytest.approx(-1 + 0.4 * 0.02, rel=1e-6)


def test_policy_gradient_comes_from_the_smaller_twin_of_each_row():
    """Action 0: twins 3 and 2, the second is smaller, slope 5; action 1: 4 and 7, slope 1; each over 2 rows."""
    action = torch.tensor([[0.0], [1.0]], requires_grad=True)
    rows = batch([0.0, 0.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0])
    loss, _ = policy_loss(lambda o: action, critic, rows)
    loss.backward()
    torch.testing.assert_close(action.grad, torch.tensor([[-2.5], [-0.5]]))
