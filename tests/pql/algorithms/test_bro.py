"""BRO: every loss and its gradients against numpy from the equations, and what its scalars do."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from pql import config
from pql.algorithms.base import Nets
from pql.algorithms.bro import BRO, BROFast, BROFastOptions, BROOptions, quantile_huber
from pql.errors import UserError
from pql.memory.replay import Batch
from pql.run.trainer import train
from tasks.base import Spaces

ROWS, OBS, ACTIONS, QUANTILES = 5, 3, 2, 4
SIZES = {"critic_width": 6, "critic_blocks": 2, "actor_width": 5, "actor_blocks": 1, "num_quantiles": QUANTILES}


def algorithm(terminates=False, **changes):
    return BRO(BROOptions(**{**SIZES, **changes}), Spaces(OBS, ACTIONS, 0, terminates))


def rows(seed=0):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    obs, next_obs = normal(ROWS, OBS), normal(ROWS, OBS)
    discount = torch.tensor([0.9, 0.0, 0.9, 0.81, 0.9], dtype=torch.float64)
    weight = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    batch = Batch(obs, normal(ROWS, ACTIONS).tanh(), 2 * normal(ROWS), next_obs, discount, weight, obs, next_obs)
    return batch, normal(ROWS, ACTIONS)


def networks(one, seed=0):
    """In float64, away from what makes terms vanish: every norm has a scale, every bias a value."""
    torch.manual_seed(seed)
    made = {group.name: group.make().double() for group in one.groups()}
    made["critic_target"] = copy.deepcopy(made["critic"])
    for module in made.values():
        for p in module.parameters():
            p.data.add_(0.1 * torch.randn_like(p))
    return made


# --- the equations, in numpy, one network at a time -----------------------------------------------------------------


def dense(layer, e, x):
    out = x @ layer.weight[e].detach().numpy()
    return out if layer.bias is None else out + layer.bias[e, 0].detach().numpy()


def norm(layer, e, x):
    centred = x - x.mean(1, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-6)
    return unit * layer.scale[e, 0].detach().numpy() + layer.shift[e, 0].detach().numpy()


def bronet(net, e, x):
    h = np.maximum(norm(net.entry[1], e, dense(net.entry[0], e, x)), 0)
    for block in net.blocks:
        inner = np.maximum(norm(block[1], e, dense(block[0], e, h)), 0)
        h = h + norm(block[4], e, dense(block[3], e, inner))
    return h


def policy(net, obs):
    h = bronet(net.body, 0, obs)
    return dense(net.mean, 0, h), -10 + 12 * 0.5 * (1 + np.tanh(dense(net.log_std, 0, h)))


def sample(mean, log_std, noise):
    u = mean + np.exp(log_std) * noise
    log_prob = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi) - np.log(1 - np.tanh(u) ** 2)
    return np.tanh(u), log_prob.sum(1)


def critics(net, obs, action):
    x = np.concatenate([obs, action], 1)
    return [dense(net.body[1], e, bronet(net.body[0], e, x)) for e in (0, 1)]


def bounded(scalar):
    return math.exp(-10 + 17.5 * 0.5 * (1 + math.tanh(scalar.number.item())))


def slow_critic(nets, batch, noise, pessimism):
    obs, action, reward, next_obs, discount, weight = (x.numpy() for x in batch[:6])
    next_action, log_prob = sample(*policy(nets["policy"], next_obs), noise.numpy())
    one, two = critics(nets["critic_target"], next_obs, next_action)
    alpha, total = math.exp(nets["temperature"].number.item()), 0.0
    for found in critics(nets["critic"], obs, action):
        for b in range(ROWS):
            for i in range(QUANTILES):
                for j in range(QUANTILES):
                    future = (one[b, j] + two[b, j]) / 2 - pessimism * abs(one[b, j] - two[b, j]) / 2
                    error = reward[b] + discount[b] * (future - alpha * log_prob[b]) - found[b, i]
                    huber = 0.5 * error**2 if abs(error) <= 1 else abs(error) - 0.5
                    level = abs((i + 0.5) / QUANTILES - (1 if error < 0 else 0))
                    total += weight[b] * level * huber / QUANTILES / ROWS
    return total


def slow_policy(nets, batch, noise, pessimism):
    obs = batch.obs.numpy()
    action, log_prob = sample(*policy(nets["policy"], obs), noise.numpy())
    one, two = critics(nets["critic"], obs, action)
    q = ((one + two) / 2 - pessimism * np.abs(one - two) / 2).mean(1)
    alpha = math.exp(nets["temperature"].number.item())
    return (alpha * log_prob - q).mean(), alpha * (-log_prob.mean() + ACTIONS / 2)


def slow_optimist(nets, batch, noise):
    obs = batch.obs.numpy()
    mean, log_std = policy(nets["policy"], obs)
    net = nets["optimist"].body
    shift = dense(net[1], 0, bronet(net[0], 0, np.concatenate([obs, mean], 1)))
    action, _ = sample(mean + shift, log_std + math.log(0.75), noise.numpy())
    one, two = critics(nets["critic"], obs, action)
    std, std_o = np.exp(log_std), np.exp(log_std)  # the optimist's is divided by its multiplier again
    kl = (np.log(std / std_o) + (std_o**2 + shift**2) / (2 * std**2) - 0.5).sum(1).mean()
    optimism, kl_weight = bounded(nets["optimism"]), bounded(nets["kl_weight"])
    loss = kl_weight * kl - ((one + two) / 2 + optimism * np.abs(one - two) / 2).mean()
    return loss, (optimism - kl_weight) * (kl / ACTIONS - 0.05), kl


@pytest.mark.parametrize("pessimism", [0.0, 1.0])
def test_losses_and_gradients_are_those_of_the_equations(pessimism):
    """Each loss to 1e-6, and central differences of the slow losses for 25 parameters of every group."""
    one = algorithm(critic_pessimism=pessimism)
    nets, (batch, noise) = networks(one), rows()
    slow = {
        "critic_loss": ({"critic": lambda: slow_critic(nets, batch, noise, pessimism)}),
        "policy_loss": {
            "policy": lambda: slow_policy(nets, batch, noise, pessimism)[0],
            "temperature": lambda: slow_policy(nets, batch, noise, pessimism)[1],
        },
        "optimist_loss": {
            "optimist": lambda: slow_optimist(nets, batch, noise)[0],
            "optimism": lambda: slow_optimist(nets, batch, noise)[1],
            "kl_weight": lambda: slow_optimist(nets, batch, noise)[1],
        },
    }
    choose = np.random.default_rng(0)
    for loss, groups in slow.items():
        for module in nets.values():
            module.zero_grad()
        value, metrics = getattr(one, loss)(Nets(**nets), batch, noise)
        value.backward()
        expected = sum({id(f): f() for name, f in groups.items() if name != "kl_weight"}.values())
        assert value.item() == pytest.approx(expected, rel=1e-6), loss
        assert metrics[loss].item() == pytest.approx(next(iter(groups.values()))(), rel=1e-6)
        for name, function in groups.items():
            parameters = [(p, i) for p in nets[name].parameters() for i in range(p.numel())]
            for index in choose.permutation(len(parameters))[:25]:
                p, i = parameters[index]
                flat, base, found = p.data.view(-1), p.data.view(-1)[i].item(), []
                for change in (1e-6, -1e-6):
                    flat[i] = base + change
                    found.append(function())
                flat[i] = base
                slope = (found[0] - found[1]) / 2e-6
                assert p.grad.view(-1)[i].item() == pytest.approx(slope, rel=1e-4, abs=1e-7), (loss, name, index)


def test_quantile_loss_is_a_double_loop_over_predicted_and_target():
    g = torch.Generator().manual_seed(3)
    found, target = 2 * torch.randn(2, 3, 5, generator=g), 2 * torch.randn(3, 7, generator=g)
    for e in range(2):
        for b in range(3):
            total = 0.0
            for i in range(5):
                for j in range(7):
                    error = float(target[b, j] - found[e, b, i])
                    huber = 0.5 * error**2 if abs(error) <= 1 else abs(error) - 0.5
                    total += abs((i + 0.5) / 5 - (error < 0)) * huber / 7
            assert quantile_huber(found, target)[e, b].item() == pytest.approx(total, rel=1e-5)


def test_scalars_begin_at_what_is_asked_for_and_follow_the_divergence():
    one = algorithm()
    nets, (batch, noise) = networks(one), rows()
    fresh = {group.name: group.make() for group in one.groups()}
    assert bounded(fresh["optimism"]) == pytest.approx(1.0, rel=1e-5)
    assert bounded(fresh["kl_weight"]) == pytest.approx(0.25, rel=1e-5)
    for size, rises in ((0.0, True), (100.0, False)):  # of the shift: no divergence, or a large one
        for p in nets["optimist"].body[1].parameters():
            p.data.fill_(size)
        for name in ("optimism", "kl_weight"):
            nets[name].zero_grad()
        one.optimist_loss(Nets(**nets), batch, noise)[0].backward()
        assert (nets["optimism"].number.grad.item() < 0) == rises
        assert (nets["kl_weight"].number.grad.item() < 0) != rises


def test_smaller_twin_is_the_default_where_an_episode_can_terminate():
    assert algorithm(terminates=False).pessimism == 0.0
    assert algorithm(terminates=True).pessimism == 1.0
    assert algorithm(terminates=True, critic_pessimism=0.0).pessimism == 0.0
    one = algorithm(terminates=True)
    nets, (batch, _) = networks(one), rows()
    mean, apart = one.quantiles(nets["critic"], batch.critic_obs, batch.action)
    twins = nets["critic"](torch.cat([batch.critic_obs, batch.action], 1))
    torch.testing.assert_close(mean - apart, twins.amin(0))


def test_one_bad_density_does_not_reach_the_temperature():
    one = algorithm()
    nets, (batch, noise) = networks(one), rows()
    noise[1, 0] = float("inf")
    nets["policy"].requires_grad_(False)
    one.policy_loss(Nets(**nets), batch, noise)[0].backward()
    assert math.isfinite(nets["temperature"].number.grad.item())


def test_the_optimist_explores_and_the_policy_is_deployed():
    one = algorithm(std_multiplier=1e-6)
    nets, obs = networks(one), rows()[0].obs
    mean, _ = nets["policy"](obs)
    assert torch.equal(one.act(nets["policy"], obs), mean.tanh())
    explored = one.explore(Nets(**nets), obs, {}, torch.Generator().manual_seed(0))
    torch.testing.assert_close(explored, (mean + nets["optimist"](obs, mean)).tanh(), rtol=1e-4, atol=1e-4)


def test_fast_has_two_updates_per_transition_and_one_reset():
    assert (BROFastOptions().utd, BROFastOptions().reset_env_steps) == (2.0, [15_001])
    assert (BROOptions().utd, BROOptions().weight_decay, BROOptions().batch_size) == (10.0, 1e-4, 128)
    assert BROFast.Options is BROFastOptions


SMALL = {"algo.hidden": None, **{f"algo.{name}": size for name, size in SIZES.items()}}


@pytest.mark.parametrize("runtime", ["sync", "parallel"])
def test_a_run_resets_where_transitions_say_and_ends_at_its_ratio(tiny, plugin, tmp_path, runtime):
    words = {"algo.critic_updates_per_step": None, "algo.utd": 0.25, "algo.reset_env_steps": "[400,800]", **SMALL}
    summary = train(config.load(tiny(algo="bro_fast", runtime=runtime, **words)))
    assert (summary["status"], summary["critic_updates"], summary["policy_updates"]) == ("completed", 400, 400)


@pytest.mark.parametrize("key, value", [("num_quantiles", 0), ("initial_optimism", 1e9), ("critic_pessimism", -1)])
def test_bad_values_are_told_in_one_line(tiny, plugin, key, value):
    with pytest.raises(UserError, match=rf"algo\.{key}"):
        config.load(tiny(algo="bro", **{**SMALL, f"algo.{key}": value}))
