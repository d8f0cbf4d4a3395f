"""Event files made here: sessions that overlap, what is asked, patterns and tables of settings, plugins, W&B."""

from __future__ import annotations

import json
import os
import shutil
import zipfile

import numpy as np
import pytest

ALL = "task=Point,seed=7,utd=.5,batch_size=64,learning_rate=1e-3"
GENERIC = f"{ALL},return_tag=return,env_steps_per_step=1"


def ramp(*steps: int) -> list[tuple[int, float]]:
    return [(step, float(step)) for step in steps]


def test_no_point_of_a_long_event_file_is_left_out(tmp_path, read, write_events):
    write_events(tmp_path / "run", {"return": ramp(*range(10_100))})  # TensorBoard itself keeps 10,000
    table = read(tmp_path / "run", GENERIC)
    assert table["env_steps"].tolist() == list(range(10_100))


def test_later_event_file_replaces_the_earlier_from_its_first_step_on(tmp_path, read, write_events):
    write_events(tmp_path / "run", {"return": [(step, 1.0) for step in range(0, 101, 10)]})
    write_events(tmp_path / "run", {"return": [(step, 2.0) for step in range(60, 151, 10)]})
    table = read(tmp_path / "run", GENERIC)
    assert table["env_steps"].tolist() == list(range(0, 151, 10))
    assert table["episode_return"].tolist() == [1.0] * 6 + [2.0] * 10
    assert "read as resumed, the later part replaces the earlier one (5 rows)" in read.notes


def test_event_file_that_begins_anew_is_asked_about(tmp_path, read, refusal, write_events):
    for value in (1.0, 2.0):
        write_events(tmp_path / "run", {"return": [(step, value) for step in range(0, 101, 10)]})
    assert "near its start" in refusal(tmp_path / "run", GENERIC)
    assert read(tmp_path / "run", GENERIC, "resumed=replace")["episode_return"].tolist() == [2.0] * 11
    assert read(tmp_path / "run", GENERIC, "resumed=add")["env_steps"].max() == 200


def test_two_runs_writing_into_one_folder_at_once_are_refused(tmp_path, refusal, write_events):
    write_events(tmp_path / "run", {"return": ramp(0, 10, 20)}, begin=100)
    write_events(tmp_path / "run", {"return": ramp(5, 15, 25)}, begin=101)
    assert "two runs in one folder" in refusal(tmp_path / "run", GENERIC)


def test_record_cut_short_by_a_kill_costs_that_record_alone(tmp_path, read, write_events):
    write_events(tmp_path / "run", {"return": ramp(0, 10, 20)})
    [path] = (tmp_path / "run").iterdir()
    path.write_bytes(path.read_bytes()[:-7])
    assert read(tmp_path / "run", GENERIC)["env_steps"].tolist() == [0, 10]
    assert "bytes cannot be read" in read.notes


def test_file_that_is_no_event_file_is_refused_alone_and_named_beside_others(tmp_path, read, refusal, write_events):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "events.out.tfevents.1.x").write_bytes(b"\x00garbage" * 100)
    assert "no log of a known library" in refusal(tmp_path / "run", GENERIC)
    write_events(tmp_path / "run", {"return": ramp(0, 10, 20)})
    assert len(read(tmp_path / "run", GENERIC)) == 3
    assert "tfevents.1.x: its last 800 bytes cannot be read" in read.notes


def test_log_that_breaks_its_reader_is_named_and_the_others_go_on(tmp_path, read, logs):
    shutil.copytree(logs / "d3rlpy" / "SAC", tmp_path / "a" / "good")
    shutil.copytree(logs / "d3rlpy" / "SAC", tmp_path / "a" / "bad")
    (tmp_path / "a" / "bad" / "evaluation.csv").write_text("")
    (tmp_path / "a" / "worse").mkdir()
    (tmp_path / "a" / "worse" / "0.monitor.csv").write_text('#{"t_start"')
    table = read(tmp_path / "a", "task=P,seed=0,utd=.5")
    assert set(table["run"]) == {"good"}
    assert "run bad: left out, evaluation.csv cannot be read" in read.notes
    assert "run worse: left out" in read.notes


