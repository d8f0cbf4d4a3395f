"""SAC: a whole update against plain arithmetic, and what its temperature does."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from pql import config
from pql.algorithms.base import Nets
from pql.algorithms.sac import SAC, SACOptions
from pql.errors import UserError
from pql.memory.replay import Batch
from pql.roles.learner import Optimizer
from tasks.base import Spaces

ROWS, OBS, ACTIONS = 4, 2, 2


def rows_of(seed=0):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    obs, next_obs = normal(ROWS, OBS), normal(ROWS, OBS)
    discount = torch.tensor([0.9, 0.0, 0.9, 0.81], dtype=torch.float64)
    weight = torch.tensor([1.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    batch = Batch(obs, normal(ROWS, ACTIONS).tanh(), normal(ROWS), next_obs, discount, weight, obs, next_obs)
    return batch, normal(ROWS, ACTIONS), normal(ROWS, ACTIONS)


def networks(algorithm, seed=0):
    torch.manual_seed(seed)
    made = {group.name: group.make().double() for group in algorithm.groups()}
    made["critic_target"] = copy.deepcopy(made["critic"])
    for p in made["critic_target"].parameters():
        p.data.add_(0.05)
    return made


def slow_policy(policy, obs):
    """One row through the layers, by loops over numbers: mean and log std."""
    h = obs.tolist()
    layers = [layer for layer in policy.body if isinstance(layer, torch.nn.Linear)]
    for i, layer in enumerate(layers):
        h = [sum(w * x for w, x in zip(row, h)) + b for row, b in zip(layer.weight.tolist(), layer.bias.tolist())]
        if i < len(layers) - 1:
            h = [max(0.0, x) for x in h]
    return h[:ACTIONS], h[ACTIONS:]


def slow_critic(critic, twin, row):
    h = list(row)
    for i, (weight, bias) in enumerate(zip(critic.weights, critic.biases)):
        columns = weight[twin].T.tolist()
        h = [sum(w * x for w, x in zip(column, h)) + b for column, b in zip(columns, bias[twin][0].tolist())]
        if i < len(critic.weights) - 1:
            h = [max(0.0, x) for x in h]
    return h[0]


def slow_sample(policy, obs, noise):
    mean, log_std = slow_policy(policy, obs)
    action, log_prob = [], 0.0
    for m, s, n in zip(mean, log_std, noise.tolist()):
        u = m + math.exp(s) * n
        action.append(math.tanh(u))
        log_prob += -0.5 * n * n - s - 0.5 * math.log(2 * math.pi) - math.log(1 - math.tanh(u) ** 2)
    return action, log_prob


def slow_losses(nets, batch, critic_noise, policy_noise, target_entropy):
    """Critic, policy and temperature loss from the equations, row by row."""
    alpha = math.exp(nets["temperature"].number.item())
    critic = policy = surplus = 0.0
    for i in range(ROWS):
        action, log_prob = slow_sample(nets["policy"], batch.next_obs[i], critic_noise[i])
        successor = [*batch.next_obs[i].tolist(), *action]
        value = min(slow_critic(nets["critic_target"], t, successor) for t in (0, 1)) - alpha * log_prob
        y = batch.return_n[i].item() + batch.discount[i].item() * value
        here = [*batch.obs[i].tolist(), *batch.action[i].tolist()]
        for t in (0, 1):
            critic += batch.weight[i].item() * (slow_critic(nets["critic"], t, here) - y) ** 2 / ROWS
        action, log_prob = slow_sample(nets["policy"], batch.obs[i], policy_noise[i])
        q = min(slow_critic(nets["critic"], t, [*batch.obs[i].tolist(), *action]) for t in (0, 1))
        policy += (alpha * log_prob - q) / ROWS
        surplus += (log_prob + target_entropy) / ROWS
    return critic, policy, -nets["temperature"].number.item() * surplus


def adam_by_hand(data, grad, m, v, t, lr):
    m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
    return data - lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)) ** 0.5 + 1e-8), m, v


@pytest.fixture
def algorithm():
    options = SACOptions(hidden=[3, 2], critic_lr=0.01, actor_lr=0.02, temperature_lr=0.03, initial_temperature=0.4)
    return SAC(options, Spaces(OBS, ACTIONS))


def test_losses_are_those_of_the_equations(algorithm):
    nets, (batch, critic_noise, policy_noise) = networks(algorithm), rows_of()
    critic, _ = algorithm.critic_loss(Nets(**nets), batch, critic_noise)
    both, told = algorithm.policy_loss(Nets(**nets), batch, policy_noise)
    expected = slow_losses(nets, batch, critic_noise, policy_noise, -2.0)
    assert critic.item() == pytest.approx(expected[0], rel=1e-6)
    assert told["policy_loss"].item() == pytest.approx(expected[1], rel=1e-6)
    assert both.item() == pytest.approx(expected[1] + expected[2], rel=1e-6)
    assert told["temperature"].item() == pytest.approx(0.4)


def test_two_whole_updates_against_numerical_gradients_and_adam_by_hand(algorithm):
    """Every parameter: central differences of the slow losses, then the optimizer's equations, then the soft target."""
    nets = networks(algorithm)
    groups = {group.name: group for group in algorithm.groups()}
    mine = {name: torch.cat([p.detach().reshape(-1) for p in nets[name].parameters()]) for name in groups}
    theirs = {name: (value.clone(), torch.zeros_like(value), torch.zeros_like(value)) for name, value in mine.items()}

    def put(name, vector):
        torch.nn.utils.vector_to_parameters(vector.clone(), nets[name].parameters())

    def slow(name, vector, arguments):
        put(name, vector)
        found = slow_losses(nets, *arguments, -2.0)
        return found[("critic", "policy", "temperature").index(name)]

    optimizers = {
        name: Optimizer(value.clone(), torch.zeros_like(value), groups[name].optimizer) for name, value in mine.items()
    }
    for update in (1, 2):
        arguments = rows_of(update)
        batch, critic_noise, policy_noise = arguments
        start = {name: optimizers[name].data.clone() for name in mine}
        for name, loss, noise in (("critic", algorithm.critic_loss, critic_noise),
                                  ("policy", algorithm.policy_loss, policy_noise)):  # fmt: skip
            trained = [name] if name == "critic" else ["policy", "temperature"]
            for key in mine:
                put(key, optimizers[key].data if key == "critic" else start[key])
            for module in nets.values():
                module.zero_grad()
            loss(Nets(**nets), batch, noise)[0].backward()
            for key in trained:
                optimizers[key].grad.copy_(torch.cat([p.grad.reshape(-1) for p in nets[key].parameters()]))
            # what the equations say of the same moment
            for key in trained:
                base, slope = start[key], torch.zeros_like(start[key])
                for i in range(len(base)):
                    step = torch.zeros_like(base)
                    step[i] = 1e-6
                    slope[i] = (slow(key, base + step, arguments) - slow(key, base - step, arguments)) / 2e-6
                put(key, base)
                torch.testing.assert_close(optimizers[key].grad, slope, rtol=1e-5, atol=1e-7)
                data, m, v = theirs[key]
                theirs[key] = adam_by_hand(data, slope, m, v, update, groups[key].optimizer.lr)
            for key in trained:
                optimizers[key].step()
                put(key, optimizers[key].data)
                torch.testing.assert_close(optimizers[key].data, theirs[key][0], rtol=1e-6, atol=1e-6)


