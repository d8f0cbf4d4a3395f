"""The actor: what it reports of its episodes, and what it does in one vector step."""

from __future__ import annotations

import math
import random

import pytest
import torch

from pql import config
from pql.config import make_env
from pql.roles.actor import Actor, EpisodeStatistics
from pql.roles.build import make_replay, prepare


def test_statistics_start_empty_not_full_of_zeros():
    statistics = EpisodeStatistics(3, "cpu", window=10)
    mean_return, mean_length, count = statistics.means().tolist()
    assert math.isnan(mean_return) and math.isnan(mean_length) and count == 0


def test_partially_filled_window_says_so():
    statistics = EpisodeStatistics(2, "cpu", window=10)
    statistics.add(torch.tensor([5.0, 1.0]), torch.tensor([True, False]))
    assert statistics.means().tolist() == [5, 1, 1]
    statistics.add(torch.tensor([2.0, 2.0]), torch.tensor([True, True]))
    assert statistics.means().tolist() == pytest.approx([(5 + 2 + 3) / 3, (1 + 1 + 2) / 3, 3])


@pytest.mark.parametrize("num_envs, window", [(1, 5), (7, 20), (30, 8)])
def test_newest_steps_count_whole_until_they_hold_the_window_as_a_slow_loop_counts_them(num_envs, window):
    """With 30 environments and a window of 8 more episodes may end in one step than the window holds."""
    rng = random.Random(num_envs)
    statistics = EpisodeStatistics(num_envs, "cpu", window)
    steps = []  # of each step in which episodes ended, those
    running = [[0.0, 0] for _ in range(num_envs)]
    for _ in range(300):
        reward = [rng.randint(-4, 4) / 2 for _ in range(num_envs)]  # sums of halves are exact
        done = [rng.random() < 0.15 for _ in range(num_envs)]
        statistics.add(torch.tensor(reward), torch.tensor(done))
        ended = []
        for e in range(num_envs):
            running[e] = [running[e][0] + reward[e], running[e][1] + 1]
            if done[e]:
                ended.append(running[e])
                running[e] = [0.0, 0]
        steps += [ended] if ended else []
        newest = []
        for ended in reversed(steps):
            if len(newest) < window:
                newest += ended
        mean_return, mean_length, count = statistics.means().tolist()
        assert count == len(newest)
        if newest:
            assert mean_return == pytest.approx(sum(r for r, _ in newest) / len(newest), abs=1e-6)
            assert mean_length == pytest.approx(sum(n for _, n in newest) / len(newest))


def test_all_episodes_that_end_together_count_alike():
    """512 environments whose returns are 0 to 511, all ended by one time limit: 255.5, not that of the last 100."""
    statistics = EpisodeStatistics(512, "cpu")
    statistics.add(torch.arange(512.0), torch.ones(512, dtype=torch.bool))
    assert statistics.means().tolist() == [255.5, 1.0, 512.0]


@pytest.fixture
def actor(tiny, plugin):
    """An actor and a second view of its ring: `actor(key=value)`."""

    def make(**changes):
        cfg = config.load(tiny(**changes))
        env = make_env(cfg, cfg.num_envs, 0)
        algorithm, _, shared = prepare(cfg, env.spaces)
        replay = make_replay(cfg, algorithm, shared)
        return Actor(cfg, env, algorithm, replay, shared)

    return make


def test_warm_up_acts_uniformly_and_the_policy_with_noise_after_it(actor):
    one = actor(**{"algo.warmup_steps": 50, "algo.n_step": 1, "num_envs": 16, "algo.replay_size": 3200,
                   "algo.noise_low": 0.001, "algo.noise_high": 0.001})  # fmt: skip
    for _ in range(60):
        one.step()
    rows = one.replay.unpack(one.replay.rows_at(torch.arange(60 * 16)))
    random_part, policy_part = rows.action[: 50 * 16], rows.action[50 * 16 :]
    # 1600 uniform draws in [-1, 1]: the mean's standard error is .0144, the mean square's (1/3) is .0075
    assert abs(float(random_part.mean())) < 5 * 0.0144
    assert abs(float(random_part.square().mean()) - 1 / 3) < 5 * 0.0075
    # a fresh policy's actions lie near zero
    assert float(policy_part.abs().max()) < 0.3
    assert int(one.shared.vector_steps) == 60 and int(one.replay.head) == 60 * 16


