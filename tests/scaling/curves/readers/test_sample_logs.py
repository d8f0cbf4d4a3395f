"""Real files of eight libraries give the env steps, returns and settings that the programs which wrote them counted."""

from __future__ import annotations

import shutil

import pytest

ALL = "task=Point,seed=7,utd=.5,batch_size=64,learning_rate=1e-3"


def check(table, right: dict[float, float], rows: int, tolerance: float = 0.006) -> None:
    """Rounded returns of the samples' own description at these env steps, and so many points in all."""
    found = dict(zip(table["env_steps"], table["episode_return"]))
    assert len(table) == rows == len(found)
    for step, value in right.items():
        assert found[step] == pytest.approx(value, abs=tolerance)


def test_stable_baselines3_resumed_run_is_whole_in_tensorboard_though_evaluations_npz_lost_its_start(logs, read):
    table = read(logs / "stable_baselines3" / "sac_resumed", "seed=1,utd=1,batch_size=64")
    check(table, {500: -1430.94, 1500: -1400.01, 3000: -1164.68, 3500: -1014.74, 5000: -419.01}, 10)
    assert set(table["task"]) == {"Pendulum-v1"}  # of the monitors' first line
    assert table["learning_rate"].iloc[0] == pytest.approx(1e-3)
    assert table["run"].nunique() == 1  # both evaluations.npz repeat it


def test_stable_baselines3_settings_come_from_the_saved_model(logs, read):
    table = read(logs / "stable_baselines3" / "sac_4envs")
    check(table, {2000: -1638.37, 4000: -1869.36, 6000: -1398.77}, 3)
    row = table.iloc[0]
    assert (row["utd"], row["batch_size"], row["learning_rate"], row["seed"]) == (0.25, 64, 1e-3, 2)


def test_stable_baselines3_evaluations_alone_start_where_the_resume_did_and_that_is_said(logs, read):
    table = read(logs / "stable_baselines3" / "sac_resumed" / "eval" / "evaluations.npz", ALL)
    check(table, {3500: -1014.74, 5000: -419.01}, 4)
    assert "first point is at 3500" in read.notes


def test_stable_baselines3_monitor_of_two_sessions_is_read_in_file_order(logs, read, tmp_path):
    (tmp_path / "run").mkdir()
    shutil.copy(logs / "stable_baselines3" / "one_file" / "appended_by_two_sessions.monitor.csv", tmp_path / "run")
    table = read(tmp_path / "run", ALL)
    check(table, {200: -1192.12, 800: -1640.79, 1000: -1434.72, 1600: -945.76}, 8)


def test_stable_baselines3_overwritten_monitor_counts_on_from_what_the_user_tells(logs, read):
    table = read(logs / "stable_baselines3" / "sac_resumed" / "monitor", f"{ALL},env_steps_before=3000")
    check(table, {3200: -1247.42, 5000: -119.16}, 10)


def test_stable_baselines3_monitors_of_four_environments_count_steps_of_all(logs, read, tmp_path):
    shutil.copytree(logs / "stable_baselines3" / "sac_4envs" / "monitor", tmp_path / "run")
    table = read(tmp_path / "run", ALL)
    assert table["env_steps"].tolist() == [800 * k for k in range(1, 8)]  # 200-step episodes of four at once
    first = [-1076.619625]
    for other in (1, 2, 3):
        line = (tmp_path / "run" / f"{other}.monitor.csv").read_text().splitlines()[2]
        first.append(float(line.split(",")[0]))
    assert table["episode_return"].iloc[0] == pytest.approx(sum(first) / 4)


def test_stable_baselines3_monitor_file_of_several_environments_is_refused(logs, refusal):
    for name in ("DummyVecEnv", "SubprocVecEnv"):
        line = refusal(logs / "stable_baselines3" / "one_file" / f"{name}.monitor.csv", ALL)
        assert "several environments wrote into one file" in line


def test_rsl_rl_iterations_become_env_steps_and_cut_episodes_are_left_out(logs, read):
    table = read(logs / "rsl_rl" / "resumed", ALL)
    check(table, {11520: 41.23, 23040: 44.28, 31104: 41.52, 38400: 43.61}, 62)
    assert not (table["episode_return"] < 30).any()  # 6.69 after the resume: random ages, no forgetting
    assert table["on_policy"].all()
    table = read(logs / "rsl_rl" / "resumed", f"{ALL},num_envs=16,max_episode_length=50")
    # whole episodes fill the mean after 50 x (16 + 100) = 5800 env steps; 384 an iteration, 23,040 in the first session
    assert table["env_steps"].iloc[0] == 16 * 384
    assert table["env_steps"][table["env_steps"] > 23040].iloc[0] == 23040 + 16 * 384
    table = read(logs / "rsl_rl" / "resumed", f"{ALL},max_episode_length=0")
    check(table, {384: 2.73, 11520: 41.23, 23040: 44.28, 23424: 6.69, 31104: 41.52, 38400: 43.61}, 100)


