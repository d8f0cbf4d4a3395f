"""make gpu-check: the whole chain at tiny sizes on a CPU, what becomes of a step that fails, what it needs of pip."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pql.bench import gpu_check, gpu_report
from pql.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


def options(**changes):
    return gpu_check.Options(**{"device": "cpu", "quick": True, "seeds": [1], **changes})


def step(name, code="", rate=None, **more):
    """A step of Python code, which may first write a row of `sim` with this rate."""
    row = json.dumps([{"num_envs": 16, "env_steps_per_s": rate, "ratio": 0.5}])
    write = f"import sys; open(sys.argv[1], 'w').write({row!r}); " if rate else ""
    return gpu_check.Step(name, ["-c", write + code, "{out}"], ".json", gpu_check.read_json, **more)


def test_every_part_runs_and_its_figures_mean_what_they_say(mujoco, tmp_path, capfd):
    out = tmp_path / "gpu.json"
    assert gpu_check.main(["device=cpu", "quick=true", "seeds=[1]", f"out={out}"]) == 0
    report = json.loads(out.read_text())
    assert list(report["parts"]) == list(gpu_check.PARTS)
    found = {part: step["result"] for part, steps in report["parts"].items() for step in steps.values()}
    assert found["tests"]["tests"] == found["tests"]["skipped"] >= 1  # marked, and no GPU here
    assert found["sim"][0]["num_envs"] == 16 and found["sim"][0]["env_steps_per_s"] > 0

    critic, policy = found["learner"]["rows"]
    assert (critic["algo"], critic["mode"], critic["update"]) == ("pql_d", "eager+bf16", "critic")
    for row in (critic, policy):
        assert 0 < row["share_of_roofline"] < 1.2
        least = max(row["flops"] / row["matmul_flops_per_s"], row["bytes"] / row["copy_bytes_per_s"])
        assert row["share_of_roofline"] == pytest.approx(least * row["updates_per_s"])

    sides = found["pipeline"]["sides"]
    assert list(sides) == ["sync", "parallel", "actor"]
    for side in ("sync", "parallel"):  # at the ratio asked for, but for the few updates that pacing leaves open
        updates = sides[side]["critic_updates_per_s"] * sides[side]["seconds"]
        assert sides[side]["utd"] == pytest.approx(0.5 / 16, rel=3 / updates)
        assert sides[side]["policy_updates_per_s"] > 0
    rates = {side: values["transitions_per_s"] for side, values in sides.items()}
    assert found["pipeline"]["overlap_gain"] == pytest.approx(rates["parallel"] / rates["sync"])
    assert found["pipeline"]["actor_share_beside_learners"] == pytest.approx(rates["parallel"] / rates["actor"])
    assert sides["actor"]["critic_updates_per_s"] == 0

    assert found["packs"] == {"runs": 3, "side_by_side": 3}
    assert found["ant"]["env_steps"] == 640 and found["ant"]["curve"]["reached"]["3000"] is None
    assert found["ant"]["curve"]["env_steps"] == [320, 640]
    tables = capfd.readouterr().out
    assert "Pipeline: Cartpole, 16 environments" in tables and "Goals" not in tables
    assert "| pql_d | 64 | eager+bf16 | critic |" in out.with_suffix(".md").read_text()


def test_what_fails_or_hangs_is_recorded_and_stops_no_other(monkeypatch, tmp_path, capsys):
    steps = [
        step("dies", "print('the reason'); raise SystemExit(3)"),
        step("writes nothing"),
        step("goes on for ever", "import time; time.sleep(600)", rate=1.0),
        step("too long for what is left", least=100.0),
    ]
    monkeypatch.setattr(gpu_check, "steps", lambda part, options: steps)
    out = tmp_path / "gpu.json"
    assert gpu_check.main(["parts=[sim]", "device=cpu", "quick=true", "limit=4", f"out={out}"]) == 1
    found = json.loads(out.read_text())["parts"]["sim"]
    errors = {name: step["error"].splitlines()[0] for name, step in found.items()}
    assert errors["dies"] == "exit code 3" and "the reason" in found["dies"]["error"]
    assert errors["writes nothing"] == "exit code 0" and "no result" in found["writes nothing"]["error"]
    assert errors["goes on for ever"].startswith("stopped after")
    assert found["goes on for ever"]["result"][0]["env_steps_per_s"] == 1.0  # what there was of it
    assert errors["too long for what is left"].startswith("not begun")
    # another call, of one of them: the others' results stay
    mended = step("dies", rate=2.0)
    monkeypatch.setattr(gpu_check, "steps", lambda part, options: [mended])
    assert gpu_check.main(["parts=[sim]", "device=cpu", "quick=true", f"out={out}"]) == 0
    again = json.loads(out.read_text())["parts"]["sim"]
    assert again["dies"]["result"][0]["env_steps_per_s"] == 2.0 and "error" not in again["dies"]
    assert again["goes on for ever"] == found["goes on for ever"]


REPORT = {
    "device": {"name": "NVIDIA X", "torch": "2.11.0", "cuda": "13.0", "cores": 16, "mps": False},
    "quick": False,
    "parts": {
        "sim": {"Ant": {"seconds": 9.5, "result": [
            {"num_envs": n, "env_steps_per_s": rate, "ratio": 0.9, "device_memory_bytes": 2**31}
            for n, rate in ((1024, 5e5), (4096, 1.5e6))]}},
        "learner": {"pql": {"seconds": 60.0, "error": "exit code 1\n...", "result": {"rows": [
            {"algo": "pql", "batch_size": size, "mode": mode, "update": update, "updates_per_s": 1234.5,
             "textbook_updates_per_s": 200.0, "speed_up": up, "share_of_roofline": 0.45, "peak_memory_bytes": 2**30}
            for size, mode, update, up in (
                (8192, "graph", "critic", 6.0), (8192, "eager", "critic", 2.0), (8192, "graph", "policy", 30.0),
                (8192, "graph+bf16", "critic", 20.0), (2048, "graph", "critic", 40.0))]}},
            "pql ring on host": {"seconds": 60.0, "result": {"rows": [
                {"algo": "pql", "batch_size": 2048, "mode": mode, "update": "critic", "updates_per_s": rate,
                 "textbook_updates_per_s": 200.0, "speed_up": 1.0, "share_of_roofline": 0.45,
                 "ring_bytes_on_device": size}
                for mode, rate, size in (("graph", 400.0, 2**26), ("host", 300.0, 2048))]}}},
        "pipeline": {"Ant": {"seconds": 200.0, "result": {
            "task": "Ant", "num_envs": 4096, "utd_requested": 8 / 4096, "overlap_gain": 1.3,
            "actor_share_beside_learners": 0.7,
            "sides": {side: {"transitions_per_s": 1e5, "critic_updates_per_s": 200.0, "policy_updates_per_s": 100.0,
                             "utd": 8 / 4096, "device_memory_bytes": 2**33} for side in ("sync", "parallel")}}}},
        "packs": {str(k): {"seconds": seconds, "result": {"runs": k, "side_by_side": k}}
                  for k, seconds in ((1, 40.0), (16, 70.0))},
        "ant": {f"Ant {seed}": {"seconds": 170.0, "result": {
            "env_steps": 10**8, "wall_time_s": 160.0, "eval_return": 6000.0,
            "curve": {"reached": {"1000": [20.0, 10**7], "3000": [at, 5 * 10**7], "5000": None}}}}
            for seed, at in ((1, 60.0), (2, 90.0))},
    },
}  # fmt: skip


def test_goals_take_float32_at_batch_8192_and_the_slowest_seed():
    found = {goal["goal"]: (goal["measured"], gpu_report.met(goal)) for goal in gpu_report.goals(REPORT["parts"])}
    assert list(found.values()) == [
        (6.0, True), (None, None), (0.45, False), (None, None), (1.5e6, True), (0.7, True), (1.3, False),
        (1.75, True), (90.0, True),
    ]  # fmt: skip


def test_tables_fit_80_columns_and_show_what_failed():
    report = {**REPORT, "goals": gpu_report.goals(REPORT["parts"])}
    file = io.StringIO()
    gpu_report.show(report, file)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("FAILED: exit code 1" in line for line in lines)
    assert next(line for line in lines if "graph+bf16" in line).split() == [
        "pql", "8192", "graph+bf16", "critic", "1,234.5", "200.0", "20.00", "45%", "1.0",
    ]  # fmt: skip
    assert ["16", "70.0", "823", "9.14"] in [line.split() for line in lines]
    assert next(line for line in lines if "64.0" in line).split() == [
        "2048", "critic", "400.0", "64.0", "300.0", "0.0", "0.75",
    ]  # fmt: skip
    text = gpu_report.markdown(report)
    assert "| Ant | 500,000 | 1,500,000 | 0.90 | 2.0 |" in text and "not measured" in text
    assert all(line.count("|") == 5 for line in text.partition("## Goals")[2].splitlines() if line.startswith("|"))


def test_without_a_gpu_one_line_says_what_is_missing():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    command = [sys.executable, "-m", "pql.bench.gpu_check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and "no NVIDIA GPU" in done.stderr and "device=cpu" in done.stderr


@pytest.mark.parametrize("word", ["parts=[tets]", "limit=0", "device=cpuu", "out=gpu.txt"])
def test_mistakes_are_named(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [word] if word.startswith("device") else [word, "device=cpu"]
    with pytest.raises(UserError, match=word.partition("=")[0]):
        gpu_check.main(words)
    assert list(tmp_path.iterdir()) == []


def test_every_step_is_known_to_what_it_calls(tmp_path):
    """The real sizes, on a CPU: the words are parsed by the programs' own options."""
    from pql import cli
    from pql.bench import learner, pipeline

    assert [step.name for step in gpu_check.steps("ant", options(quick=False, seeds=[1, 2]))] == ["Ant 1", "Ant 2"]
    for part, schema in (("learner", learner.Options), ("pipeline", None)):
        here, there = (gpu_check.steps(part, options(quick=False, device=device)) for device in ("cpu", "cuda"))
        assert len(there) == len(here) + 1  # a ring elsewhere
        for made in there:
            words = [word.replace("{out}", str(tmp_path / "out.json")) for word in made.command[2:]]
            words = [word.replace("device=cuda", "device=cpu") for word in words]
            if schema:
                sizes = [8192] if made.name.endswith("fused") else [2048, 8192, 32768]
                assert cli.parse(words, schema, "").batch_sizes == sizes
            else:
                own = [word for word in words if word.partition("=")[0] in ("seconds", "settle", "sides", "out")]
                rest = [word for word in words if word not in own]
                cfg = pipeline.load(rest, cli.parse(own, pipeline.Options, ""), "parallel")
                assert (cfg.task.name, cfg.runtime) == ("Ant", "parallel")


def test_wheels_are_what_is_reached_past_what_the_machine_has(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import wheels

    resolved = {
        "pql-needs": {"version": "1", "requires_dist": ["Torch>=2", "tool[fast] (>1); python_version > '3'"]},
        "torch": {"version": "2", "requires_dist": ["nvidia_things==3", "numpy"]},
        "nvidia-things": {"version": "3"},
        "numpy": {"version": "4"},
        "tool": {"version": "5", "requires_dist": ["numpy", "another; sys_platform == 'win32'", "pql_needs"]},
    }
    assert wheels.needed(["pql.needs; x", "win"], resolved, set()) == [
        "numpy==4", "nvidia-things==3", "pql-needs==1", "tool==5", "torch==2",
    ]  # fmt: skip
    assert wheels.needed(["pql_needs"], resolved, {"torch"}) == ["numpy==4", "pql-needs==1", "tool==5"]
