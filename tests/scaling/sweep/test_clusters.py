"""What clusters do to a sweep: no flock, quotas, submit limits, thousands of cells, odd paths, plans from strangers."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import socket
import sys
import time
from pathlib import Path

import pytest

from scaling.errors import InputError
from scaling.sweep import cli as sweep_cli
from scaling.sweep import locks, slurm
from scaling.sweep.cores import quota, usable_cores
from scaling.sweep.cost import ASSUMED, estimate
from scaling.sweep.launch import load_launcher
from scaling.sweep.locks import CellLock, exclusive, holder
from scaling.sweep.packing import Packing
from scaling.sweep.plan_file import (
    Cell,
    Plan,
    lay_out,
    load_plan,
    make_request,
    resolve_request,
    save_plan,
    to_override,
)
from scaling.sweep.status import Progress, survey

FAKE = f"{sys.executable} {Path(__file__).resolve().parents[1] / 'fake_trainer.py'}"
STEPS = "max_env_steps=1000"


def plan_of(*overrides: str) -> Plan:
    return Plan(lay_out(make_request({}, [*overrides, STEPS])))


@pytest.fixture(params=[errno.ENOSYS, errno.ENOLCK])
def no_flock(monkeypatch, request):
    def flock(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_without_flock_a_lock_has_one_holder_and_is_free_after_it(no_flock, tmp_path):
    first, second = CellLock(tmp_path / "a.lock"), CellLock(tmp_path / "a.lock")
    assert first.acquire(0.3) and first.beat()
    assert not second.acquire(0.3)
    assert holder(first.path)["pid"] == os.getpid()
    first.release()
    assert holder(first.path) == {} and second.acquire(0.3)
    second.release()
    assert os.listdir(str(tmp_path)) == []  # no probe, no half of a lock


def test_without_flock_the_dead_hold_nothing_and_the_living_elsewhere_do(no_flock, tmp_path):
    path = tmp_path / "a.lock"
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1, "since": 1}))
    assert holder(path) == {} and CellLock(path).acquire(0.3)
    path.write_text(json.dumps({"host": "another", "pid": 1, "since": 1}))
    assert holder(path)["host"] == "another" and not CellLock(path).acquire(0.3)
    os.utime(str(path), (time.time() - 200,) * 2)
    assert holder(path) == {} and CellLock(path).acquire(0.3)


def test_without_flock_short_locks_exclude_and_nobody_waits_for_a_phantom(no_flock, tmp_path):
    began = time.monotonic()
    twice = pytest.raises(InputError, match="locked for 0 s by another")
    with exclusive(tmp_path / "b.lock", 5.0), twice, exclusive(tmp_path / "b.lock", 0.3):
        pass
    with exclusive(tmp_path / "b.lock", 5.0):
        pass
    assert time.monotonic() - began < 3


def test_a_sweep_without_flock_runs_with_one_note(tmp_path, capsys):
    """Its workers are processes of their own, so the call itself fails, by a library loaded before."""
    import shutil
    import subprocess

    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler for the stand-in")
    source, library = tmp_path / "f.c", tmp_path / "f.so"
    source.write_text("#include <errno.h>\nint flock(int f, int o) { (void)f; (void)o; errno = ENOSYS; return -1; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "scripts/sweep.py", f"out={tmp_path}/x", "seed=0,1", STEPS, f"trainer={FAKE}"], cwd=root,
        env={**os.environ, "LD_PRELOAD": str(library)}, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("has no flock") == 1 and "2 cells: 2 done" in done.stdout


@pytest.mark.parametrize(("files", "membership", "cores"), [
    ({"a/b/cpu.max": "150000 100000", "a/cpu.max": "max 100000"}, "0::/a/b", 1.5),
    ({"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, "0::/a/b", 0.5),  # a limit above binds as well
    ({"cpu,cpuacct/q/cpu.cfs_quota_us": "100000", "cpu,cpuacct/q/cpu.cfs_period_us": "100000"}, "4:cpu,cpuacct:/q", 1),
    ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/", float("inf")),
    ({}, "3:memory:/x", float("inf"))])
def test_a_quota_of_cpu_time_limits_the_cores(tmp_path, files, membership, cores):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    (tmp_path / "membership").write_text(membership + "\n")
    assert quota(tmp_path, tmp_path / "membership") == cores
    allowed = len(os.sched_getaffinity(0))
    assert len(usable_cores(tmp_path, tmp_path / "membership")) == max(1, min(allowed, int(min(cores, allowed))))


# ---- schedulers


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A scheduler that takes arrays below `limit` and keeps their throttles; `queue` is what squeue lists."""
    pytest.importorskip("submitit")
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "limit").write_text("100000")
    (folder / "queue").touch()
    (folder / "sbatch").write_text(f"""#!/bin/bash
n=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "${{@: -1}}"); n=${{n:-0}}
[ "$n" -ge "$(cat {folder}/limit)" ] && {{ echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1; }}
sed -n 's/^#SBATCH --array=0-\\([0-9]*\\)%\\([0-9]*\\)/\\1 \\2/p' "${{@: -1}}" >> {folder}/taken
i=$(wc -l < {folder}/taken); echo "Submitted batch job $((1000 + i))"
""")
    (folder / "squeue").write_text(f"#!/bin/sh\ncat {folder}/queue\n")
    (folder / "srun").write_text("#!/bin/sh\n")
    for name in ("sbatch", "squeue", "srun"):
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def cells_of(count: int) -> list[Cell]:
    return [Cell(f"{i:012x}", str(i), f"runs/{i}", {}) for i in range(count)]


