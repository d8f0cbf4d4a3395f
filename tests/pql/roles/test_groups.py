"""What an algorithm declares is what happens: groups, optimizers, schedules, buffers, resets, its own metrics."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pql import algorithms, config
from pql.algorithms.base import P_LEARNER, V_LEARNER, Adam, Algorithm, Group, MLPOptions
from pql.algorithms.survey import survey
from pql.errors import UserError
from pql.roles.build import make_replay, prepare
from pql.roles.flat import Flat
from pql.roles.learner import Optimizer
from pql.roles.p_learner import PLearner
from pql.roles.resets import Resets
from pql.roles.v_learner import VLearner
from pql.run import evaluation
from pql.run.metrics import read_metrics
from pql.run.trainer import train
from pql.runtime import checkpoint
from tasks.base import Spaces

ALL = Path(__file__).resolve().parents[1] / "parts_bin.py"


@pytest.fixture
def every_part(tiny, plugin):
    """Overrides of a run of the algorithm that uses every part of the contract."""
    config.import_plugins([str(ALL)])
    plugins = next(word for word in tiny() if word.startswith("plugins=")).partition("=")[2].strip("[]")
    return lambda **changes: tiny(algo="parts_bin", plugins=f"[{plugins},{ALL}]", **changes)


@pytest.fixture
def learners(every_part):
    def make(**changes):
        cfg = config.load(every_part(**changes))
        algorithm, _, shared = prepare(cfg, Spaces(5, 2))
        replay, generator = make_replay(cfg, algorithm, shared), torch.Generator().manual_seed(0)
        for _ in range(40):
            obs, next_obs = torch.randn(2, 8, 5, generator=generator)
            action = torch.rand(8, 2, generator=generator)
            replay.append(obs, action, obs[:, 0], next_obs)
        return VLearner(cfg, algorithm, replay, shared), PLearner(cfg, algorithm, replay, shared)

    return make


def test_networks_and_buffers_lie_in_one_vector_in_the_order_of_the_groups():
    one = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    two = nn.Linear(3, 1)
    before = [t.clone() for module in (one, two) for t in (*module.parameters(),)]
    flat = Flat({"one": one, "two": two})
    assert (flat.parameters["one"], flat.all["one"]) == (slice(0, 9 + 6), slice(0, 9 + 6 + 6))
    assert (flat.parameters["two"], flat.all["two"]) == (slice(21, 25), slice(21, 25))
    assert all(torch.equal(a, b) for a, b in zip(before, [*one.parameters(), *two.parameters()]))
    flat.data.fill_(7.0)
    assert (one[1].running_var == 7).all() and (two.weight == 7).all()
    one(torch.randn(4, 2)).sum().backward()
    assert not torch.equal(flat.data[15:18], torch.full((3,), 7.0))  # its running mean moved, in the vector
    assert flat.grad[:15].abs().sum() > 0 and (flat.grad[15:] == 0).all()
    assert one[1].num_batches_tracked == 1  # a counter stays where it was


def test_schedule_moves_the_step_size_as_torchs_own_does():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    flat = Flat({"it": ours})
    mine = Optimizer(flat.data, flat.grad, Adam(0.1, (0.5, 0.9), 1e-6, schedule=lambda n: 1 / (1 + n)))
    adam = torch.optim.Adam(theirs.parameters(), lr=0.1, betas=(0.5, 0.9), eps=1e-6)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda n: 1 / (1 + n))
    for _ in range(12):
        x = torch.randn(8, 3)
        flat.grad.zero_()
        ours(x).square().sum().backward()
        mine.step()
        adam.zero_grad()
        theirs(x).square().sum().backward()
        adam.step()
        schedule.step()
    for a, b in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_each_group_has_its_own_loss_target_and_constraint(learners):
    v_learner, p_learner = learners()
    width, policy = p_learner.nets.width.number.item(), p_learner.nets.policy.head.weight.clone()
    target = v_learner.nets.critic_target.weights[0].clone()
    v_learner.update()
    p_learner.update()
    weights = v_learner.nets.critic.weights[0]
    torch.testing.assert_close(weights.norm(dim=1), torch.ones(weights.shape[0], weights.shape[2]))
    torch.testing.assert_close(v_learner.nets.critic_target.weights[0], torch.lerp(target, weights, v_learner.cfg.tau))
    # Adam's first step is the step size, down the slope of (width + 2)^2; no clip or decay of another group's
    assert p_learner.nets.width.number.item() == pytest.approx(width - 0.01, abs=1e-6)
    assert not torch.equal(p_learner.nets.policy.head.weight, policy)


def test_running_statistics_reach_the_other_roles_and_what_is_deployed(learners, every_part, tmp_path):
    v_learner, p_learner = learners()
    p_learner.update()
    mean = p_learner.nets.policy.norm.running_mean
    assert mean.abs().max() > 0
    v_learner.update()
    assert torch.equal(v_learner.nets.policy.norm.running_mean, mean) and not v_learner.nets.policy.training
    train(config.load(every_part(**{"algo.normalize_obs": "false"})))
    trained = evaluation.load_run(str(tmp_path / "run"), 4)
    weights = checkpoint.load_tensors(checkpoint.newest(tmp_path / "run")[0], "p_learner")["weights"]
    assert torch.equal(trained.act.policy.norm.running_mean, weights[4 + 6 : 4 + 6 + 2])  # affine, head, then buffers


@pytest.mark.parametrize("runtime", ["sync", "parallel"])
def test_its_own_metrics_are_in_the_log(every_part, tmp_path, runtime):
    assert train(config.load(every_part(runtime=runtime)))["status"] == "completed"
    lines = [line for line in read_metrics(tmp_path / "run" / "metrics.jsonl") if "width" in line]
    # of a role that has updated nothing since the last line there is nothing to say
    assert {"width_grad_norm", "policy_grad_norm", "critic_grad_norm", "policy_age"} <= set().union(*lines)
    assert lines[-1]["width"] < lines[0]["width"] < -1


def test_a_resumed_run_is_the_uninterrupted_one_with_all_parts_and_resets(every_part, tmp_path):
    """Reset every 30 critic updates, interrupted between two of them."""
    changes = {"algo.reset_interval": 30, "algo.warmup_steps": 8}
    train(config.load(every_part(run_dir=tmp_path / "whole", **changes)))
    train(config.load(every_part(run_dir=tmp_path / "parts", max_env_steps=800, **changes)))
    train(config.load([f"run_dir={tmp_path / 'parts'}", "resume=true", "max_env_steps=1600"]))
    for role in ("actor", "v_learner", "p_learner"):
        whole, parts = (
            checkpoint.load_tensors(checkpoint.newest(tmp_path / run)[0], role) for run in ("whole", "parts")
        )
        assert whole.keys() == parts.keys()
        for name, value in whole.items():
            assert torch.equal(value, parts[name]), (role, name)


def test_reset_begins_networks_targets_and_optimizers_anew_and_leaves_the_replay(learners):
    v_learner, p_learner = learners(**{"algo.reset_updates": "[3]", "algo.critic_updates_per_policy_update": 1})
    rows, initial = v_learner.replay.rows.clone(), v_learner.weights.data.clone()
    for _ in range(3):
        v_learner.update()
        p_learner.update()
    trained, width = v_learner.weights.data.clone(), p_learner.nets.width.number.item()
    assert float(v_learner.optimizers["critic"].steps) == 3
    v_learner.begin_anew(1)
    fresh = v_learner.weights.data.clone()
    assert not torch.equal(fresh, trained) and not torch.equal(fresh, initial)
    assert torch.equal(v_learner.targets.data, fresh)
    assert all((value == 0).all() for value in v_learner.optimizers["critic"].state_dict().values())
    v_learner.weights.data.copy_(trained)
    v_learner.update()  # does the same by itself, as three updates are done, and then one update
    p_learner.update()
    assert float(v_learner.optimizers["critic"].steps) == float(p_learner.optimizers["policy"].steps) == 1
    # one Adam step moves each weight by its step size at most, before the constraint
    moved = v_learner.nets.critic.weights[1].detach().reshape(-1) - _stretch(v_learner, fresh, 1)
    assert 0 < float(moved.abs().max()) < 1e-3
    assert p_learner.nets.width.number.item() == pytest.approx(width - 0.01, abs=2e-3)  # asked to stay as it is
    assert torch.equal(p_learner.average.data, p_learner.weights.data[p_learner.weights.all["policy"]])
    assert torch.equal(v_learner.replay.rows, rows)


def _stretch(learner, vector, index):
    """The weights of the critic's layer `index` as they stand in a flat vector."""
    before = sum(p.numel() for p in list(learner.nets.critic.weights)[:index])
    return vector[before : before + learner.nets.critic.weights[index].numel()]


