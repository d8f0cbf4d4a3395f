"""The peers benchmark: its clock, its sums, its table; and a short real cell per learner that is installed."""

import importlib.util
import json

import pytest
import torch

import tasks
from pql.bench import peer_learners, peer_report, peers
from pql.errors import UserError

MUJOCO = importlib.util.find_spec("mujoco") is not None


def cell(learner, seed, *points):
    """(seconds, env steps, return) ... -> a cell."""
    names = ("wall_time_s", "env_steps", "eval_return")
    return {"learner": learner, "seed": seed, "points": [dict(zip(names, point)) for point in points]}


CELLS = [
    cell("pql", 1, (0, 0, -50), (10, 50_000, 1200), (20, 100_000, 3100), (30, 150_000, 5500)),
    cell("pql", 2, (0, 0, -40), (12, 60_000, 999), (22, 110_000, 3000), (32, 160_000, 4900)),
    cell("ppo", 1, (0, 0, 10), (10, 200_000, 900), (20, 400_000, 1100)),
    cell("ppo", 2, (0, 0, 20), (10, 200_000, 950), (20, 400_000, 990)),
    cell("ppo", 3, (0, 0, 20), (10, 200_000, 1000), (20, 400_000, 800)),
]


def test_copies_are_kept_at_the_start_every_interval_and_once_at_the_end():
    recorder = peer_learners.Recorder(seconds=10.0, every=3.0)
    for tenth in range(120):
        recorder.visit(tenth / 10, tenth, lambda tenth=tenth: f"policy {tenth}")
    assert [entry[1] for entry in recorder.copies] == [0, 30, 60, 90, 100]
    assert recorder.copies[1] == (3.0, 30, "policy 30")


def test_after_a_pause_the_next_copy_waits_for_the_next_multiple():
    recorder = peer_learners.Recorder(seconds=100.0, every=10.0)
    for now in (0.0, 9.0, 34.0, 35.0, 39.0, 41.0, 100.5, 101.0):
        recorder.visit(now, int(now), lambda: None)
    assert [entry[0] for entry in recorder.copies] == [0.0, 34.0, 41.0, 100.5]


def test_first_evaluation_at_or_above_a_threshold_counts_and_the_median_is_over_all_seeds():
    rows = {(row.learner, row.threshold): row for row in peer_report.summary(CELLS)}
    pql = rows["pql", 1000.0]
    assert (pql.seeds, pql.reached, pql.seconds, pql.env_steps) == (2, 2, (10 + 22) / 2, (50_000 + 110_000) / 2)
    assert rows["pql", 3000.0].seconds == (20 + 22) / 2  # 3000 itself is enough
    # one seed of two got there: the median of 30 and never is never
    assert (rows["pql", 5000.0].reached, rows["pql", 5000.0].seconds) == (1, None)
    # a later fall below does not take back what was reached; two of three: the slower of the two is the median
    assert (rows["ppo", 1000.0].reached, rows["ppo", 1000.0].seconds) == (2, 20)
    assert rows["ppo", 5000.0].reached == 0


def test_table_fits_80_columns_and_shows_who_did_not_arrive():
    text = peer_report.table(CELLS)
    assert max(len(line) for line in text.splitlines()) <= 80
    pql = next(line for line in text.splitlines() if line.startswith("PQL"))
    assert pql.split() == ["PQL", "5200", "16", "0.08M", "2/2", "21", "0.10M", "2/2", "-", "-", "1/2"]


def test_plot_is_a_picture_of_both_axes(tmp_path):
    peer_report.plot(CELLS, tmp_path / "peers.png", "Ant")
    assert (tmp_path / "peers.png").read_bytes()[:4] == b"\x89PNG"
    assert [path.name for path in tmp_path.iterdir()] == ["peers.png"]


@pytest.mark.skipif(not MUJOCO, reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")
def test_watched_environment_counts_scales_and_ends(monkeypatch):
    env, twin = tasks.make("Cartpole", 4, seed=1), tasks.make("Cartpole", 4, seed=1)
    recorder = peer_learners.Recorder(seconds=10.0, every=5.0)
    now = [100.0]
    monkeypatch.setattr(peer_learners.time, "monotonic", lambda: now[0])
    watched = peer_learners.Watched(env, recorder, reward_scale=0.5)
    action = torch.zeros(4, 1)
    step, plain = watched.step(action), twin.step(action)
    assert torch.equal(step.reward, plain.reward * 0.5) and torch.equal(step.obs, plain.obs)
    now[0] += 6.0
    watched.step(action)
    assert watched.env_steps == 8
    now[0] += 5.0
    with pytest.raises(peer_learners.TimeIsUp):
        watched.step(action)
    assert [entry[:2] for entry in recorder.copies] == [(0.0, 0), (6.0, 4), (11.0, 8)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["learners=pql,poo"], "did you mean ppo?"),
        (["learners="], "one or more of"),
        (["learners=pql", "seconds=0"], "greater than 0"),
        (["learners=pql", "seeds=0"], "at least 1"),
        (["learners=pql", "task=Antt"], "Ant"),
        (["learners=pql", "pql=num_evns=3"], "num_envs"),
        (["secnods=3"], "did you mean seconds?"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(words, said, tmp_path):
    with pytest.raises((UserError, tasks.TaskError), match=said.replace("?", r"\?")):
        peers.main([f"out={tmp_path}/peers", *words])
    assert list(tmp_path.iterdir()) == []


def test_missing_extra_is_named_with_its_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None if name == "rsl_rl" else object())
    with pytest.raises(UserError, match=r"'ppo' needs rsl-rl-lib.*\[peers\]"):
        peers.main([f"out={tmp_path}/peers", "learners=ppo"])


@pytest.mark.skipif(not MUJOCO, reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")
@pytest.mark.parametrize("learner", ["pql", "ppo", "sac"])
def test_a_cell_trains_for_its_budget_and_evaluates_its_copies(learner, tmp_path, capsys):
    module, package = peers.NEEDS.get(learner, ("pql", ""))
    pytest.importorskip(module, reason=f"{package} is in the extra [peers]")
    words = ["task=Cartpole", "seconds=4", "seeds=1", "eval_every=2", "episodes=4", f"out={tmp_path}/peers"]
    assert peers.main([*words, f"learners={learner}", "pql=num_envs=16 algo.batch_size=32"]) == 0
    found = json.loads((tmp_path / "peers.json").read_text())
    points = found["cells"][0]["points"]
    times, steps = [p["wall_time_s"] for p in points], [p["env_steps"] for p in points]
    assert times == sorted(times) and steps == sorted(steps)
    assert times[0] < 1 and steps[0] <= 4096 and 4 <= times[-1] < 60 and steps[-1] > 0
    assert all(1 <= p["eval_length"] <= 500 for p in points)
    assert (tmp_path / "peers.png").exists()
    assert peer_report.NAMES[learner] in capsys.readouterr().out


def test_failing_cell_prints_its_end_and_fails_the_benchmark(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(peers.sys, "executable", "/bin/false")
    words = ["task=Cartpole", "learners=pql", "seeds=1", "seconds=1", f"out={tmp_path}/peers"]
    assert peers.main(words) == 1
    assert "pql seed 1 failed (1)" in capsys.readouterr().out
