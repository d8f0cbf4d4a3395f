"""The line of advice: runs made to be sick, each found; healthy ones get none."""

from __future__ import annotations

import pytest

from pql import config
from pql.roles import diagnosis
from pql.run.advice import advice
from pql.run.metrics import read_metrics
from pql.run.trainer import train

NORMS = {"critic": 10.0, "policy": 8.0}
HEALTHY = {"mass_at_ends": 0.01, "critic_dormant_units": 0.1, "policy_dormant_units": 0.2, "critic_step": 0.003,
           "policy_step": 0.005, "critic_weight_norm": 25.0, "policy_weight_norm": 9.0, "td_error_ratio": 2.2,
           "policy_saturation": 0.3}  # fmt: skip
SICK = {
    "support": ({"mass_at_ends": 0.3}, "30% of the targets' probability"),
    "dead": ({"critic_dormant_units": 0.7}, "70% of the critic's hidden units are dormant"),
    "rate": ({"policy_step": 0.02, "policy_weight_norm": 24.0}, "2.0% of their norm, which has grown to 3.0 times"),
    "saturated": ({"policy_saturation": 0.97}, "97% of the policy's actions"),
    "overfitting": ({"td_error_ratio": 5.0}, "is 5.0 times that on replayed ones"),
}


@pytest.mark.parametrize("change, words", SICK.values(), ids=SICK)
def test_what_is_out_of_range_in_the_newest_lines_is_said_with_what_to_try(change, words):
    healthy, sick = {"env_steps": 1, **HEALTHY}, {"env_steps": 2, **HEALTHY, **change}
    said = advice([healthy, {"env_steps": 1, "eval_return": 3.0}, sick, sick], NORMS)
    assert words in said and "algo." in said and "\n" not in said
    assert advice([sick], NORMS) is None  # one line may be chance
    assert advice([healthy] * 4, NORMS) is None and advice([], NORMS) is None


def test_a_run_without_a_critic_update_is_told_so():
    first = {"env_steps": 8, "critic_updates": 0}
    assert "nothing was learned" in advice([first], NORMS)
    assert advice([first, {"env_steps": 16, "critic_updates": 1}], NORMS) is None


RUNS = {
    "support": ({"algo": "pql_d", "algo.v_min": -0.5, "algo.v_max": 0.5}, "ends of the critic's support"),
    "rate": ({"algo.critic_lr": 0.1, "algo.actor_lr": 0.1}, "step size is too large"),
    "dead": ({"algo.layer_norm": "false", "algo.activation": "relu", "algo.critic_lr": 1.0}, "dormant"),
    "overfitting": (
        {"num_envs": 2, "algo.critic_updates_per_step": 64, "algo.warmup_steps": 16, "max_env_steps": 60,
         "log_interval": 10, "algo.hidden": "[64,64]", "algo.critic_lr": 0.002, "algo.actor_lr": 0.0003},
        "the critic overfits",
    ),
    "healthy": ({}, None),
    "healthy distributional": ({"algo": "pql_d", "algo.v_max": 20, "algo.v_min": -20}, None),
}  # fmt: skip


@pytest.mark.parametrize("changes, words", RUNS.values(), ids=RUNS)
def test_runs_made_to_be_sick_are_found_and_healthy_ones_get_no_advice(tiny, tmp_path, monkeypatch, changes, words):
    """One seed each, in `runtime=sync` the same on every machine of one kind; bounds are far from both."""
    monkeypatch.setattr(diagnosis, "EVERY", 16)
    common = {"eval_interval": 0, "algo.critic_updates_per_step": 3, "algo.hidden": "[32,32]", "log_interval": 200}
    summary = train(config.load(tiny(**{**common, **changes})))
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    seen = [{k: line[k] for k in HEALTHY if k in line} for line in lines]
    assert (summary["advice"] is None) == (words is None), (summary["advice"], seen[-3:])
    assert words is None or words in summary["advice"], (summary["advice"], seen[-3:])
