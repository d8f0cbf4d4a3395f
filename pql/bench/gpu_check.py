"""`make gpu-check`: on a GPU box, its tests, then what is fast there and how fast; a JSON file and a table.

A part is one or more steps, each a command of its own: what fails in one, or takes too long, is recorded and stops no
other. A step's result is in the file as soon as it is there, so parts may be run in separate calls, and a step that is
run again replaces its result.

The file: `device` (what it was), `quick`, `goals`, and `parts`: part -> step -> `command`, `seconds`, `at`, `result`
and, where it failed or was stopped, `error` beside what there is of a result. A result is pytest's counts, the JSON
that `scripts/bench.py` writes, or a training run's summary, evaluations and first times at or above each threshold.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, List, NamedTuple
from xml.etree import ElementTree

import torch

from pql import cli
from pql.bench import curves, gpu_report
from pql.config import key
from pql.config.devices import resolve_device
from pql.errors import UserError, nearest, user_errors
from pql.files import write_atomically
from pql.memory.device import mps_is_running

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("tests", "sim", "learner", "pipeline", "packs", "ant")
THRESHOLDS = (1000.0, 3000.0, 5000.0)
# What makes a run small enough to try the whole chain on a CPU
TINY = [
    "num_envs=16", "algo.batch_size=32", "algo.hidden=[16]", "algo.replay_size=20000", "algo.warmup_steps=4",
    "algo.critic_updates_per_step=0.5", "compile=false",
]  # fmt: skip


@dataclass
class Options:
    parts: List[str] = key(list(PARTS), "which of them")  # noqa: UP006 - OmegaConf reads it under Python 3.8 too
    seeds: List[int] = key([1, 2, 3], "ant: seeds")  # noqa: UP006
    device: str = key("cuda", "cuda, cuda:1, ...; cpu tries the chain without a GPU")
    quick: bool = key(False, "tiny sizes: whether everything runs, not how fast")
    limit: float = key(570.0, "seconds that a part may take; steps that no longer fit are left out and said so")
    out: str = key("", "the JSON file, the table beside it as .md; empty: docs/results/gpu-<name>-<date>.json")


class Step(NamedTuple):
    name: str
    command: list[str]  # of this Python, `{out}` the file it is to write
    suffix: str  # of that file, or "" for a folder
    read: Callable[[Path], Any]
    least: float = 0.0  # seconds below which it is not begun


def steps(part: str, options: Options) -> list[Step]:
    """What a part runs, one after the other."""
    quick, device = options.quick, f"device={options.device}"
    task = "Cartpole" if quick else "Ant"
    bench = ["scripts/bench.py", part]
    if part == "tests":
        pytest, whole = ["-m", "pytest", "-m", "gpu", "-q", "--junitxml={out}"], "run_on_a_gpu"  # what takes longest
        groups = {
            "learners": ["tests/pql", "-k", f"not {whole}"],
            "simulation": ["tests/tasks"],
            "runs": ["tests/pql", "-k", whole],
        }
        groups = {"losses": ["tests/pql/algorithms/test_pql_d.py"]} if quick else groups
        return [Step(name, [*pytest, *words], ".xml", read_tests) for name, words in groups.items()]
    if part == "sim":
        names = [task] if quick else ["Ant", "BallBalance", "Cartpole", "Humanoid"]  # without models of other packages
        sizes = ["num_envs=[16]", "seconds=0.1"] if quick else ["num_envs=[1024,4096,16384]", "seconds=4"]
        words = [*sizes, device, "out={out}"]
        return [Step(name, [*bench, f"tasks=[{name}]", *words], ".json", read_json) for name in names]
    if part == "learner":
        modes = "eager+bf16" if quick else "eager,graph,graph+tf32,graph+bf16"
        tiny = ["batch_sizes=[64]", "hidden=[32,16]", "seconds=0.05", "threads=[1]"]
        words = [f"modes=[{modes}]", *(tiny if quick else ["batch_sizes=[2048,8192,32768]", "seconds=1.5"])]
        # compiling takes seconds for each size: the one that the goals are about
        fused = ["modes=[compile,compile+tf32,compile+bf16]", "batch_sizes=[8192]", "seconds=1.5"]
        sets = {"pql_d": words} if quick else {"pql": words, "pql_d": words, "pql fused": fused, "pql_d fused": fused}
        if options.device != "cpu":
            sets["pql ring on host"] = ["modes=[graph,host]", *words[1:]]
        rest = ["networks=[elu+norm]", device, "out={out}"]
        return [
            Step(name, [*bench, f"algos=[{name.split()[0]}]", *words, *rest], ".json", read_json)
            for name, words in sets.items()
        ]
    if part == "pipeline":
        words = [*TINY, "seconds=0.5", "settle=0.1", "rounds=1"] if quick else ["seconds=15", "settle=5"]
        command = [*bench, f"task={task}", *words, device, "out={out}"]
        sets = {task: command}
        if options.device != "cpu":
            sets[f"{task}, ring on host"] = [*command, "sides=[parallel]", "algo.replay_device=cpu"]
        return [Step(name, words, ".json", read_json) for name, words in sets.items()]
    if part == "packs":
        cell = ["num_envs=64", "algo.batch_size=128", "algo.hidden=[64,64]", "algo.utd=0.0625", "max_env_steps=40000",
                "algo.replay_size=40000", "eval_interval=20000"]  # fmt: skip
        words = [*TINY, "max_env_steps=640"] if quick else cell
        words += ["runtime=sync", "eval_episodes=16", "checkpoint_interval=0", "checkpoint_replay=false", "video=false"]
        train = ["scripts/train.py", "task=Cartpole", *words, device, "run_dir={out}"]
        numbers = [1, 3] if quick else [1, 4, 16, 64]
        return [Step(str(k), [*train, f"seeds={list(range(k))}".replace(" ", "")], "", read_pack) for k in numbers]
    tiny = [*TINY, "max_env_steps=640", "eval_interval=320", "eval_episodes=2", "runtime=sync"]
    words = tiny if quick else ["max_env_steps=1000000000000", "max_time=160", "eval_interval=2000000"]
    words += ["checkpoint_interval=0", "checkpoint_replay=false", "video=false", device, "run_dir={out}"]
    train = ["scripts/train.py", f"task={task}", *words]
    least = 0.0 if quick else 185.0
    return [Step(f"{task} {seed}", [*train, f"seed={seed}"], "", read_run, least) for seed in options.seeds]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def read_tests(path: Path) -> dict[str, int]:
    """Counts out of pytest's JUnit file."""
    suite = next(ElementTree.parse(path).iter("testsuite"))
    found = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    found["passed"] = found["tests"] - found["failures"] - found["errors"] - found["skipped"]
    return found


