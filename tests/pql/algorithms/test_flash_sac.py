"""FlashSAC's ingredients: losses and gradients against numpy, unit norms, and the law of the kept noise."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch

from pql import config
from pql.algorithms.base import P_LEARNER, V_LEARNER, Nets
from pql.algorithms.flash_sac import FlashSAC, FlashSACOptions, halving
from pql.algorithms.residual import UnitDense
from pql.errors import UserError
from pql.memory.replay import Batch
from pql.roles.build import LEARNERS, make_replay, prepare
from pql.roles.flat import Flat
from pql.run.trainer import train
from tasks.base import Spaces

ROWS, OBS, ACTIONS, ATOMS, BOUND = 5, 3, 2, 7, 3.0
SIZES = {
    "critic_width": 6, "critic_blocks": 2, "actor_width": 5, "actor_blocks": 1, "expansion": 2, "num_atoms": ATOMS,
    "value_bound": BOUND,
}  # fmt: skip


@pytest.fixture
def algorithm():
    return FlashSAC(FlashSACOptions(**SIZES), Spaces(OBS, ACTIONS))


def rows(seed=0):
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    obs, next_obs = normal(ROWS, OBS), normal(ROWS, OBS)
    discount = torch.tensor([0.9, 0.0, 0.9, 0.81, 0.9], dtype=torch.float64)
    weight = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    batch = Batch(obs, normal(ROWS, ACTIONS).tanh(), normal(ROWS), next_obs, discount, weight, obs, next_obs)
    return batch, normal(ROWS, ACTIONS)


def networks(one, seed=0):
    torch.manual_seed(seed)
    made = {group.name: group.make().double() for group in one.groups()}
    for name in ("critic", "policy"):
        made[name].bias.data.add_(0.2 * torch.randn_like(made[name].bias))
    made["critic_target"] = copy.deepcopy(made["critic"])
    for p in made["critic_target"].parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    return made


# --- the equations, in numpy, one network at a time -----------------------------------------------------------------


def normalised(x):
    centred = x - x.mean(1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5)


def residual(net, e, x):
    h = x @ net.entry.weight[e].detach().numpy()
    for wide, narrow in zip(net.wide, net.narrow):
        inner = np.maximum(normalised(h @ wide.weight[e].detach().numpy()), 0)
        h = h + np.maximum(normalised(inner @ narrow.weight[e].detach().numpy()), 0)
    return normalised(h)


def policy(net, obs):
    out = residual(net.body, 0, obs) @ net.head.weight[0].detach().numpy() + net.bias.detach().numpy()
    return out[:, :ACTIONS], -10 + 12 * 0.5 * (1 + np.tanh(out[:, ACTIONS:]))


def sample(mean, log_std, noise):
    u = mean + np.exp(log_std) * noise
    log_prob = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi) - np.log(1 - np.tanh(u) ** 2)
    return np.tanh(u), log_prob.sum(1)


def distributions(net, obs, action):
    x, found = np.concatenate([obs, action], 1), []
    for e in (0, 1):
        logits = residual(net.body, e, x) @ net.head.weight[e].detach().numpy() + net.bias[e, 0].detach().numpy()
        found.append(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    return found


Z = np.linspace(-BOUND, BOUND, ATOMS)


def slow_critic(nets, batch, noise):
    obs, action, reward, next_obs, discount, weight = (x.numpy() for x in batch[:6])
    next_action, log_prob = sample(*policy(nets["policy"], next_obs), noise.numpy())
    twins = distributions(nets["critic_target"], next_obs, next_action)
    alpha, total, spacing = math.exp(nets["temperature"].number.item()), 0.0, 2 * BOUND / (ATOMS - 1)
    for b in range(ROWS):
        chosen = min(twins, key=lambda p: float(p[b] @ Z))[b]
        target = np.zeros(ATOMS)
        for z, mass in zip(Z, chosen):
            at = min(max(reward[b] + discount[b] * (z - alpha * log_prob[b]), -BOUND), BOUND)
            for i in range(ATOMS):  # to the neighbours in proportion to nearness
                target[i] += mass * max(0.0, 1 - abs(at - Z[i]) / spacing)
        for q in distributions(nets["critic"], obs, action):
            total -= weight[b] * float(target @ np.log(q[b])) / ROWS
    return total


def slow_policy(nets, batch, noise):
    obs = batch.obs.numpy()
    action, log_prob = sample(*policy(nets["policy"], obs), noise.numpy())
    q = np.minimum(*(p @ Z for p in distributions(nets["critic"], obs, action)))
    alpha = math.exp(nets["temperature"].number.item())
    target = 0.5 * ACTIONS * math.log(2 * math.pi * math.e * 0.15**2)
    return (alpha * log_prob - q).mean(), alpha * (-log_prob.mean() - target)


def test_losses_and_gradients_are_those_of_the_equations(algorithm):
    """Each loss to 1e-6, and central differences of the slow losses for 25 parameters of every group."""
    nets, (batch, noise) = networks(algorithm), rows()
    slow = {
        "critic_loss": {"critic": lambda: slow_critic(nets, batch, noise)},
        "policy_loss": {
            "policy": lambda: slow_policy(nets, batch, noise)[0],
            "temperature": lambda: slow_policy(nets, batch, noise)[1],
        },
    }
    choose = np.random.default_rng(0)
    for loss, groups in slow.items():
        for module in nets.values():
            module.zero_grad()
        value, _ = getattr(algorithm, loss)(Nets(**nets), batch, noise)
        value.backward()
        assert value.item() == pytest.approx(sum(function() for function in groups.values()), rel=1e-6)
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


def test_a_density_that_is_not_finite_leaves_the_temperature_to_the_other_rows(algorithm):
    """Its gradient is alpha (entropy - target), the entropy that of the four finite rows."""
    nets, (batch, noise) = networks(algorithm), rows()
    batch.obs[2] = float("nan")
    value, metrics = algorithm.policy_loss(Nets(**nets), batch, noise)
    value.backward()
    kept = [0, 1, 3, 4]
    _, log_prob = sample(*policy(nets["policy"], batch.obs[kept].numpy()), noise[kept].numpy())
    target = 0.5 * ACTIONS * math.log(2 * math.pi * math.e * 0.15**2)
    slope = math.exp(nets["temperature"].number.item()) * (-log_prob.mean() - target)
    assert nets["temperature"].number.grad.item() == pytest.approx(slope, rel=1e-6)
    assert metrics["entropy"].item() == pytest.approx(-log_prob.mean(), rel=1e-6)


def test_without_exploration_the_mean_action_is_taken(algorithm):
    nets, (batch, _) = networks(algorithm), rows()
    expected = np.tanh(policy(nets["policy"], batch.obs.numpy())[0])
    np.testing.assert_allclose(algorithm.act(nets["policy"], batch.obs).detach().numpy(), expected, rtol=1e-6)


def test_noise_is_kept_for_as_many_steps_as_its_law_says(algorithm):
    """Of 20 000 holds the share that lasts n steps is 1 / n^2 over the sum to 16, within five standard errors."""
    algorithm.cfg.noise_steps = 16
    policy = lambda obs: (torch.zeros(len(obs), ACTIONS), torch.zeros(len(obs), ACTIONS))  # noqa: E731
    memory, generator = algorithm.exploration(500, torch.device("cpu")), torch.Generator().manual_seed(0)
    obs, seen = torch.zeros(500, OBS), []
    for _ in range(140):
        seen.append(algorithm.explore(Nets(policy=policy), obs, memory, generator)[:, 0].clone())
    holds = []
    for actions in torch.stack(seen, 1):
        changes = (actions[1:] != actions[:-1]).nonzero().squeeze(1).tolist()
        holds += [b - a for a, b in zip(changes, changes[1:]) if a < 100]  # begun early enough to be seen to their end
    total = sum(n**-2.0 for n in range(1, 17))
    assert len(holds) > 20_000 and max(holds) <= 16
    for n in (1, 2, 3, 8, 16):
        p = n**-2.0 / total
        assert abs(holds.count(n) / len(holds) - p) < 5 * (p * (1 - p) / len(holds)) ** 0.5, n


def test_noise_of_one_step_is_new_at_every_step(algorithm):
    algorithm.cfg.noise_steps = 1
    policy = lambda obs: (torch.zeros(len(obs), ACTIONS), torch.zeros(len(obs), ACTIONS))  # noqa: E731
    memory, generator = algorithm.exploration(4, torch.device("cpu")), torch.Generator().manual_seed(0)
    one, two = (algorithm.explore(Nets(policy=policy), torch.zeros(4, OBS), memory, generator) for _ in range(2))
    assert (one != two).all()


def test_every_group_follows_the_schedule():
    made = FlashSAC(FlashSACOptions(**SIZES, lr_decay_updates=100), Spaces(OBS, ACTIONS))
    assert {g.name: float(g.optimizer.schedule(torch.tensor(100.0))) for g in made.groups()} == {
        "critic": 0.5, "policy": 0.5, "temperature": 0.5
    }  # fmt: skip


def test_step_size_falls_to_half_along_a_cosine():
    fall = halving(100)
    assert [round(float(fall(torch.tensor(float(n)))), 6) for n in (0, 50, 100, 1000)] == [1.0, 0.75, 0.5, 0.5]
    assert halving(0) is None


SMALL = {"algo.hidden": None, **{f"algo.{name}": size for name, size in SIZES.items()}}


@pytest.mark.parametrize("role", [V_LEARNER, P_LEARNER])
def test_rewards_are_scaled_where_they_are_sampled(tiny, plugin, role):
    """Returns of spread 4 and size at most 10, 10 / 5 = 2: the scale is 1 / 4, and a stored 6 is learned as 1.5."""
    cfg = config.load(tiny(algo="flash_sac", **{**SMALL, "algo.value_bound": 5.0}))
    algorithm, _, shared = prepare(cfg, Spaces(2, 2))
    replay = make_replay(cfg, algorithm, shared)
    obs, ones = torch.zeros(cfg.num_envs, 2), torch.ones(cfg.num_envs)
    replay.append(obs, obs, 6 * ones, obs)
    shared.returns.publish(torch.tensor([100.0, 0.0, 100 * 4.0**2, 10.0], dtype=torch.float64))
    learner = LEARNERS[role](cfg, algorithm, replay, shared)
    learner.step()
    rows = learner.unpack(learner.sample())
    torch.testing.assert_close(rows.return_n, torch.full_like(rows.return_n, 1.5))


@pytest.mark.parametrize("runtime", ["sync", "parallel"])
def test_a_run_keeps_unit_norms_and_knows_the_scale_of_its_rewards(tiny, plugin, tmp_path, runtime):
    from pql.run import evaluation
    from pql.runtime import checkpoint

    words = {**SMALL, "algo.lr_decay_updates": 100}
    assert train(config.load(tiny(algo="flash_sac", runtime=runtime, **words)))["status"] == "completed"
    run_dir = tmp_path / "run"
    folder = checkpoint.newest(run_dir)[0]
    critic = Flat({"critic": FlashSAC(FlashSACOptions(**SIZES), Spaces(2, 2)).make_critic()})
    critic.data.copy_(checkpoint.load_tensors(folder, "v_learner")["weights"])
    networks = critic.modules["critic"], evaluation.load_run(str(run_dir), 2).act.policy
    layers = [m for network in networks for m in network.modules() if isinstance(m, UnitDense)]
    assert len(layers) == 6 + 4
    for layer in layers:
        torch.testing.assert_close(layer.weight.norm(dim=1), torch.ones_like(layer.weight[:, 0]), rtol=1e-3, atol=1e-3)
    count, mean, m2, largest = checkpoint.load_tensors(folder, "actor")["returns"].tolist()
    assert count == 1600 and m2 > 0 and largest > abs(mean)


@pytest.mark.parametrize("key, value", [("noise_steps", 0), ("value_bound", -1), ("num_atoms", 1)])
def test_bad_values_are_told_in_one_line(tiny, plugin, key, value):
    with pytest.raises(UserError, match=rf"algo\.{key}"):
        config.load(tiny(algo="flash_sac", **{**SMALL, f"algo.{key}": value}))