@pytest.mark.parametrize(
    "keys, every, role, expected",
    [
        ({"reset_interval": 5}, 1, V_LEARNER, [5, 10, 15, 20]),
        ({"reset_updates": [3, 7]}, 1, V_LEARNER, [3, 7]),
        ({"reset_updates": [3, 7]}, 2, P_LEARNER, [2, 4]),  # after the first policy update that is later than 3 and 7
        ({"reset_env_steps": [40, 41]}, 1, V_LEARNER, [10, 12]),  # 8 envs, 2 updates a step: 5 and 6 vector steps
        ({"reset_env_steps": [8]}, 1, V_LEARNER, []),  # within the warm-up there is nothing to reset
    ],
)
def test_resets_come_at_the_counts_that_were_asked_for(every_part, keys, every, role, expected):
    words = {f"algo.{key}": value for key, value in keys.items()}
    more = {"algo.critic_updates_per_policy_update": every, "algo.critic_updates_per_step": 2, "algo.warmup_steps": 3}
    resets = Resets(config.load(every_part(**words, **more)), role)
    numbers = {updates: resets.due(updates) for updates in range(22)}
    assert [updates for updates, number in numbers.items() if number] == expected
    assert [number for number in numbers.values() if number] == list(range(1, len(expected) + 1))