def read_run(path: Path) -> dict[str, Any]:
    """A training run: its evaluations, and seconds and env steps to the first at or above each threshold."""
    summary, curve = json.loads((path / "summary.json").read_text()), curves.read_curve(path)
    curve["reached"] = {f"{value:.0f}": curves.first_reached(curve, value) for value in THRESHOLDS}
    names = ("status", "env_steps", "wall_time_s", "critic_updates", "utd", "utd_requested", "eval_return")
    return {**{name: summary.get(name) for name in names}, "curve": curve}


def read_pack(path: Path) -> dict[str, int]:
    """Of the runs below a folder, how many there are and how many were trained side by side."""
    summaries = [json.loads(file.read_text()) for file in path.glob("*/summary.json")]
    if any(summary["status"] != "completed" for summary in summaries):
        raise UserError(f"{path}: a run failed")
    return {"runs": len(summaries), "side_by_side": max(summary["runs_side_by_side"] for summary in summaries)}


def run_step(step: Step, seconds: float) -> dict[str, Any]:
    """Run a step for at most `seconds`; its result, whole or as far as it came, and why it is not whole."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / f"out{step.suffix}"
        command = [sys.executable, *(word.replace("{out}", str(out)) for word in step.command)]
        print(f"\n$ {' '.join(command)}", flush=True)
        began, tail = time.monotonic(), deque(maxlen=15)
        late = threading.Event()
        # a group of its own, so that whatever it starts ends with it
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT, preexec_fn=os.setpgrp
        )

        def end() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(max(0.0, seconds), end)
        timer.start()
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                tail.append(line.rstrip())
            code = process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        found: dict[str, Any] = {"command": " ".join(step.command), "seconds": round(time.monotonic() - began, 1)}
        try:
            found["result"] = step.read(out)
        except (OSError, ValueError, UserError, ElementTree.ParseError) as error:
            found["result"] = None
            tail.append(f"no result: {error}")
    if late.is_set() or code or found["result"] is None:
        why = f"stopped after {seconds:.0f} s" if late.is_set() else f"exit code {code}"
        found["error"] = "\n".join([why, *tail])
    return found


def run_part(part: str, options: Options, keep: Callable[[str, dict[str, Any]], None]) -> bool:
    """Every step of a part; `keep` is given each result. False if any failed or no longer fitted in the limit."""
    finish, good = time.monotonic() + options.limit, True
    for step in steps(part, options):
        left = finish - time.monotonic()
        if left < max(1.0, step.least):
            found = {"error": f"not begun: {left:.0f} s were left of limit={options.limit:.0f}", "result": None}
        else:
            found = run_step(step, left)
        good = good and "error" not in found
        keep(step.name, found)
    return good


def facts(device: str) -> dict[str, Any]:
    """What the figures were taken on."""
    found: dict[str, Any] = {"name": "cpu", "cores": len(os.sched_getaffinity(0)), "machine": platform.machine()}
    found.update(python=platform.python_version(), torch=torch.__version__, cuda=torch.version.cuda)
    if device != "cpu":
        properties = torch.cuda.get_device_properties(device)
        found.update(name=properties.name, memory_bytes=properties.total_memory)
        found["compute_capability"] = f"{properties.major}.{properties.minor}"
        found["mps"] = mps_is_running()
    return found


def facts_elsewhere(device: str) -> dict[str, Any]:
    """`facts`, asked in another process: a context of ours would take memory from what is measured."""
    code = f"import json; from pql.bench.gpu_check import facts; print(json.dumps(facts({device!r})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def slug(name: str) -> str:
    """'NVIDIA H200' -> 'h200'."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("nvidia", "")).strip("-")


