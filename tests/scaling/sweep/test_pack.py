"""Cells side by side in one trainer: each keeps its lock, its record and its run directory."""

from __future__ import annotations

import json
import pickle
import signal
import sys

import pytest

from scaling.errors import InputError
from scaling.sweep import cli, pack
from scaling.sweep.cell import is_done, lock_path, read_record
from scaling.sweep.cost import estimate
from scaling.sweep.launch import _choose
from scaling.sweep.locks import CellLock
from scaling.sweep.packing import SHAPES, Fit, Packing, packing_of
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
    # the first is busy: three and four are left of the two batch sizes; full packs come first, and about equal ones
    assert packs == [cells[1:4], cells[4:6], cells[6:]]
    assert _choose(tmp_path, cells, set(), 1, Packing(8, packing.keys), 0.0)[1] == [cells[:4]]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["pack=0"], "pack=0: must be how many cells"),
        (["pack=some"], "pack=some: must be how many cells"),
        (["pack=9", "launcher.workers=1"], "have no room in the free memory: pack=8 fits, or lower algo.replay_size"),
        (["pack=4", "trainer='python x.py'"], "pack=4: only scripts/train.py trains cells side by side"),
    ],
)
def test_bad_packs_are_refused_in_one_line(tmp_path, words, why):
    with pytest.raises(InputError, match=why):
        cli.run([f"out={tmp_path / 'sweep'}", "max_env_steps=10", "seed=0,1", *words], packs=trainer(fits=8))


def trainer(best=16, fits=1000, asked=None):
    """A trainer that says so of any cell; `asked` collects the cells' words."""

    def packs(words, at_a_time):
        (asked if asked is not None else []).append((words, at_a_time))
        return Fit(frozenset({"seed", "algo.critic_lr"}), best, fits)

    return packs


def refuses(words, at_a_time):
    raise InputError("runtime=parallel trains one run at a time")


def laid_out(*words):
    return Plan(lay_out(make_request({}, ["max_env_steps=100", *words])))


LOCAL = {"kind": "local"}


def packed(text, plan, packs, parallel=1, options=LOCAL, say=None):
    packing = packing_of(text, plan, options, packs, parallel, len(plan.cells), say or (lambda _: None))
    return [len(group) for group in packing.groups(plan.cells)]


def test_auto_packs_as_many_as_pay_fit_and_leave_no_process_idle():
    plan = laid_out("seed=" + ",".join(map(str, range(40))))
    assert packed("auto", plan, trainer()) == [14, 14, 12]
    assert packed("auto", plan, trainer(fits=10)) == [10] * 4
    assert packed("auto", plan, trainer(best=1)) == [1] * 40
    assert packed("auto", plan, trainer(), parallel=8) == [5] * 8
    assert packed("20", plan, trainer(), parallel=8) == [20, 20]


def test_auto_asks_of_each_shape_of_cells_and_of_many_shapes_no_more():
    asked = []
    plan = laid_out("algo.batch_size=1,2,3", "seed=0,1")
    assert packed("auto", plan, trainer(asked=asked)) == [2] * 3
    words = {word for words, _ in asked for word in words if "batch" in word}
    assert words == {f"algo.batch_size={i}" for i in (1, 2, 3)}
    asked.clear()
    packed("auto", laid_out("algo.batch_size=" + ",".join(map(str, range(1, 50)))), trainer(asked=asked))
    assert len(asked) == 1 + SHAPES


def test_what_cannot_be_packed_runs_alone_silently_under_auto_and_with_a_line_else():
    plan, said = laid_out("seed=0,1"), []
    assert packed("auto", plan, refuses, say=said.append) == [1, 1] and said == []
    assert packed("4", plan, refuses, say=said.append) == [1, 1]
    assert said == ["note: pack=4: runtime=parallel trains one run at a time: cells are trained one by one"]


@pytest.mark.parametrize(
    ("words", "gpus", "sizes"),
    [(["device=cpu"], 0, [2]), ([], 0, [1, 1]), (["device=cpu"], 1, [1, 1])],
)
def test_auto_packs_in_a_batch_system_what_is_sure_to_train_on_cpus(words, gpus, sizes):
    plan = laid_out("seed=0,1", *words)
    assert packed("auto", plan, trainer(), options={"kind": "slurm", "gpus": gpus}) == sizes
    assert packed("2", plan, trainer(), options={"kind": "slurm", "gpus": gpus}) == [2]


def test_a_pack_is_estimated_as_one_process(tmp_path):
    plan = laid_out("seed=0,1,2,3")
    plan.assume.update(env_steps_per_s=10.0, start_s=0.0)  # ten seconds a cell
    packs = {cell.hash: 4 for cell in plan.cells}
    assert estimate(plan, plan.cells, tmp_path, 2).seconds == pytest.approx(20)
    # a third of each and what they share, once, in one process
    assert estimate(plan, plan.cells, tmp_path, 2, packs=packs).seconds == pytest.approx(40 * 0.35 + 10 * 0.65)
    for cell in plan.cells[:2]:  # a pack of two took 12 s: 6 s each, and it is the sweep's time that counts
        run = tmp_path / cell.run_dir
        run.mkdir(parents=True)
        line = {"env_steps": 100, "wall_time_s": 12.0, "time_alone_s": 9.0, "runs_side_by_side": 2}
        (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
        (run / "summary.json").write_text('{"status": "completed"}')
    left = {cell.hash: 2 for cell in plan.cells[2:]}
    assert estimate(plan, plan.cells[2:], tmp_path, 2, packs=left).seconds == pytest.approx(12)


def test_a_batch_job_of_a_pack_is_requeued_with_what_is_left(run_pack, tmp_path):
    submitit = pytest.importorskip("submitit")
    job = pack.PackJob(str(tmp_path / "sweep"), ["a", "b"], batch=True, limit_s=5.0)
    again = pickle.loads(pickle.dumps(job))
    assert (again.cell_hashes, again.batch, again.limit_s) == (["a", "b"], True, 5.0)
    assert isinstance(job.checkpoint(), submitit.helpers.DelayedSubmission)


def test_a_sweep_in_packs_leaves_what_a_sweep_leaves(tmp_path):
    if sys.version_info < (3, 11):
        pytest.skip("the MuJoCo simulator needs Python 3.11")
    out = tmp_path / "sweep"
    words = ["task=Cartpole", "device=cpu", "runtime=sync", "num_envs=8", "max_env_steps=160", "eval_interval=0",
             "eval_episodes=1", "log_interval=80", "checkpoint_interval=0", "video=false", "algo.hidden=[8]",
             "algo.batch_size=8", "algo.warmup_steps=10", "algo.critic_updates_per_step=0.5", "algo.replay_size=400",
             "algo.critic_lr=0.001,0.01"]  # fmt: skip
    assert cli.run([f"out={out}", *words, "launcher.workers=1"], packs=trainer()) == 0
    for cell in load_plan(out).cells:
        assert is_done(out / cell.run_dir) and outcomes(read_record(out, cell.hash)) == ["done"]
        summary = json.loads((out / cell.run_dir / "summary.json").read_text())
        assert summary["runs_side_by_side"] == 2
        assert f"critic_lr: {cell.overrides['algo.critic_lr']}" in (out / cell.run_dir / "config.yaml").read_text()