def test_scalars_of_tensorflow_2_are_read(tmp_path, read):
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.plugins.scalar.metadata import create_summary_metadata
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from tensorboard.util.tensor_util import make_tensor_proto

    writer = EventFileWriter(str(tmp_path / "run"))
    for step in (10, 20):
        event = Event(step=step, wall_time=step)
        value = event.summary.value.add(tag="return", tensor=make_tensor_proto(np.float32(step / 4)))
        value.metadata.CopyFrom(create_summary_metadata("", ""))
        writer.add_event(event)
    writer.close()
    assert read(tmp_path / "run", GENERIC)["episode_return"].tolist() == [2.5, 5.0]


def test_unknown_tags_are_listed_and_asked_about(tmp_path, refusal, write_events):
    write_events(tmp_path / "run", {"my/score": ramp(1, 2), "my/loss": ramp(1, 2)})
    line = refusal(tmp_path / "run", ALL)
    assert "a tag of my/loss, my/score" in line
    assert "env_steps_per_step" in refusal(tmp_path / "run", f"{ALL},return_tag=my/score")


def test_same_points_written_four_times_are_one(tmp_path, read, write_events):
    points = [(step, float(step)) for step in (800, 1600) for _ in range(4)]
    tags = ("rollout/ep_rew_mean", "rollout/ep_len_mean", "train/approx_kl")
    write_events(tmp_path / "PPO_1", dict.fromkeys(tags, points))
    table = read(tmp_path, ALL)
    assert table["env_steps"].tolist() == [800, 1600]
    assert table["on_policy"].all()


def test_points_before_the_first_episode_are_no_numbers_and_a_diverged_run_is_left_out(tmp_path, read, write_events):
    nan = float("nan")
    write_events(tmp_path / "a" / "run", {"return": [(0, nan), (10, 1.0), (20, 2.0)]})
    write_events(tmp_path / "a" / "diverged", {"return": [(0, 1.0), (10, nan), (20, nan)]})
    table = read(tmp_path / "a", GENERIC)
    assert table["env_steps"].tolist() == [10, 20]
    assert "run diverged: left out, its return is no number at 10 env steps" in read.notes


def test_gap_in_the_log_is_said(tmp_path, read, write_events):
    write_events(tmp_path / "run", {"return": ramp(0, 10, 20, 30, 40, 500, 510)})
    read(tmp_path / "run", GENERIC)
    assert "no points from 40 to 500" in read.notes


# --- stable-baselines3 -----------------------------------------------------------------------------------------------
def saved_model(path, **data) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", json.dumps({"num_timesteps": 6000, "learning_rate": 1e-3, "seed": 3, "n_envs": 4,
                                             "batch_size": 64, **data}))  # fmt: skip


@pytest.mark.parametrize(
    ("data", "utd"),
    [
        ({"_n_updates": 1450, "learning_starts": 200, "gradient_steps": 1}, 0.25),
        ({"_n_updates": 1447, "learning_starts": 200, "gradient_steps": 1}, 0.25),  # it ended between two trainings
        ({"_n_updates": 5790, "learning_starts": 200, "gradient_steps": -1}, 1.0),
        ({"_n_updates": 100, "n_epochs": 10, "n_steps": 100, "batch_size": 50}, 10 * 8 / 400),  # PPO
    ],
)
def test_ratio_of_a_saved_model_is_the_one_that_was_set(tmp_path, read, write_events, data, utd):
    write_events(tmp_path / "tb", {"eval/mean_reward": ramp(1000, 2000), "eval/mean_ep_length": ramp(1000)})
    saved_model(tmp_path / "model.zip", **data)
    assert read(tmp_path, "task=P")["utd"].iloc[0] == pytest.approx(utd)


def test_model_whose_steps_were_counted_from_0_again_tells_no_ratio(tmp_path, refusal, write_events):
    write_events(tmp_path / "tb", {"eval/mean_reward": ramp(1000, 2000), "eval/mean_ep_length": ramp(1000)})
    saved_model(tmp_path / "model.zip", _n_updates=3000, learning_starts=200, gradient_steps=1)
    assert "do not tell utd" in refusal(tmp_path, "task=P")


def test_model_is_given_to_no_run_where_two_could_own_it(tmp_path, refusal, write_events):
    for name in ("SAC_1", "SAC_2"):
        write_events(tmp_path / name, {"eval/mean_reward": ramp(1000, 2000), "eval/mean_ep_length": ramp(1000)})
    saved_model(tmp_path / "model.zip", _n_updates=1450, learning_starts=200, gradient_steps=1)
    assert "do not tell seed, utd, batch_size" in refusal(tmp_path, "task=P")


