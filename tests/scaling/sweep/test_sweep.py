"""Planning a sweep: axes, hashes, the plan file, the cost, and what is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from scaling.errors import InputError
from scaling.sweep import cli as sweep_cli
from scaling.sweep.cost import ASSUMED, estimate
from scaling.sweep.plan_file import (
    Plan,
    config_hash,
    lay_out,
    load_plan,
    make_request,
    parse_values,
    resolve_request,
    save_plan,
    to_override,
)

FAKE = f"{sys.executable} {Path(__file__).resolve().parents[1] / 'fake_trainer.py'}"
STEPS = "max_env_steps=1000"


def plan_of(*overrides: str, **sweep) -> Plan:
    return Plan(lay_out(make_request(sweep, [*overrides, STEPS])))


def test_usage_fits_eighty_columns():
    assert max(map(len, sweep_cli.USAGE.splitlines())) <= 80


def test_grid_is_the_product_of_all_axes_with_the_first_slowest():
    cells = plan_of("algo.utd=1,2", "seed=0,1,2", "task=Ant").cells
    assert [(c.overrides["algo.utd"], c.overrides["seed"]) for c in cells] == [
        (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert {c.overrides["task"] for c in cells} == {"Ant"}
    assert len({c.hash for c in cells}) == len({c.run_dir for c in cells}) == 6


def test_command_line_overrides_the_sweep_file():
    sweep = {"axes": {"algo.utd": [1, 2], "seed": [0, 1]}, "fixed": {"num_envs": 64}}
    cells = plan_of("algo.utd=4", "seed=7,8,9", "num_envs=128", **sweep).cells
    assert [(c.overrides["algo.utd"], c.overrides["seed"], c.overrides["num_envs"]) for c in cells] == [
        (4, 7, 128), (4, 8, 128), (4, 9, 128)]


def test_joint_axis_gives_both_keys_the_same_value_or_each_its_own():
    same = plan_of(axes={"algo.critic_lr,algo.actor_lr": [0.1, 0.2]}).cells
    assert [(c.overrides["algo.critic_lr"], c.overrides["algo.actor_lr"]) for c in same] == [(0.1, 0.1), (0.2, 0.2)]
    own = plan_of(axes={"num_envs,algo.batch_size": [[64, 256], [128, 512]]}).cells
    assert [(c.overrides["num_envs"], c.overrides["algo.batch_size"]) for c in own] == [(64, 256), (128, 512)]


def test_the_other_name_of_utd_gives_way_to_the_one_given():
    cells = plan_of("algo.critic_updates_per_step=8", axes={"algo.utd": [1, 2]}).cells
    assert len(cells) == 1 and "algo.utd" not in cells[0].overrides


def test_hash_knows_values_not_their_spelling_nor_their_order():
    assert config_hash({"a": 1, "b": 1e-3}) == config_hash({"b": 0.001, "a": 1.0})
    assert config_hash({"a": 1}) != config_hash({"a": 2})
    assert config_hash({"a": True}) != config_hash({"a": 1}) != config_hash({"a": "1"})
    assert config_hash({"a": 1, "resume": True, "run_dir": "x"}) == config_hash({"a": 1})


@pytest.mark.parametrize(("text", "values"), [
    ("1,2", [1, 2]), ("1e-4", [1e-4]), ("true,null", [True, None]), ("[256,128]", [[256, 128]]),
    ("[1],[2]", [[1], [2]]), ("'a,b'", ["a,b"]), ("Ant", ["Ant"])])
def test_commas_make_an_axis_and_brackets_one_value(text, values):
    assert parse_values("key", text) == values


def test_values_are_written_in_hydras_grammar():
    values = [1.0, 1e-4, True, None, [256, 128], "Ant", "/a/b c", "it's", "Läufe", "a\\b", "a\\", "null", "1e5"]
    assert [to_override(v) for v in values] == [
        "1", "0.0001", "true", "null", "[256,128]", "Ant", "'/a/b c'", "'it\\'s'", "'Läufe'", "'a\\b'", "'a\\\\'",
        "'null'", "'1e5'"]


def test_plan_file_gives_back_the_same_cells(tmp_path):
    plan = plan_of("seed=0,1", "algo.critic_lr=1e-4")
    save_plan(tmp_path, plan)
    assert load_plan(tmp_path) == plan
    assert save_plan(tmp_path, plan_of("algo.critic_lr=0.0001", "seed=0,1")) == plan


def test_edited_plan_is_refused(tmp_path):
    save_plan(tmp_path, plan_of("seed=0,1"))
    path = tmp_path / "plan.json"
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 5'))
    with pytest.raises(InputError, match="was edited"):
        load_plan(tmp_path)
    path.write_text("{}")
    with pytest.raises(InputError, match="damaged"):
        load_plan(tmp_path)


def test_other_axes_into_the_same_folder_need_extend_and_keep_the_old_cells(tmp_path):
    old = save_plan(tmp_path, plan_of("seed=0,1"))
    wider = plan_of("seed=1,2")
    with pytest.raises(InputError, match="extend=true"):
        save_plan(tmp_path, wider)
    assert load_plan(tmp_path) == old
    assert [c.overrides["seed"] for c in save_plan(tmp_path, wider, extend=True).cells] == [0, 1, 2]


def test_every_axis_value_is_shown_to_the_trainers_config():
    seen = []
    request = make_request({}, ["algo.utd=1,2,3", "seed=0,1", STEPS, "device=cuda"])
    resolve_request(request, lambda overrides: seen.append(overrides) or {}, skip=("device",))
    assert len(seen) == 3 and all("device=cuda" not in overrides for overrides in seen)
    assert {o for overrides in seen for o in overrides} >= {"algo.utd=1", "algo.utd=3", "seed=1"}


def test_all_cells_have_the_runtime_of_the_first_unless_one_is_given(tmp_path):
    words = ["algo.utd=0.1,0.2", "seed=0", "max_env_steps=1000"]
    resolve = lambda overrides: {"runtime": "sync" if "algo.utd=0.1" in overrides else "parallel"}  # noqa: E731
    plan = sweep_cli._plan({"dry_run": "true"}, words, tmp_path / "a", resolve, remote=False)
    assert [cell.overrides["runtime"] for cell in plan.cells] == ["sync", "sync"]
    plan = sweep_cli._plan({"dry_run": "true"}, [*words, "runtime=parallel"], tmp_path / "b", resolve, remote=False)
    assert [cell.overrides["runtime"] for cell in plan.cells] == ["parallel", "parallel"]


def test_cost_counts_updates_as_utd_times_steps_and_divides_time_among_workers(tmp_path):
    plan = plan_of("algo.utd=1,3", "seed=0,1")
    cost = estimate(plan, plan.cells, tmp_path, 2)
    assert (cost.cells, cost.env_steps, cost.updates) == (4, 4000, 2 * 1000 + 2 * 3000)
    by_hand = (4000 / ASSUMED["env_steps_per_s"] + 8000 / ASSUMED["updates_per_s"] + 4 * ASSUMED["start_s"]) / 2
    assert cost.seconds == pytest.approx(by_hand) and "assumed" in cost.basis
    per_step = plan_of("algo.critic_updates_per_step=8", "num_envs=16")
    assert estimate(per_step, per_step.cells, tmp_path, 1).updates == 8 / 16 * 1000


def test_finished_cells_correct_the_time(tmp_path):
    plan = plan_of("algo.utd=1", "seed=0,1,2")
    run = tmp_path / plan.cells[0].run_dir
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text(json.dumps({"env_steps": 1000, "wall_time_s": 50.0}) + "\n")
    (run / "summary.json").write_text('{"status": "completed"}')
    cost = estimate(plan, plan.cells[1:], tmp_path, 1)
    assert cost.seconds == pytest.approx(2 * (50.0 + 6.0)) and "1 finished cell" in cost.basis


@pytest.mark.parametrize(("arguments", "words"), [
    (["sweep=utd"], "out is missing"),
    (["out={tmp}/x"], "no plan to continue"),
    (["out={tmp}/x", "sweep=udt", STEPS], "did you mean 'utd'"),
    (["out={tmp}/x", "seed=0,1"], "max_env_steps is missing"),
    (["out={tmp}/x", "seed=", STEPS], "empty value"),
    (["out={tmp}/x", "seed=0,,1", STEPS], "empty value"),
    (["out={tmp}/x", "seed=1,1.0", STEPS], "names a value twice"),
    (["out={tmp}/x", "seed=0", "max_env_steps=many"], "not a positive number"),
    (["out={tmp}/x", "run_dir=y", STEPS], "leave it out"),
    (["out={tmp}/x", "seed", STEPS], "not key=value"),
    (["out={tmp}/x", "launcher=lokal", STEPS], "did you mean 'local'"),
    (["out={tmp}/x", "launcher.worker=2", STEPS], "did you mean 'workers'"),
    (["out={tmp}/x", "launcher.workers=0", STEPS], "at least 1"),
    (["out={tmp}/x", "launcher.workers=two", STEPS], "at least 1"),
    (["out={tmp}/file", STEPS], "is a file"),
    (["out={tmp}/x", "extend=yes", STEPS], "extend=true or extend=false"),
    (["out={tmp}/x", "lancher=local", STEPS], "did you mean launcher"),
    (["status", "out={tmp}/x"], "holds no plan.json"),
    (["status", "out={tmp}/file"], "is a file"),
    (["statsu"], "did you mean 'status'"),
])
def test_bad_input_is_one_line_with_a_remedy_and_exit_code_2(arguments, words, tmp_path, capsys):
    (tmp_path / "file").touch()
    arguments = [a.format(tmp=tmp_path) for a in arguments]
    if arguments[0] not in ("status", "statsu"):
        arguments.append(f"trainer={FAKE}")
    assert sweep_cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and words in error
    assert not (tmp_path / "x" / "runs").exists()


def test_empty_axis_and_wrong_fields_of_a_sweep_file_are_refused(tmp_path):
    with pytest.raises(InputError, match="has no values"):
        make_request({"axes": {"seed": []}}, [STEPS])
    with pytest.raises(InputError, match="did you mean 'axes'"):
        make_request({"axis": {"seed": [1]}}, [STEPS])
    with pytest.raises(InputError, match="exactly one"):
        make_request({"axes": {"algo.utd": [1]}, "fixed": {"algo.critic_updates_per_step": 8}}, [STEPS])
    with pytest.raises(InputError, match="write seed=0,1 for an axis"):
        make_request({"axes": {"seed": [1]}}, ["seed=[0,1]", STEPS])


def test_slurm_launcher_without_slurm_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sweep_cli.main([f"out={tmp_path}/x", "launcher=slurm", "seed=0", STEPS, f"trainer={FAKE}"]) == 2
    assert "sbatch, which is not on PATH" in capsys.readouterr().err


def test_dry_run_says_the_cost_and_leaves_nothing_behind(tmp_path, capsys):
    words = [f"out={tmp_path}/x", "seed=0,1", "algo.utd=1", STEPS, f"trainer={FAKE}", "dry_run=true"]
    assert sweep_cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "2 cells, 2 k env steps, 2 k critic updates" in shown
    assert max(len(line.replace(str(tmp_path), "")) for line in shown.splitlines()) <= 80
    assert not (tmp_path / "x").exists()


def test_what_a_sweep_held_fixed_and_tied_goes_into_the_plans_command(tmp_path):
    from scaling.curves.run_directories import shared_settings
    from scaling.report.plan import Plan as Advice
    from scaling.report.plan import command

    sweep = {"axes": {"algo.utd": [0.1, 0.2], "algo.batch_size": [32, 64], "algo.critic_lr,algo.actor_lr": [1e-3, 3e-4],
                      "algo.gamma": [0.98, 0.99], "seed": [0, 1]},
             "fixed": {"max_env_steps": 1000, "num_envs": 64, "algo.hidden": [64, 64]}}  # fmt: skip
    save_plan(tmp_path, Plan(lay_out(make_request(sweep, ["task=Cartpole"]))))
    settings = shared_settings(tmp_path)
    assert settings == {"fixed": {"num_envs": 64, "algo.hidden": [64, 64]}, "learning_rate_keys": ["algo.actor_lr"]}
    one = np.ones(1)
    advice = Advice(450.0, "flops", "Cartpole", 0.125 * one, 128.2 * one, 5e-4 * one, 2e4 * one, *[one] * 3, None)
    assert " ".join(command(advice, settings)) == (
        "python scripts/train.py task=Cartpole algo.utd=0.125 algo.batch_size=128 algo.critic_lr=0.0005 "
        "algo.actor_lr=0.0005 max_env_steps=20000 num_envs=64 'algo.hidden=[64,64]'"
    )
    assert shared_settings(tmp_path / "elsewhere") == {}
