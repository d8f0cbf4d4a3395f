"""The loop on a trainer whose law is known: what it decides, predicts, spends, and how it goes on after a kill."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scaling.autopilot import loop
from scaling.autopilot.options import claim, split
from scaling.errors import InputError
from scaling.sweep.plan_file import load_plan

LEARNER = f"trainer={sys.executable} {Path(__file__).with_name('learner.py')}"
COMMON = ["target=80", "utd=0.25,0.5,1,2", LEARNER, "launcher.workers=2", "launcher.pin=false", "launcher.gpus=0"]


@pytest.fixture
def fly(tmp_path):
    """`fly(*words)`: the exit code of an autopilot in `tmp_path/pilot1`."""
    return lambda *words: loop.main([*COMMON, f"out={tmp_path / 'loop'}", *words])


def started(tmp_path):
    return (tmp_path / "loop" / "started").read_text().splitlines()


def truth(utd):
    return 20000 * (1 + utd**-0.8)


def test_it_reaches_the_target_as_predicted_within_budget_at_the_cheapest_ratio_and_once(fly, tmp_path, capsys):
    assert fly("budget=6e6steps", "defaults=true") == 0
    report = json.loads((tmp_path / "loop/report.json").read_text())
    steps, run = report["predicted"]["env_steps"], report["runs"]["the run"]
    assert steps["value"] == pytest.approx(truth(report["utd"]), rel=0.1)
    low, high = steps["interval"]
    assert low < run["env_steps"] < high and high < 1.6 * low
    assert run["updates"] == pytest.approx(report["utd"] * run["env_steps"], rel=0.01)
    assert run["seconds"] == pytest.approx(run["env_steps"] * (1e-3 + report["utd"] * 5e-4), rel=0.01)
    assert report["predicted"]["seconds"]["value"] == pytest.approx(run["seconds"], rel=0.25)
    grid = np.geomspace(0.25, 2, 100)
    cost = truth(grid) * (1e-3 + grid * 5e-4)
    at = np.interp(report["utd"], grid, cost)
    assert at < 1.05 * cost.min()
    assert report["spent"]["pilots"] <= 3e6 and report["spent"]["pilots"] + report["spent"]["run"] <= 6e6
    assert report["runs"]["defaults"]["env_steps"] == pytest.approx(truth(1.0), rel=0.2)
    shown = capsys.readouterr().out
    rows = shown[shown.rindex("  to the target") :].splitlines()[:7]
    assert max(map(len, rows)) <= 80 and "not reached" not in " ".join(rows), rows
    # started again it runs nothing twice and says nothing twice
    files = [tmp_path / "loop" / name for name in ("report.json", "log.txt", "started")]
    before = [path.read_text() for path in files]
    assert fly("budget=6e6steps", "defaults=true") == 0
    assert [path.read_text() for path in files] == before


def test_runs_that_do_not_get_there_are_followed_by_longer_ones(fly, tmp_path):
    # 81200, 57400, 28700, 20300 steps by ratio, which need 80600, 54800, 31500, 26600
    assert fly("budget=1.5e6steps", "seed=5", "utd=0.25,0.5,2,4") == 0
    log = (tmp_path / "loop/log.txt").read_text()
    assert "round 2: 2 ratios have not reached the target: longer runs: 4 runs" in log  # and these got there:
    assert "round 2: the law asks for" in log and "round 3: 2 ratios have not" not in log
    assert json.loads((tmp_path / "loop/report.json").read_text())["runs"]["the run"]["env_steps"]
    seeds = {cell.overrides["seed"] for cell in load_plan(tmp_path / "loop/pilot").cells}
    assert seeds >= {5, 6, 7, 8} and min(seeds) == 5


def test_a_budget_in_seconds_ends_runs_by_their_clocks(tmp_path):
    words = ["target=80", "budget=5000s", LEARNER, *COMMON[3:], f"out={tmp_path / 'loop'}"]
    options, training, sweep = split(words)
    (tmp_path / "loop" / "pilot").mkdir(parents=True)
    flight = loop.Autopilot(options, training, sweep, lambda words: {"algo.utd": 0.5, "max_env_steps": 400_000})
    assert flight.fly(flight.first()) == 0
    report = json.loads((tmp_path / "loop/report.json").read_text())
    assert report["unit"] == "seconds" and report["spent"]["pilots"] <= 2500 * 1.02
    assert 0 < report["spent"]["run"] <= 5000 - report["spent"]["pilots"]
    ratios = {cell.overrides["algo.utd"] for cell in load_plan(tmp_path / "loop/pilot").cells}
    assert {0.25, 0.5, 1.0, 2.0} <= ratios  # around the settings' own
    own = report["predicted_defaults"]["env_steps"]
    assert own["value"] == pytest.approx(truth(0.5), rel=0.15) and own["interval"][0] < truth(0.5) < own["interval"][1]
    assert "by the same law the settings as they are, ratio 0.5, ask for" in (tmp_path / "loop/log.txt").read_text()
    (run,) = (tmp_path / "loop/run/runs").iterdir()
    assert flight.how_to_go_on(500) == f"; to go on: scripts/train.py run_dir={run} resume=true max_env_steps=1000"
    flight.out = tmp_path / "my loop"
    flight.out.symlink_to(tmp_path / "loop")
    assert f"train.py 'run_dir={flight.out}/run/runs/{run.name}' resume" in flight.how_to_go_on(500)


def test_pilots_of_a_sweep_file_vary_what_it_varies_and_keep_what_it_fixes(fly, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "axes: {algo.utd: [0.5, 1, 2], algo.batch_size: [64, 128, 256], seed: [0, 1]}\n"
        "fixed: {max_env_steps: 100000, eval_interval: 4000, num_envs: 7}\n"
    )
    words = [word for word in COMMON if not word.startswith("utd=")] + [f"out={tmp_path / 'loop'}", f"sweep={file}"]
    code = loop.main([*words, "budget=6e6steps", "precision=1.05", "rounds=2"])
    cells = load_plan(tmp_path / "loop/pilot").cells
    assert code == 0 and len(cells) > 18 and all(cell.overrides["num_envs"] == 7 for cell in cells)
    assert all("algo.batch_size" in cell.overrides for cell in cells)
    run = load_plan(tmp_path / "loop/run").cells[0].overrides
    assert run["num_envs"] == 7 and 90 < run["algo.batch_size"] < 180


def test_what_cannot_be_reached_is_said_and_other_folders_are_left_alone(fly, tmp_path, capsys):
    assert fly("budget=3e5steps") == 1  # 9375 steps each
    shown = capsys.readouterr().out
    assert "stopped: " in shown and "raise budget=" in shown
    assert not (tmp_path / "loop/run").exists()
    # a folder of another loop, or of something else, is left alone
    assert fly("budget=3e5steps", "seeds=3") == 2
    assert "was begun with seeds=2" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    assert fly("budget=3e5steps", f"out={tmp_path / 'other'}") == 2


def test_a_target_that_runs_begin_with_is_said_to_be_one_and_its_pilots_serve_a_higher(fly, tmp_path):
    assert fly("budget=4e5steps", "target=2", "eval_interval=500") == 1
    log = (tmp_path / "loop/log.txt").read_text()
    assert "stopped: target=2: runs return" in log and "at their start already; give a higher target=" in log
    before = started(tmp_path)
    assert fly("budget=8e5steps", "target=20", "eval_interval=500", "share=.25", "defaults=false") == 0
    assert started(tmp_path)[: len(before)] == before and len(load_plan(tmp_path / "loop/pilot").cells) == len(before)


def test_killed_anywhere_it_ends_as_if_it_had_not_been(fly, tmp_path):
    script = Path(__file__).parents[3] / "scripts" / "autopilot.py"
    words = [sys.executable, str(script), *COMMON, f"out={tmp_path / 'loop'}", "budget=6e6steps"]
    killed = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    for line in killed.stdout:
        if line.startswith("round 1: pilots have taken"):
            break
    killed.kill()
    killed.communicate()
    assert fly("budget=6e6steps") == 0
    again = json.loads((tmp_path / "loop/report.json").read_text())
    assert len(started(tmp_path)) == len(set(started(tmp_path)))
    log = [line.partition("  ")[2] for line in (tmp_path / "loop/log.txt").read_text().splitlines()]
    told = [line for line in log if line.startswith("round")]
    assert len({line[: line.index(":") + 20] for line in told}) == len(told), told  # each once, with one set of numbers
    assert again["runs"]["the run"]["env_steps"]


@pytest.mark.parametrize(
    "words, said",
    [
        (["budget=1e6steps", "share=1"], "give a part of 1"),
        (["budget=1e15flops"], "give seconds of training"),
        (["budget=1e6steps", "run_dir=x"], "the autopilot chooses that"),
        (["budget=1e6steps", "seed=-1"], "seed=-1: give 0 or more"),
        (["budget=1e6steps", "algo.batch_size=1,2"], "give algo.batch_size one value"),
        (["budget=1e6steps", "utd=1,2"], "three positive ratios"),
        (["budget=1e6steps", "seeds=1"], "two or more"),
        (["budget=1e6steps", "rounnds=2"], "did you mean 'rounds'"),
        (["budget=20m"], "give utd=<ratios> and a budget in steps"),
    ],
)
def test_bad_words_are_one_line(fly, tmp_path, capsys, words, said):
    assert fly(*words) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert not (tmp_path / "loop").exists()


def test_dry_run_writes_nothing(fly, tmp_path, capsys):
    assert fly("budget=6e6steps", "dry_run=true") == 0
    assert "8 runs" in capsys.readouterr().out and not (tmp_path / "loop").exists()


def test_what_a_stopped_loop_says_can_be_done_its_pilots_serve_another_budget(tmp_path):
    def begin(*words):
        options, training, sweep = split([*COMMON, f"out={tmp_path / 'loop'}", *words])
        claim(options, [*training, *sweep])

    begin("budget=3e5steps")
    begin("budget=4e5steps", "target=70")  # "raise budget= or share=, or lower target="
    with pytest.raises(InputError, match="was begun with seeds=2"):
        begin("budget=5e5steps", "target=70", "seeds=3")
    (tmp_path / "loop" / "run.yaml").touch()  # what was predicted of this run was so for its own target
    with pytest.raises(InputError, match="was begun with budget=4e5steps"):
        begin("budget=5e5steps", "target=70")
    begin("budget=4e5steps", "target=70")


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["target=inf"], "target=inf: give a finite number"),
        (["budget=1e999steps"], "budget='1e999steps': must be positive and finite"),
        (["utd=0.5,1,inf"], "a law needs three positive ratios"),
        (["budget=10steps"], "budget=10steps: too small for pilots"),
        (["out={tmp}/file"], "/file is a file: name a folder"),
        (["sweep={tmp}/mine.yaml"], "its 18 runs may take 1.8e+06 steps, more than the pilots' 1.5e+05: raise budget="),
    ],
)
def test_what_would_fly_too_far_or_not_at_all_is_refused_before_anything_is_written(words, rule, tmp_path, capsys):
    (tmp_path / "file").touch()
    axes = "{algo.utd: [0.5, 1, 2], algo.batch_size: [64, 128, 256], seed: [0, 1]}"
    (tmp_path / "mine.yaml").write_text(f"axes: {axes}\nfixed: {{max_env_steps: 100000}}\n")
    words = [word.format(tmp=tmp_path) for word in words]
    common = [word for word in COMMON if not ("sweep=" in words[0] and word.startswith("utd="))]
    assert loop.main([*common, "budget=3e5steps", f"out={tmp_path / 'loop'}", *words]) == 2
    error = capsys.readouterr().err
    assert rule in error and len(error.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "mine.yaml"]


def test_a_sweep_file_keeps_to_a_budget_in_seconds(tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text('axes: {algo.utd: [0.5, 1, 2], seed: [0, 1], "max_env_steps,eval_interval": [100000]}\n')
    words = ["target=80", LEARNER, f"sweep={file}", "budget=600s", f"out={tmp_path / 'loop'}", "dry_run=true"]
    assert loop.main(words) == 0
    assert "300 seconds at most, of 600" in capsys.readouterr().out


def test_pilots_that_all_fail_are_said_to_have_and_where_it_is_told_why(tmp_path, capsys):
    words = ["target=80", "utd=0.5,1,2", "trainer=false", "launcher.pin=false", "launcher.workers=1", "launcher.gpus=0"]
    assert loop.main([*words, "budget=3e5steps", f"out={tmp_path / 'loop'}"]) == 1
    assert "stopped: no pilot has taken a step: scripts/sweep.py status out=" in capsys.readouterr().out