def test_log_that_a_resume_wrote_over_is_refused_until_its_start_is_told(tmp_path, read, refusal):
    np.savez(tmp_path / "evaluations.npz", timesteps=np.arange(500, 2001, 500), results=np.ones((4, 3)))
    saved_model(tmp_path / "model.zip", _n_updates=1450, learning_starts=200, gradient_steps=1)
    assert "env_steps_before" in refusal(tmp_path, "task=P")
    assert read(tmp_path, "task=P,env_steps_before=4000")["env_steps"].tolist() == [4500, 5000, 5500, 6000]


class Pickled:
    """Makes a folder where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickle_in_an_npz_is_not_opened(tmp_path, refusal):
    results = np.array([[Pickled(tmp_path / "opened")], [1.0]], dtype=object)
    np.savez(tmp_path / "evaluations.npz", timesteps=np.arange(2), results=results)
    assert "no readable evaluations.npz" in refusal(tmp_path, ALL)
    assert not (tmp_path / "opened").exists()


# --- rsl_rl, rl_games ------------------------------------------------------------------------------------------------
def rsl_session(first: int, last: int, size: int, length: float = 50.0, seconds: float = 0.013) -> dict:
    """Iterations first..last of `size` env steps; the return is the iteration."""
    its = range(first, last + 1)
    times = [seconds * (1 + 0.1 * (i % 7) + 0.001 * i) for i in its]
    return {
        "Perf/total_fps": [(i, float(int(size / np.float32(t)))) for i, t in zip(its, times)],
        "Perf/collection_time": [(i, t) for i, t in zip(its, times)],
        "Perf/learning_time": [(i, 0.0) for i in its],
        "Train/mean_reward": ramp(*its),
        "Train/mean_episode_length": [(i, length) for i in its],
    }


def test_rsl_rl_run_killed_after_its_checkpoint_goes_on_from_the_checkpoint(tmp_path, read, write_events):
    write_events(tmp_path / "run", rsl_session(0, 79, 384))
    write_events(tmp_path / "run", rsl_session(50, 99, 384))  # model_50.pt, saved after iteration 50
    table = read(tmp_path / "run", f"{ALL},max_episode_length=0")
    # 51 iterations before the checkpoint, 50 after
    assert table["env_steps"].tolist() == [384 * k for k in range(1, 102)]
    assert table["episode_return"].tolist() == [*range(51), *range(50, 100)]


def test_rsl_rl_without_a_time_limit_in_sight_is_asked_about(tmp_path, refusal, write_events):
    session = rsl_session(0, 40, 384)
    session["Train/mean_episode_length"] = [(i, 10.0 + i) for i in range(41)]
    write_events(tmp_path / "run", session)
    assert "max_episode_length" in refusal(tmp_path / "run", ALL)


def test_rsl_rl_slow_iterations_tell_their_env_steps_together(tmp_path, read, write_events):
    write_events(tmp_path / "run", rsl_session(0, 60, 2048, seconds=3.1))  # each alone leaves three integers and more
    table = read(tmp_path / "run", f"{ALL},max_episode_length=0")
    assert table["env_steps"].iloc[0] == 2048


def test_rsl_rl_steps_of_an_iteration_are_asked_for_where_the_rates_do_not_tell(tmp_path, refusal, write_events):
    session = {tag: points[:2] for tag, points in rsl_session(0, 5, 98304, seconds=20.0).items()}
    write_events(tmp_path / "run", session)
    assert "env_steps_per_step" in refusal(tmp_path / "run", f"{ALL},max_episode_length=0")


def test_rsl_rl_iterations_of_two_gpus_are_told_by_their_rate(tmp_path, read, write_events):
    write_events(tmp_path / "run", rsl_session(0, 9, 2 * 384))
    (tmp_path / "run" / "params").mkdir()
    (tmp_path / "run" / "params" / "agent.yaml").write_text(
        "{seed: 1, num_steps_per_env: 24, experiment_name: ant, algorithm: "
        "{num_learning_epochs: 5, num_mini_batches: 4, learning_rate: 0.001}}"
    )
    (tmp_path / "run" / "params" / "env.yaml").write_text(
        "{scene: {num_envs: 16}, decimation: 2, sim: {dt: 0.01}, episode_length_s: 0.2, x: !!python/name:os.getcwd ''}"
    )
    table = read(tmp_path / "run")
    # ten steps an episode, 10 x (16 + 100) env steps of each GPU: 2320, so from the fourth iteration of 768 on
    assert table["env_steps"].tolist() == [768 * k for k in range(4, 11)]
    row = table.iloc[0]
    assert (row["batch_size"], row["utd"]) == pytest.approx((2 * 384 / 4, 20 / 768), rel=1e-12)


def test_rl_games_discrete_agent_that_stamps_after_counting_is_not_moved(tmp_path, read, write_events):
    stamps = [(100 * epoch, float(epoch)) for epoch in range(1, 6)]
    write_events(tmp_path / "summaries", {"rewards/step": stamps, "info/epochs": stamps, "shaped_rewards/step": stamps})
    assert read(tmp_path, ALL)["env_steps"].tolist() == [100, 200, 300, 400, 500]


# --- W&B -------------------------------------------------------------------------------------------------------------
def chart(axis: str) -> str:
    names = [f"{run} - eval/return{bound}" for run in ("fast-1", "slow-2") for bound in ("", "__MIN", "__MAX")]
    head = ",".join(f'"{name}"' for name in [axis, *names])
    return f'{head}\n"100","1","1","1","","",""\n"200","2","2","2","5","5","5"\n'


def test_wandb_chart_has_a_run_per_column_and_its_bounds_are_no_runs(tmp_path, read):
    (tmp_path / "chart.csv").write_text(chart("global_step"))
    (tmp_path / "meta.csv").write_text("run,utd,seed\nfast-1,1,1\nslow-2,1/4,2\n")
    table = read(tmp_path / "chart.csv", f"task=P,batch_size=64,learning_rate=1e-3,{tmp_path / 'meta.csv'}")
    assert sorted(table[["seed", "utd", "env_steps", "episode_return"]].to_numpy().tolist()) == [
        [1, 1, 100, 1],
        [1, 1, 200, 2],
        [2, 0.25, 200, 5],
    ]


def test_wandb_step_is_no_count_of_env_steps_unless_the_user_says_so(tmp_path, read, refusal):
    (tmp_path / "chart.csv").write_text(chart("Step"))
    meta = "{task}-{seed},utd=1,batch_size=64,learning_rate=1e-3"
    assert "env_steps_per_step" in refusal(tmp_path / "chart.csv", meta)
    table = read(tmp_path / "chart.csv", f"{meta},env_steps_per_step=500")
    assert sorted(set(table["env_steps"])) == [50_000, 100_000]


# --- meta ------------------------------------------------------------------------------------------------------------
def test_pattern_table_and_values_together_name_every_run(tmp_path, read, write_events):
    for task in ("Ant", "Hop"):
        for seed in (0, 1):
            write_events(tmp_path / "runs" / f"{task}__x__{seed}" / "tb", {"return": ramp(1, 2)})
    (tmp_path / "meta.csv").write_text("run,utd,weight_decay\nAnt__x__0,1/4,0.1\nAnt__x__1,1/4,0.1\nHop__x__0,2,0\n")
    meta = f"utd=2,weight_decay=0,{{task}}__{{}}__{{seed}},batch_size=8,learning_rate=none,{tmp_path / 'meta.csv'}"
    table = read(tmp_path / "runs", f"{meta},return_tag=return,env_steps_per_step=10")
    found = table.groupby(["task", "seed"])[["utd", "weight_decay"]].first()
    assert found["utd"].to_dict() == {("Ant", 0): 0.25, ("Ant", 1): 0.25, ("Hop", 0): 2, ("Hop", 1): 2}
    assert found["weight_decay"].to_dict() == {("Ant", 0): 0.1, ("Ant", 1): 0.1, ("Hop", 0): 0, ("Hop", 1): 0}
    assert "learning_rate" not in table
    assert sorted(set(table["env_steps"])) == [10, 20]


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ("batchsize=3", "did you mean 'batch_size'"),
        ("env_steps=3", "'env_steps' is no name of a setting"),
        ("utd=many", "utd='many' is not a number"),
        ("utd=none", "only batch_size and learning_rate may be left unknown"),
        ("absent.csv", "no file absent.csv"),
        ("{task", "cannot be read"),
        ("{seed}_{seed}", "names 'seed' twice"),
        ("{task}@{seed},utd=1,batch_size=2,learning_rate=1", "fits no run's folder"),
    ],
)
def test_bad_meta_costs_one_line(tmp_path, refusal, write_events, meta, says):
    write_events(tmp_path / "run", {"return": ramp(1, 2)})
    assert says in refusal(tmp_path / "run", f"return_tag=return,env_steps_per_step=1,{meta}")


@pytest.mark.parametrize(
    ("text", "says"), [("utd,seed\n1,2\n", "no column run"), ("run,seed\na,1\na,2\n", "names run 'a' twice")]
)
def test_bad_table_of_settings_costs_one_line(tmp_path, refusal, write_events, text, says):
    write_events(tmp_path / "run", {"return": ramp(1, 2)})
    (tmp_path / "meta.csv").write_text(text)
    assert says in refusal(tmp_path / "run", f"{GENERIC},{tmp_path / 'meta.csv'}")


def test_what_the_user_tells_counts_before_the_files_and_is_said(logs, read):
    table = read(logs / "cleanrl" / "Pendulum-v1__sac_continuous_action__1__1795780000", "seed=9")
    assert set(table["seed"]) == {9}
    assert "its files say seed 1, meta 9" in read.notes


def test_meta_for_a_table_is_refused(tmp_path, refusal):
    (tmp_path / "t.csv").write_text("task,utd,seed,env_steps,episode_return\nA,1,0,1,1\n")
    assert "tells its settings itself" in refusal(tmp_path / "t.csv", "utd=1")


# --- plugins, tables -------------------------------------------------------------------------------------------------
PLUGIN = """
import numpy as np
from scaling.curves.readers.base import Log, Reader, Source
from scaling.curves.readers.registry import register

