"""An algorithm's own keys: typed, known to it alone, kept on a resume."""

from __future__ import annotations

import json

import pytest

from pql import config
from pql.errors import UserError
from pql.run.trainer import train


def refused(words, *said):
    with pytest.raises(UserError) as told:
        config.load(words)
    for text in said:
        assert text in str(told.value)


def test_key_of_another_algorithm_is_named_as_such(tiny, plugin):
    refused(tiny(**{"algo.v_min": -1}), "algo.v_min is no key of algo=pql, but of pql_d")
    refused(tiny(algo="sac", **{"algo.target_noise": 0.1}), "no key of algo=sac, but of ", " pql, pql_d")


def test_misspelt_key_names_the_nearest_of_this_algorithm(tiny, plugin):
    refused(tiny(algo="sac", **{"algo.target_entorpy": -1}), "did you mean algo.target_entropy?")


def test_unknown_algorithm_names_the_nearest(tiny, plugin):
    refused(tiny(algo="sacc"), "unknown algo 'sacc' (did you mean sac?)")


def test_presets_give_sizes_to_whoever_has_them(tmp_path):
    words = ["task=Ant", "device=cpu", f"run_dir={tmp_path / 'run'}"]
    assert not hasattr(config.load([*words, "algo=pql"]).algo, "v_min")
    assert config.load([*words, "algo=pql_d"]).algo.v_min == -5.0
    sac = config.load([*words, "algo=sac"])
    assert (sac.num_envs, sac.algo.utd, sac.algo.hidden, sac.algo.batch_size) == (8, 1.0, [256, 256], 256)


def test_ratio_may_be_given_either_way_whatever_the_algorithm_defaults_to(tiny, plugin):
    by_step = config.load(tiny(algo="sac", **{"algo.critic_updates_per_step": 4})).algo
    assert (by_step.critic_updates_per_step, by_step.utd) == (4, 0.5)
    by_transition = config.load(tiny(algo="pql", **{"algo.critic_updates_per_step": None, "algo.utd": 2})).algo
    assert (by_transition.critic_updates_per_step, by_transition.utd) == (16, 2)


@pytest.mark.parametrize("utd", [1 / 1024, 0.3, 16])
def test_ratio_of_a_finished_run_is_exact(tiny, plugin, utd):
    words = {"algo.critic_updates_per_step": None, "algo.utd": utd, "max_env_steps": 200 if utd > 1 else 1600}
    words.update({"algo.replay_size": 20_000, "eval_interval": 0})
    summary = train(config.load(tiny(algo="sac", **words)))
    assert summary["critic_updates"] == int(utd * summary["env_steps"] + 1e-6)


def test_run_of_one_algorithm_is_not_resumed_as_another(tiny, plugin, tmp_path):
    run_dir = tmp_path / "run"
    train(config.load(tiny(algo="sac", run_dir=run_dir)))
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    again = [f"run_dir={run_dir}", "resume=true", "max_env_steps=2400"]
    refused([*again, "algo=pql"], "was trained with algo=sac, not pql", "another run_dir")
    refused([*again, "algo.hidden=[8]"], "algo.hidden=[16], not [8]")
    assert before == {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    train(config.load([*again, "algo.temperature_lr=1e-3"]))
    assert json.loads((run_dir / "summary.json").read_text())["env_steps"] == 2400


@pytest.mark.parametrize(
    "key, value, rule",
    [
        ("reset_interval", 0, "at least 1"),
        ("reset_updates", "[0]", "at least 1"),
        ("reset_env_steps", "[-5]", "at least 1"),
        ("reset_interval", "often", "could not be converted to Integer"),
        ("policy_average", 2, "in (0, 1]"),
        ("v_min", 20, "less than algo.v_max"),
    ],
)
def test_bad_values_of_what_all_algorithms_have(tiny, plugin, key, value, rule):
    refused(tiny(algo="pql_d", **{f"algo.{key}": value}), f"algo.{key}={value}", rule)
