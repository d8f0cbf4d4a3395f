"""Evaluation: the first episode of every environment, and honest statistics of the returns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import tasks
from pql.run.evaluation import TrainedPolicy, bootstrap_interval, episodes, interquartile_mean, metrics_report, play


class Countdown(tasks.VectorEnv):
    """Environment i ends for the first time after i + 1 steps and then again and again; every reward is 1."""

    def __init__(self, num_envs, short=None):
        self.num_envs, self.obs_dim, self.action_dim, self.max_episode_steps = num_envs, 1, 1, num_envs
        self.device = torch.device("cpu")
        self.steps = 0
        self.short = short

    def reset(self):
        self.age = torch.zeros(self.num_envs)
        return self.age[:, None]

    def step(self, action):
        self.steps += 1
        self.age = self.age + 1
        limit = torch.arange(1.0, self.num_envs + 1)
        if self.short is not None:  # later episodes are short: to count one would show
            limit = torch.where(torch.tensor(self.steps) > limit, torch.tensor(1.0), limit)
        done = self.age >= limit
        self.age = self.age * ~done
        terminated = done & (torch.arange(self.num_envs) % 2 == 0)
        none = torch.ones(self.num_envs, dtype=torch.bool)
        nan = torch.full((self.num_envs,), float("nan"))
        info = {
            "steps": torch.tensor(float(self.steps)),
            "at_end": torch.where(done, self.steps * 10.0, nan),
            "never": nan,
        }
        return tasks.Step(self.age[:, None], torch.ones(self.num_envs), terminated, done & ~terminated,
                          self.age[:, None], none, info)  # fmt: skip


def test_only_the_first_episode_of_each_environment_counts():
    env = Countdown(9, short=True)
    result = play(env, lambda obs: torch.zeros(9, 1))
    assert result.returns.tolist() == list(range(1, 10)) and result.lengths.tolist() == list(range(1, 10))
    assert env.steps == 9  # and it stops when the last has ended


def test_a_tasks_own_metrics_are_means_over_an_episodes_steps_that_tell_one():
    env = Countdown(3, short=True)  # the first environment plays three episodes, of which one counts
    result = play(env, lambda obs: torch.zeros(3, 1), ["steps", "at_end", "never"])
    assert result.metrics["steps"].tolist() == [1.0, 1.5, 2.0]
    assert result.metrics["at_end"].tolist() == [10.0, 20.0, 30.0]
    assert np.isnan(result.metrics["never"]).all()
    told = {"steps": np.array([1.0, np.nan, 3.0]), "never": result.metrics["never"]}
    found, never = metrics_report(result._replace(metrics=told)).values()
    assert (found["mean"], found["episodes"]) == (2.0, 2) and found["mean_interval"][0] <= 2 <= found["mean_interval"][
        1
    ]
    assert never == {"mean": None, "mean_interval": None, "episodes": 0}


def test_a_trained_policy_is_evaluated_with_the_metrics_of_its_task():
    env = Countdown(3)
    env.metric_names = ("steps",)
    result = TrainedPolicy(None, env, lambda obs: torch.zeros(3, 1), {}).evaluate()
    assert result.metrics["steps"].tolist() == [1.0, 1.5, 2.0]


def test_evaluation_can_be_advanced_step_by_step():
    env = Countdown(4)
    lengths = [result.lengths.tolist() for result in episodes(env, lambda obs: torch.zeros(4, 1))]
    assert lengths == [[1, 1, 1, 1], [1, 2, 2, 2], [1, 2, 3, 3], [1, 2, 3, 4]]


def test_every_evaluation_of_a_run_meets_the_same_first_states(plugin):
    env = tasks.make("Point", 6, seed=5)
    start = env.state_dict()
    policy = lambda obs: -obs  # noqa: E731
    one, two = ([*episodes(env, policy, start)][-1] for _ in range(2))
    assert one.returns.tolist() == two.returns.tolist() and len(set(one.returns.tolist())) == 6


@pytest.mark.parametrize("n", [4, 8, 40, 100])
def test_interquartile_mean_is_scipys_trimmed_mean(n):
    values = np.random.default_rng(n).gamma(2.0, 3.0, n)
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25), rel=1e-12)


def test_interquartile_mean_weighs_the_ends_by_their_share():
    # n = 5: the middle half is [1.25, 3.75] of the sorted unit cells: .75 of the 2nd, the 3rd, .75 of the 4th
    assert interquartile_mean(np.array([100.0, 1.0, 2.0, 4.0, -7.0])) == pytest.approx((0.75 * 1 + 2 + 0.75 * 4) / 2.5)
    assert interquartile_mean(np.array([3.0])) == 3.0


@pytest.mark.parametrize("statistic", [np.mean, interquartile_mean])
def test_bootstrap_interval_covers_the_truth_as_often_as_it_says(statistic):
    """300 experiments of 60 normal values whose mean and interquartile mean are 10.

    A percentile interval of 60 values covers 93.5 to 94.5 % of the time; the count of 300 has a standard deviation of
    4.2. Fewer than 264 (88 %) or more than 297 (99 %) would be 4 standard deviations off: 1 false alarm in 10 000.
    """
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(300):
        low, high = bootstrap_interval(rng.normal(10, 3, 60), statistic, samples=400)
        covered += low <= 10 <= high
    assert 264 <= covered <= 297


def test_bootstrap_interval_of_equal_values_is_that_value():
    assert bootstrap_interval(np.full(10, 2.5)) == (2.5, 2.5)