def check(options: Options) -> None:
    """Raises UserError for what cannot be run, before anything is."""
    for part in options.parts:
        cli.require(part in PARTS, "parts", part, f"some of {', '.join(PARTS)}{nearest(part, PARTS)}")
    cli.require(options.limit > 0, "limit", options.limit, "greater than 0")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise UserError(
            f"no NVIDIA GPU: torch {torch.__version__}, {built}, finds none; where there is one, nvidia-smi lists it "
            'and its driver suits that CUDA. To try the chain on a CPU: make gpu-check ARGS="device=cpu quick=true"'
        )
    resolve_device(options.device)


def main(argv: list[str]) -> int:
    """`make gpu-check ARGS="key=value ..."`; 1 if a part failed. Raises UserError."""
    options = cli.parse(argv, Options, 'make gpu-check ARGS="key=value ..."')
    check(options)
    device = facts("cpu") if options.device == "cpu" else facts_elsewhere(options.device)
    name = f"gpu-{slug(device['name'])}-{time.strftime('%Y-%m-%d')}.json"
    out = cli.output_file("out", options.out or str(ROOT / "docs/results" / name), ".json")
    report = json.loads(out.read_text()) if out.exists() else {"parts": {}}
    report.update(device=device, quick=options.quick)

    def keep(part: str, step: str, found: dict[str, Any]) -> None:
        report["parts"].setdefault(part, {})[step] = {**found, "at": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        report["goals"] = gpu_report.goals(report["parts"])
        write_atomically(out, json.dumps(report, indent=1) + "\n")
        write_atomically(out.with_suffix(".md"), gpu_report.markdown(report))

    good = [run_part(part, options, lambda step, found, part=part: keep(part, step, found)) for part in options.parts]
    gpu_report.show(report)
    print(f"written: {out} and {out.with_suffix('.md').name}")
    return 0 if all(good) else 1


if __name__ == "__main__":
    with user_errors():
        sys.exit(main(sys.argv[1:]))