def test_mjlab_settings_come_from_its_yaml_and_a_run_of_cut_episodes_alone_is_refused(logs, read, refusal):
    assert "all of episodes cut short" in refusal(logs / "rsl_rl" / "mjlab_cartpole")
    table = read(logs / "rsl_rl" / "mjlab_cartpole", "max_episode_length=0")
    check(table, {2048: 0.37, 20480: 1.84, 40960: 4.04, 61440: 6.65}, 30)
    row = table.iloc[0]
    assert (row["task"], row["seed"], row["learning_rate"]) == ("cartpole", 5, 1e-3)
    assert row["batch_size"] == 64 * 32 / 4
    assert row["utd"] == 5 * 4 / 2048


def test_skrl_second_session_counts_on_and_vector_steps_become_env_steps(logs, read):
    table = read(logs / "skrl", f"{ALL},num_envs=4")
    check(table, {800: -1317.71, 4080: -1559.22, 7280: -1075.10, 8800: -1487.75, 11240: -1290.69}, 13)
    assert "counts from 0 again" in read.notes


def test_torchrl_ratio_and_batch_are_counted_and_its_rewards_are_no_returns(logs, read, refusal):
    folder = logs / "torchrl" / "csv_resumed"
    assert "return_tag" in refusal(folder, "task=P,seed=5,learning_rate=1e-3")
    assert "r_total is no return" in refusal(folder, f"{ALL},return_tag=r_total")
    table = read(folder, "task=P,seed=5,learning_rate=1e-3,return_tag=r_evaluation")
    check(table, {1100: -6.47, 3100: -8.00, 5100: -6.79}, 5)
    assert (table["utd"].iloc[0], table["batch_size"].iloc[0]) == (0.5, 32)
    table = read(logs / "torchrl" / "tensorboard", "task=P,seed=5,learning_rate=1e-3,return_tag=total_r_evaluation")
    check(table, {1100: -898.16, 2100: -1227.55}, 2)
    assert table["utd"].iloc[0] == 0.5


def test_tianshou_test_return_is_read_and_the_seed_is_the_folders(logs, read):
    table = read(logs / "tianshou", "{task}_sac/{}/{},utd=.5,batch_size=64,learning_rate=1e-3")
    check(table, {0: -1468.57, 1000: -1496.27, 3000: -1290.75, 4000: -1191.85}, 5)
    assert set(table["seed"]) == {4}
    assert set(table["task"]) == {"pendulum"}


def test_d3rlpy_csv_is_read_and_its_tensorboard_of_epochs_left_out(logs, read, refusal):
    table = read(logs / "d3rlpy", "task=P,seed=8,utd=.5")
    check(table, {500: -1367.94, 2000: -1249.84, 4000: -1268.63}, 8)
    assert (table["batch_size"].iloc[0], table["learning_rate"].iloc[0]) == (64, 2e-3)  # the critic's
    assert "counts epochs" in read.notes
    assert "counts epochs" in refusal(logs / "d3rlpy" / "SAC_tensorboard_hparams", ALL)


def test_rl_games_ppo_is_moved_by_an_epoch_and_sac_unscaled(logs, read, refusal):
    table = read(logs / "rl_games" / "ppo_resumed", ALL)
    check(table, {384: -7.33, 11520: 33.31, 23040: 41.94, 24192: 40.67, 30720: 42.91}, 78)
    assert "reward_scale" in refusal(logs / "rl_games" / "sac", ALL)
    table = read(logs / "rl_games" / "sac", f"{ALL},reward_scale=.1")
    check(table, {192: -5.7, 9600: 2.98, 19200: 4.76}, 298, tolerance=0.06)


def test_cleanrl_settings_come_from_its_table_and_episodes_at_one_step_are_averaged(logs, read):
    table = read(logs / "cleanrl")
    sac, ppo = (table[table["task"] == task] for task in ("Pendulum-v1", "CartPole-v1"))
    check(sac, {200: -876.5, 3818: -1653.13}, 19, tolerance=0.05)
    assert sac[["utd", "batch_size", "learning_rate", "seed"]].iloc[0].tolist() == [1, 256, 1e-3, 1]
    assert ppo[["utd", "batch_size", "learning_rate", "seed"]].iloc[0].tolist() == [4 * 4 / 512, 128, 2.5e-4, 2]
    assert len(ppo) == 173  # of 180 episodes
    assert "14 rows share a step" in read.notes
    assert set(table.groupby("task")["on_policy"].first()) == {True, False}


def test_what_the_files_do_not_tell_is_asked_for_in_one_line(logs, refusal):
    line = refusal(logs / "skrl")
    for key in ("num_envs", "task", "seed", "utd", "batch_size", "learning_rate", "meta=<csv: run, num_envs"):
        assert key in line
    line = refusal(logs / "stable_baselines3" / "sac_resumed")
    assert "do not tell seed, utd, batch_size," in line  # task and learning rate they do


def test_headless_csv_alone_is_refused_with_where_to_point(logs, refusal):
    for path in ("torchrl/csv_resumed/scalars/r_max.csv", "d3rlpy/SAC/evaluation.csv"):
        assert "first line is numbers" in refusal(logs / path)


def test_single_event_file_is_read_as_its_folder_is(logs, read):
    [path] = (logs / "tianshou").rglob("*tfevents*")
    check(read(path, ALL), {0: -1468.57, 4000: -1191.85}, 5)