def taken(site: Path) -> list[tuple[int, int]]:
    return [tuple(map(int, line.split())) for line in (site / "taken").read_text().splitlines()]


def test_an_array_that_the_site_refuses_is_sent_in_pieces_that_fit(site, tmp_path):
    (site / "limit").write_text("100")
    jobs, waiting = slurm.submit(tmp_path / "s", cells_of(120), load_launcher("slurm", {"parallel": 2}))
    assert (len(jobs), waiting) == (120, 0)
    assert [last + 1 for last, _ in taken(site)] == [60, 60] and sum(share for _, share in taken(site)) <= 2


def test_the_parallel_cap_holds_over_all_pieces_and_later_submissions(site, tmp_path):
    options, cells = load_launcher("slurm", {"parallel": 2}), cells_of(2600)
    jobs, waiting = slurm.submit(tmp_path / "s", cells, options)
    assert (len(jobs), waiting) == (2000, 600) and sum(share for _, share in taken(site)) == 2
    (site / "queue").write_text(f"{jobs[0]} RUNNING\n{jobs[-1]} PENDING\n")
    jobs, waiting = slurm.submit(tmp_path / "s", cells[2000:], options)
    assert (jobs, waiting) == ([], 600)  # both shares are taken
    (site / "queue").write_text("1001_0 RUNNING\n")
    jobs, waiting = slurm.submit(tmp_path / "s", cells[2000:], options)
    assert (len(jobs), waiting) == (600, 0) and taken(site)[-1] == (599, 1)


def test_a_job_takes_a_pack_whose_cells_are_queued_together(site, tmp_path):
    sizes = Packing(2)
    jobs, waiting = slurm.submit(tmp_path / "s", cells_of(5), load_launcher("slurm", {"parallel": 2}), sizes)
    assert (len(jobs), waiting) == (3, 0) and taken(site) == [(2, 2)]
    (site / "queue").write_text(f"{jobs[0]} RUNNING\n")
    states = slurm.queue(tmp_path / "s")
    assert len(states) == 2 and set(states.values()) == {"RUNNING"}
    assert slurm.job_ids(tmp_path / "s") == ["1001"]


