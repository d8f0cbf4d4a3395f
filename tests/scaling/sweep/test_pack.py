"""Cells side by side in one trainer: each keeps its lock, its record and its run directory."""

from __future__ import annotations

import json
import signal
import sys

import pytest

from scaling.errors import InputError
from scaling.sweep import cli, pack
from scaling.sweep.cell import is_done, lock_path, read_record
from scaling.sweep.launch import Packing, _choose
from scaling.sweep.locks import CellLock
from scaling.sweep.plan_file import Plan, lay_out, load_plan, make_request, save_plan

# Completes each run it is told of; fake.mood of a run: once, it fails at first; bad, it is no configuration.
TRAINER = """
import json, sys
from pathlib import Path
word = sys.argv[1]
runs = json.loads(Path(word[5:]).read_text())["runs"] if word.startswith("pack=") else [sys.argv[1:]]
told = [dict(word.split("=", 1) for word in run) for run in runs]
moods = [run.get("fake.mood", "good") for run in told]
if "bad" in moods:
    print("error: fake.mood=bad: must be better", file=sys.stderr)
    sys.exit(2)
failed = False
for run, mood in zip(told, moods):
    folder = Path(run["run_dir"].strip("'"))
    first = not (folder / "summary.json").exists()
    folder.mkdir(parents=True, exist_ok=True)
    verdict = {"status": "failed", "reason": "it diverged"} if mood == "once" and first else {"status": "completed"}
    failed |= verdict["status"] == "failed"
    (folder / "summary.json").write_text(json.dumps({**verdict, "with": len(runs)}))
sys.exit(int(failed))
"""


@pytest.fixture
def run_pack(tmp_path, monkeypatch):
    """Plan cells of these moods and run them as one pack: what it came to, and each cell's record and summary."""
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    for module in (pack, sys.modules["scaling.sweep.cell"]):
        monkeypatch.setattr(module, "TRAINER", script)
    before = {number: signal.getsignal(number) for number in (*signal.valid_signals(),)}

    def call(*moods, held=()):
        axes = {"seed,fake.mood": [[k, mood] for k, mood in enumerate(moods)]}
        out = tmp_path / "sweep"
        plan = save_plan(out, Plan(lay_out(make_request({"axes": axes}, ["max_env_steps=100"]))))
        locks = [CellLock(lock_path(out, plan.cells[k].hash)) for k in held]
        assert all(lock.acquire() for lock in locks)
        outcome = pack.PackJob(str(out), [cell.hash for cell in plan.cells], retries=1)()
        for lock in locks:
            lock.release()
        records = [read_record(out, cell.hash) for cell in plan.cells]
        summaries = [pack.read_json(out / cell.run_dir / "summary.json") for cell in plan.cells]
        return outcome, records, summaries

    yield call
    for number, handler in before.items():
        if handler is not None and number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, handler)


def outcomes(record):
    return [attempt["outcome"] for attempt in record.get("attempts", [])]


def test_each_cell_of_a_pack_has_its_record_and_the_one_that_fails_is_tried_again_alone(run_pack):
    outcome, records, summaries = run_pack("good", "once", "good")
    assert outcome == "done"
    assert [outcomes(record) for record in records] == [["done"], ["failed", "done"], ["done"]]
    assert [summary["with"] for summary in summaries] == [3, 1, 3]


def test_a_pack_that_is_refused_is_run_cell_by_cell(run_pack):
    outcome, records, _ = run_pack("good", "bad")
    assert outcome == "failed"
    assert [outcomes(record) for record in records] == [["failed", "done"], ["failed", "failed"]]
    assert records[1]["final"] and "must be better" in records[1]["reason"] and "final" not in records[0]


def test_a_cell_that_another_runs_is_left_out_of_the_pack(run_pack):
    _, records, summaries = run_pack("good", "good", "good", held=[1])
    assert [summary.get("with") for summary in summaries] == [2, None, 2]
    assert records[1] == {}


def test_cells_that_differ_in_seeds_and_step_sizes_alone_are_packed(tmp_path):
    sweep = {"axes": {"algo.batch_size": [32, 64], "algo.critic_lr": [0.1, 0.2], "seed": [0, 1]}}
    cells = lay_out(make_request(sweep, ["max_env_steps=100"]))
    packing = Packing(3, frozenset({"seed", "algo.critic_lr"}))
    settled, packs = _choose(tmp_path, cells, {cells[0].hash}, 3, packing, 0.0)
    assert settled == set()
    # the first is busy: three and four are left of the two batch sizes; full packs come first
    assert packs == [cells[1:4], cells[4:7], cells[7:]]
    assert _choose(tmp_path, cells, set(), 1, Packing(8, packing.keys), 0.0)[1] == [cells[:4]]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["pack=0"], "pack=0: must be how many cells"),
        (["pack=some"], "pack=some: must be how many cells"),
        (["pack=4", "trainer='python x.py'"], "pack=4: only scripts/train.py trains cells side by side"),
    ],
)
def test_bad_packs_are_refused_in_one_line(tmp_path, words, why):
    with pytest.raises(InputError, match=why):
        cli.run([f"out={tmp_path / 'sweep'}", "max_env_steps=10", "seed=0,1", *words], numbers=lambda _: {"seed"})


def test_a_sweep_in_packs_leaves_what_a_sweep_leaves(tmp_path):
    if sys.version_info < (3, 11):
        pytest.skip("the MuJoCo simulator needs Python 3.11")
    out = tmp_path / "sweep"
    words = ["task=Cartpole", "device=cpu", "runtime=sync", "num_envs=8", "max_env_steps=160", "eval_interval=0",
             "eval_episodes=1", "log_interval=80", "checkpoint_interval=0", "video=false", "algo.hidden=[8]",
             "algo.batch_size=8", "algo.warmup_steps=10", "algo.critic_updates_per_step=0.5", "algo.replay_size=400",
             "algo.critic_lr=0.001,0.01"]  # fmt: skip
    assert cli.run([f"out={out}", *words, "pack=4", "launcher.workers=1"], numbers=lambda _: {"algo.critic_lr"}) == 0
    for cell in load_plan(out).cells:
        assert is_done(out / cell.run_dir) and outcomes(read_record(out, cell.hash)) == ["done"]
        summary = json.loads((out / cell.run_dir / "summary.json").read_text())
        assert summary["runs_side_by_side"] == 2
        assert f"critic_lr: {cell.overrides['algo.critic_lr']}" in (out / cell.run_dir / "config.yaml").read_text()