class Incomplete(Algorithm):
    Options = MLPOptions

    def groups(self):
        return [Group("critic", lambda: nn.Linear(3, 1), V_LEARNER, Adam(0.1), "critic_loss")]


class WithoutLoss(Incomplete):
    def groups(self):
        return [*super().groups(), Group("policy", lambda: nn.Linear(2, 1), P_LEARNER, Adam(0.1), "policy_loss")]

    def critic_loss(self, nets, batch, noise):
        return nets.critic.weight.sum(), {}


@pytest.mark.parametrize(
    "algorithm, said", [(Incomplete, "no group named 'policy'"), (WithoutLoss, "the loss 'policy_loss'")]
)
def test_what_an_algorithm_lacks_is_told_in_one_line(algorithm, said):
    with pytest.raises(UserError, match=said):
        survey(algorithm(MLPOptions(), Spaces(2, 1)))


@pytest.mark.parametrize("name", algorithms.names())
def test_survey_finds_what_an_update_measures_and_asks_for(name):
    options = algorithms.get(name).Options(name=name)
    found = survey(algorithms.make(options, Spaces(6, 2)))
    assert {"critic_grad_norm"} < set(found.metrics[V_LEARNER]) and {"policy_grad_norm"} < set(found.metrics[P_LEARNER])
    # a critic's update is at least its forward pass and the two products of each layer's gradients
    assert found.flops[V_LEARNER] > 3 * 2 * options.batch_size * found.parameters["critic"] * 0.5