def test_what_the_site_refuses_for_another_reason_is_one_line(site, tmp_path):
    (site / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: x' >&2; exit 1\n")
    with pytest.raises(InputError, match="invalid partition specified"):
        slurm.submit(tmp_path / "s", cells_of(50), load_launcher("slurm", {}))


def test_cells_that_wait_are_said(site, tmp_path, capsys):
    (site / "limit").write_text("2")
    words = [f"out={tmp_path}/x", "seed=0,1,2,3,4", STEPS, f"trainer={FAKE}", "launcher=slurm", "launcher.wait=false",
             "launcher.parallel=2"]  # fmt: skip
    sweep_cli.main(words)
    shown = " ".join(capsys.readouterr().out.split())
    assert "slurm: 1 cells wait for room" in shown or "slurm: 2 cells wait for room" in shown


# ---- thousands of cells


def test_a_long_axis_costs_a_few_compositions_and_a_status_of_4000_cells_little(tmp_path):
    seen = []
    request = make_request({}, ["algo.utd=1,2,3,4", "seed=" + ",".join(map(str, range(1000))), STEPS])
    resolve_request(request, lambda overrides: seen.append(overrides) or {})
    assert len(seen) <= 4 and {"seed=0", "seed=999"} <= {word for words in seen for word in words}
    plan = save_plan(tmp_path, Plan(lay_out(request)))
    for cell in plan.cells[:500]:
        run = tmp_path / cell.run_dir
        run.mkdir(parents=True)
        (run / "metrics.jsonl").write_text('{"env_steps": 10, "eval_return": 1.0, "loss": 2}\n' * 200)
    began = time.process_time()
    statuses = survey(tmp_path, load_plan(tmp_path))
    assert time.process_time() - began < 2  # .4 s here
    assert len(statuses) == 4000 and sum(s.env_steps == 10 for s in statuses) == 500


def test_looks_grow_rarer_as_they_take_longer():
    from rich.console import Console

    progress = Progress(Console(quiet=True), {})
    assert progress.due()
    progress._look -= 3.0  # as if the look had taken three seconds
    progress.show([])
    assert not progress.due() and progress._due - time.monotonic() > 55


def test_the_estimate_counts_starts_compilation_and_evaluations_and_learns_from_running_cells(tmp_path):
    plan = plan_of("algo.utd=0.1", "seed=0,1", "eval_interval=250", "compile=true")
    by_hand = (1000 / ASSUMED["env_steps_per_s"] + 100 / ASSUMED["updates_per_s"] + ASSUMED["start_s"]
               + ASSUMED["compile_s"] + 5 * ASSUMED["evaluation_s"])  # fmt: skip
    assert estimate(plan, plan.cells, tmp_path, 1).seconds == pytest.approx(2 * by_hand)
    run = tmp_path / plan.cells[0].run_dir
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text(json.dumps({"env_steps": 500, "wall_time_s": 200.0}) + "\n")
    cost = estimate(plan, plan.cells, tmp_path, 1)
    begin = ASSUMED["start_s"] + ASSUMED["compile_s"]  # no run's clock has them
    assert cost.seconds == pytest.approx(200 + 400 + begin) and "1 running cells" in cost.basis


# ---- odd paths, and plans from someone else


@pytest.mark.parametrize("text", ["Läufe", "漢", "lr=1e-3 (a)", "it's", "a:b,c", "a\\b", "a\\", "a\\'b", "null",
                                  "1e5", "", 'x"y'])  # fmt: skip
def test_text_survives_hydras_grammar(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert OverridesParser.create().parse_override(f"key={to_override(text)}").value() == text


def test_a_name_too_long_is_one_line(tmp_path, script, capsys):
    long = tmp_path / ("x" * 300)
    assert sweep_cli.main(["status", f"out={long}"]) == 2
    assert script("fit", f"curves={long}") == 2
    assert script("plan", f"laws={long}", "target=1") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and all("300" in line or "too long" in line for line in lines)


def test_a_full_disk_leaves_no_half_written_file(tmp_path, monkeypatch):
    from scaling.sweep.plan_file import write_json

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json(tmp_path / "a.json", {})
    assert os.listdir(str(tmp_path)) == []


def marker(tmp_path: Path) -> tuple[Path, str]:
    """A file that a trainer named in a plan would make."""
    return tmp_path / "ran", f"sh -c 'touch {tmp_path / 'ran'}'"


def test_a_plans_own_trainer_or_plugins_run_only_when_confirmed(tmp_path, capsys, script):
    made, trainer = marker(tmp_path)
    plan = plan_of("seed=0")
    save_plan(tmp_path / "s", Plan(plan.cells, shlex.split(trainer)))
    assert sweep_cli.main([f"out={tmp_path}/s"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "trust=true" in error and "touch" in error
    assert sweep_cli.main(["status", f"out={tmp_path}/s"]) == 0
    assert script("fit", f"curves={tmp_path}/s", f"out={tmp_path}/laws") == 2  # nothing to read, nothing to run
    assert not made.exists()
    sweep_cli.main([f"out={tmp_path}/s", "trust=true", "launcher.retries=0"])
    assert made.exists()
    save_plan(tmp_path / "p", plan_of("seed=0", "plugins=[evil.py]"))
    assert sweep_cli.main([f"out={tmp_path}/p"]) == 2
    assert "the plugins evil.py" in capsys.readouterr().err
    assert sweep_cli.main([f"out={tmp_path}/p", "extend=true", "seed=1", STEPS]) == 2  # others' cells would run too
    save_plan(tmp_path / "i", plan_of("seed=0", "sim.python=evil"))
    assert sweep_cli.main([f"out={tmp_path}/i"]) == 2
    assert "the interpreters evil" in capsys.readouterr().err


@pytest.mark.parametrize("run_dir", ["../elsewhere", "/tmp/elsewhere", "runs/../../x", ""])
def test_run_directories_of_a_plan_stay_inside_the_sweep(tmp_path, run_dir):
    cell = plan_of("seed=0").cells[0]
    save_plan(tmp_path, Plan([Cell(cell.hash, cell.name, run_dir, cell.overrides)]))
    with pytest.raises(InputError, match="outside the sweep"):
        load_plan(tmp_path)


def test_what_is_printed_for_a_shell_is_quoted_word_by_word():
    import numpy as np

    from scaling.report.plan import Plan as Advice
    from scaling.report.plan import command
    from scaling.report.terminal import shell

    one = np.ones(1)
    advice = Advice(1.0, "flops", "Ant; touch x $(y)", one, 128 * one, 5e-4 * one, 2e4 * one, *[one] * 3, None)
    settings = {"fixed": {"num_envs": 64, "note": "a b 'c' " * 8, "x; rm": 1}, "learning_rate_keys": ["algo.a; b"]}
    words = command(advice, settings)
    joined = shell(words).replace("\\\n", " ")
    given = shlex.split(joined)
    assert given[:2] == ["python", "scripts/train.py"] and len(given) == 11
    assert given[2] == "task='Ant; touch x $(y)'" and given[-1] == "x; rm=1"
    assert given[-2] == "note=" + to_override("a b 'c' " * 8)  # a word is never broken


def test_locks_say_whether_flock_is_there(tmp_path):
    assert locks.has_flock(tmp_path) and os.listdir(str(tmp_path)) == []