class Mine(Reader):
    library = "mine"

    def find(self, files):
        return [Source(path) for path in files.named("*.mine")]

    def read(self, files, source, given):
        steps, returns = np.loadtxt(source.path).T
        return Log(steps * given.number("num_envs", "its steps are vector steps"), returns, {"task": "Mine"})

register(Mine())
"""


def test_plugin_brings_a_reader(tmp_path, read, refusal, monkeypatch):
    from scaling.curves.readers import registry

    monkeypatch.setattr(registry, "READERS", list(registry.READERS))
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.mine").write_text("10 1\n20 2\n")
    meta = "seed=0,utd=1,batch_size=2,learning_rate=1"
    plugin = f"plugins=[{tmp_path / 'plugin.py'}]"
    assert "num_envs" in refusal(tmp_path / "logs", meta, plugin)
    table = read(tmp_path / "logs", f"{meta},num_envs=4", plugin)
    assert table["env_steps"].tolist() == [40, 80]
    assert set(table["task"]) == {"Mine"}
    assert "no Python file" in refusal(tmp_path / "logs", meta, f"plugins=[{tmp_path / 'absent.py'}]")


def test_written_table_fits_as_the_logs_do(tmp_path, read, write_events):
    for utd in (1, 2):
        for seed in (0, 1):
            points = {"return": [(step, float(utd * step + seed)) for step in range(0, 100, 10)]}
            write_events(tmp_path / "runs" / f"utd{utd}_seed{seed}", points)
    meta = "utd{utd}_seed{seed},task=P,batch_size=64,learning_rate=1e-3,return_tag=return,env_steps_per_step=1"
    first = read(tmp_path / "runs", meta)
    assert list(first)[:7] == ["task", "utd", "batch_size", "learning_rate", "seed", "env_steps", "episode_return"]
    first.to_csv(tmp_path / "again.csv", index=False)
    assert read(tmp_path / "again.csv").equals(first)


def test_table_of_unknown_kind_or_in_no_folder_is_refused(tmp_path, capsys, fit):
    (tmp_path / "t.csv").write_text("task,utd,seed,env_steps,episode_return\nA,1,0,1,1\n")
    for name, says in (("x.xlsx", "unknown kind of file"), ("absent/x.csv", "cannot be written")):
        assert fit(f"curves={tmp_path / 't.csv'}", f"table={tmp_path / name}") == 2
        assert says in capsys.readouterr().err