def test_replay_may_round_what_the_normaliser_sees_exactly(actor):
    exact, rounded = (actor(**{"algo.replay_dtype": dtype}) for dtype in ("float32", "bfloat16"))
    for _ in range(8):  # of the warm-up
        exact.step()
        rounded.step()
    assert torch.equal(exact.normalizer.state, rounded.normalizer.state)
    one, two = (x.replay.unpack(x.replay.rows_at(torch.arange(len(x.replay)))) for x in (exact, rounded))
    for name in ("obs", "action", "next_obs"):
        a, b = getattr(one, name), getattr(two, name)
        assert torch.equal(a.bfloat16().float(), b) and not torch.equal(a, b)
    assert torch.equal(one.return_n, two.return_n) and torch.equal(one.discount, two.discount)


def test_rewards_are_scaled_for_learning_but_not_in_reported_returns(actor):
    plain, scaled = (actor(**{"algo.reward_scale": scale, "algo.warmup_steps": 40}) for scale in (1.0, 0.25))
    for _ in range(40):
        plain.step()
        scaled.step()
    a, b = (x.replay.unpack(x.replay.rows_at(torch.arange(64))).return_n for x in (plain, scaled))  # of the warm-up
    assert torch.allclose(a * 0.25, b, rtol=1e-5)
    assert float(plain.shared.episodes[2]) >= 8
    # both did the same all the while, so what is reported must be the same too, and it is not nothing
    assert float(plain.shared.episodes[0]) == float(scaled.shared.episodes[0]) != 0


def test_normaliser_saw_every_observation_acted_in_and_none_twice(actor):
    one = actor()
    seen = []
    for _ in range(30):
        one.step()
        seen.append(one.obs.clone())
    assert int(one.normalizer.state[0]) == 31 * 8
    assert torch.equal(one.shared.normalizer.buffers[int(one.shared.normalizer.version) % 2], one.normalizer.state)
    without = actor(**{"algo.normalize_obs": "false"})
    without.step()
    assert int(without.normalizer.state[0]) == 0 and torch.equal(without.normalizer(one.obs), one.obs)


@pytest.mark.parametrize("where", ["next_obs", "obs", "reward"])
def test_nothing_that_is_not_a_number_gets_past_the_actor(actor, where):
    one = actor()
    for _ in range(5):
        one.step()
    env_step = one.env.step

    def spoiled(action):
        step = env_step(action)
        value = getattr(step, where).clone()
        value[3] = float("inf")
        return step._replace(**{where: value})

    one.env.step = spoiled
    before = one.replay.rows.clone(), one.normalizer.state.clone(), int(one.replay.head)
    with pytest.raises(FloatingPointError, match=r"NaN or infinity in 1 of 8 environments \(first: 3\) at vector"):
        one.step()
    assert torch.equal(one.replay.rows, before[0]) and torch.equal(one.normalizer.state, before[1])
    assert int(one.replay.head) == before[2]


def test_policy_that_diverged_is_named_as_the_cause(actor):
    one = actor()
    for _ in range(9):
        one.step()  # past the warm-up
    one.shared.weights["p_learner"].publish(torch.full_like(one.weights.data, float("nan")))
    with pytest.raises(FloatingPointError, match="learning diverged: the policy's action is NaN"):
        one.step()


def test_invalid_transitions_are_counted(actor):
    one = actor()
    env_step = one.env.step
    one.env.step = lambda action: env_step(action)._replace(valid=torch.arange(8) >= 3)
    for _ in range(4):
        one.step()
    assert int(one.shared.invalid) == 12


def test_contacts_without_room_are_reported(actor):
    one = actor()
    env_step, count = one.env.step, iter(range(5, 50, 5))
    one.env.step = lambda action: env_step(action)._replace(info={"contact_overflows": torch.tensor(next(count))})
    for _ in range(4):
        one.step()
    assert one.shared.contact_overflows.tolist() == [20]


@pytest.mark.parametrize("told", ["false", "true"])
def test_an_environment_may_overwrite_what_it_returned_with_its_next_step(actor, told):
    """As a simulator does whose step is a graph: all steps lie in the same memory."""
    plain, reused = (actor(**{"task.options.told": told}) for _ in range(2))
    env_step, memory = reused.env.step, []

    def into_the_same_memory(action):
        step = env_step(action)
        if not memory:
            memory.append(step._replace(**{k: v.clone() for k, v in step._asdict().items() if torch.is_tensor(v)}))
        for old, new in zip(memory[0], step):
            if torch.is_tensor(new):
                old.copy_(new)
        return memory[0]

    reused.env.step = into_the_same_memory
    for _ in range(40):
        plain.step()
        reused.step()
    assert torch.equal(plain.replay.rows, reused.replay.rows)
    assert torch.equal(plain.normalizer.state, reused.normalizer.state)
