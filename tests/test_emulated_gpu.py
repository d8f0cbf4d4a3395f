"""The GPU's tests, and whole runs, where there is no GPU: on two emulated ones, see emulated_gpu/device.cpp.

They show that what runs on a GPU lies on one, waits for it nowhere else than it says, can be recorded as graphs and
crosses process borders as handles. They don't show speed, overlap, or kernels that are done later than they are asked.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).resolve().parent
FOLDER = TESTS / "emulated_gpu"
RUNS = "run_on_a_gpu"  # in the names of the tests that take longest
# A GPU's rounding and its thousands of threads; on the CPU's kernels they would be the CPU's tests once more.
ITS_OWN = "learned_on_a_gpu or thousands_of_ants"
PARTS = {
    "itself": ["emulated_gpu/emulation.py"],
    "learners": ["pql/runtime/test_gpu.py", "-k", f"not ({RUNS} or {ITS_OWN})"],
    # each kind of run in one of the two runtimes; a GPU runs all in both
    "parallel": ["pql/runtime/test_gpu.py", "-k", f"{RUNS} and parallel and (plain or told or v_on_second or ring)"],
    "sync": ["pql/runtime/test_gpu.py", "-k", f"{RUNS} and sync and (pql_d or bfloat16 or on_cpu)"],
    # to another process rows on the host are what the device's are, of which "parallel" has a whole run
    "replay": ["pql/memory/test_replay.py", "pql/algorithms/test_pql_d.py", "-k", "not far"],
    "packs": ["pql/run/test_pack.py", "-k", "not sac"],  # a GPU runs the others too
    "simulation": ["tasks/simulators/test_mujoco_warp.py", "-k", f"not ({ITS_OWN})"],
}

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there: make gpu-check tests on it"),
    pytest.mark.skipif(torch.version.cuda is not None, reason="an emulated GPU is for a torch that has no CUDA"),
    pytest.mark.skipif(torch.__version__ < "2.13", reason="device.cpp is written for torch 2.13"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="an emulated GPU is built by g++"),
]


@pytest.fixture(scope="module")
def emulated():
    """Variables of a process that finds two emulated GPUs. The library is built once per source and torch."""
    source = FOLDER / "device.cpp"
    key = hashlib.sha256(f"{torch.__version__} {sys.version} {source.read_text()}".encode()).hexdigest()[:16]
    library = TESTS.parent / ".pytest_cache" / "emulated_gpu" / f"{key}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        home = Path(torch.__file__).parent
        own = library.with_suffix(f".{os.getpid()}")
        includes = [f"-I{home / 'include'}", f"-I{home / 'include/torch/csrc/api/include'}"]
        libraries = [f"-L{home / 'lib'}", f"-Wl,-rpath,{home / 'lib'}", "-ltorch_cpu", "-lc10"]
        command = ["g++", "-shared", "-fPIC", "-std=c++20", *includes, str(source), *libraries, "-o", str(own)]
        subprocess.run(command, check=True, timeout=300)
        own.rename(library)
    return {"EMULATED_GPU": str(library), "PYTHONPATH": os.pathsep.join(map(str, (FOLDER, TESTS.parent)))}


def python(words, emulated, cwd=None, code=0, **more):
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=str(cwd or TESTS.parent), timeout=500, capture_output=True, text=True,
        env={**os.environ, **emulated, **more},
    )  # fmt: skip
    assert done.returncode == code, done.stdout[-5000:] + done.stderr[-3000:]
    return done


@pytest.mark.parametrize("part", PARTS)
def test_gpu_tests_pass_on_it(emulated, part):
    marked = [] if part == "itself" else ["-m", "gpu"]
    files = [str(TESTS / word) if word.endswith(".py") else word for word in PARTS[part]]
    done = python(["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *marked, *files], emulated)
    assert re.search(r"^\d+ passed", done.stdout.splitlines()[-1]), done.stdout
    assert "skipped" not in done.stdout.splitlines()[-1], done.stdout


def test_every_gpu_test_belongs_to_a_part():
    files = [path for path in TESTS.glob("*/**/test_*.py") if "mark.gpu" in path.read_text()]
    parts = {word for part in PARTS.values() for word in part if "/test_" in word}
    assert {path.relative_to(TESTS).as_posix() for path in files} == parts


TINY = [
    "num_envs=16", "algo.batch_size=32", "algo.hidden=[16]", "algo.replay_size=20000", "algo.warmup_steps=4",
    "algo.critic_updates_per_step=0.5", "max_env_steps=1600", "eval_interval=800", "eval_episodes=4", "video=false",
]  # fmt: skip
SCRIPTS = TESTS.parent / "scripts"


def test_a_run_takes_the_gpu_by_itself_and_is_gone_on_with_and_evaluated_there(emulated, tmp_path):
    python([SCRIPTS / "train.py", "task=Cartpole", "run_dir=run", *TINY], emulated, tmp_path)
    python([SCRIPTS / "train.py", "run_dir=run", "resume=true", "max_env_steps=2400"], emulated, tmp_path)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["device"], summary["env_steps"], summary["critic_updates"]) == ("cuda", 2400, 75)
    evaluated = python([SCRIPTS / "evaluate.py", "run_dir=run", "episodes=8"], emulated, tmp_path).stdout
    assert json.loads(evaluated.splitlines()[-1])["episodes"] == 8


@pytest.mark.parametrize("algo", ["readme", "sac"])
def test_other_algorithms_run_there_in_three_processes_with_graphs(emulated, tmp_path, algo):
    words = ["task=Cartpole", "run_dir=run", "algo=sac", *TINY]
    if algo == "readme":
        code = re.findall(r"```python\n(.*?)```", (TESTS.parent / "README.md").read_text(), re.S)[1]
        (tmp_path / "soft.py").write_text(code)
        words = ["task=Cartpole", "run_dir=run", "algo=soft", "plugins=[soft.py]", *TINY]
    done = python([SCRIPTS / "train.py", *words], emulated, tmp_path)
    assert "no CUDA graph" not in done.stderr
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["device"], summary["critic_updates"], summary["status"]) == ("cuda", 50, "completed")


def test_isaac_gyms_simulation_is_on_the_gpu_in_a_process_of_its_own(emulated, standin, tmp_path):
    path = os.pathsep.join([standin.environment()["PYTHONPATH"], emulated["PYTHONPATH"]])
    words = ["task=Cartpole", "sim=isaacgym", "device=cuda", "run_dir=run", *TINY]
    python([SCRIPTS / "train.py", *words], {**emulated, "PYTHONPATH": path}, tmp_path)
    assert json.loads((tmp_path / "run/summary.json").read_text())["device"] == "cuda"


def test_health_check_of_the_isaac_gym_image_steps_a_task_the_first_time_alone(emulated, standin, tmp_path):
    path = os.pathsep.join([standin.environment()["PYTHONPATH"], emulated["PYTHONPATH"], str(TESTS.parent)])
    check = [TESTS.parent / "docker/health_isaacgym.py"]
    said = [
        python(check, {**emulated, "PYTHONPATH": path}, tmp_path, TMPDIR=str(tmp_path)).stdout.splitlines()
        for _ in range(2)
    ]
    assert said[0][-1:] == ["Cartpole steps on cuda:0"] and not any("steps" in line for line in said[1])


def test_driver_without_cuda_ipc_is_named_with_the_remedy(emulated, tmp_path):
    words = [SCRIPTS / "train.py", "task=Cartpole", "run_dir=run", *TINY]
    done = python(words, emulated, tmp_path, code=2, EMULATED_GPU_WITHOUT_IPC="1")
    last = done.stderr.splitlines()[-1]
    assert last == (
        "error: processes can't share GPU memory here (CUDA error: operation not supported): take runtime=sync"
    )


def test_simulator_of_the_cpu_is_a_run_on_the_cpu(emulated, tmp_path):
    words = ["task=Cartpole", "sim=mujoco", "run_dir=run", "runtime=sync", *TINY]
    assert "note" not in python([SCRIPTS / "train.py", *words], emulated, tmp_path).stderr
    assert json.loads((tmp_path / "run/summary.json").read_text())["device"] == "cpu"


def test_gpu_that_the_task_cant_be_simulated_on_is_left_idle_and_said_to_be(emulated, tmp_path):
    code = "import sys; sys.modules['warp'] = None; sys.argv = sys.argv[1:]; import runpy; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    words = ["task=Cartpole", "run_dir=run", "runtime=sync", *TINY]
    done = python(["-c", code, SCRIPTS / "train.py", *words], emulated, tmp_path)
    note = [line for line in done.stderr.splitlines() if line.startswith("note")]
    assert len(note) == 1 and "training on the CPU" in note[0] and "pip install .[gpu]" in note[0]
    assert json.loads((tmp_path / "run/summary.json").read_text())["device"] == "cpu"


def test_gpu_check_measures_simulation_and_pipeline(emulated, tmp_path):
    out = tmp_path / "gpu.json"
    python(["-m", "pql.bench.gpu_check", "quick=true", "parts=[sim,pipeline]", f"out={out}"], emulated)
    report = json.loads(out.read_text())
    assert report["device"]["name"] == "NVIDIA Emulated" and all(
        "error" not in step for part in report["parts"].values() for step in part.values()
    )