def test_rows_without_weight_move_nothing(algorithm):
    nets, (batch, noise, _) = networks(algorithm), rows_of()
    losses = []
    for wrong in (0.0, 1e6):
        changed = batch.return_n.clone()
        changed[2] = wrong  # its weight is 0
        losses.append(algorithm.critic_loss(Nets(**nets), batch._replace(return_n=changed), noise)[0].item())
    assert losses[0] == losses[1]


def test_policy_and_temperature_do_not_move_each_other(algorithm):
    nets, (batch, _, noise) = networks(algorithm), rows_of()
    algorithm.policy_loss(Nets(**nets), batch, noise)[0].backward()
    both = nets["temperature"].number.grad.clone(), nets["policy"].body[0].weight.grad.clone()
    nets["policy"].requires_grad_(False)
    nets["temperature"].zero_grad()
    algorithm.policy_loss(Nets(**nets), batch, noise)[0].backward()
    assert torch.equal(nets["temperature"].number.grad, both[0])
    nets["policy"].requires_grad_(True)
    nets["temperature"].requires_grad_(False)
    nets["policy"].zero_grad()
    algorithm.policy_loss(Nets(**nets), batch, noise)[0].backward()
    assert torch.equal(nets["policy"].body[0].weight.grad, both[1])


@pytest.mark.parametrize("target, falls", [(-50.0, True), (50.0, False)])
def test_temperature_falls_where_there_is_more_entropy_than_asked_for(target, falls):
    algorithm = SAC(SACOptions(hidden=[4], target_entropy=target), Spaces(OBS, ACTIONS))
    nets, (batch, _, noise) = networks(algorithm), rows_of()
    algorithm.policy_loss(Nets(**nets), batch, noise)[0].backward()
    assert (nets["temperature"].number.grad.item() > 0) == falls


def test_one_bad_density_does_not_reach_the_temperature(algorithm):
    nets, (batch, _, noise) = networks(algorithm), rows_of()
    noise[3, 0] = float("inf")
    nets["policy"].requires_grad_(False)
    algorithm.policy_loss(Nets(**nets), batch, noise)[0].backward()
    assert math.isfinite(nets["temperature"].number.grad.item()) and nets["temperature"].number.grad.item() != 0


def test_deployed_action_is_the_mean_and_exploration_follows_its_generator(algorithm):
    nets, obs = networks(algorithm), torch.randn(5, OBS, dtype=torch.float64)
    mean, _ = nets["policy"](obs)
    assert torch.equal(algorithm.act(nets["policy"], obs), mean.tanh())
    one, same, other = (
        algorithm.explore(Nets(**nets), obs, {}, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same) and not torch.equal(one, other) and one.abs().max() <= 1


@pytest.mark.parametrize("key, value", [("temperature_lr", 0), ("initial_temperature", -1), ("target_entropy", "much")])
def test_bad_values_are_told_in_one_line(tiny, plugin, key, value):
    with pytest.raises(UserError, match=rf"algo\.{key}"):
        config.load(tiny(algo="sac", **{f"algo.{key}": value}))
