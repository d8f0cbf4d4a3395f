"""Every command of the README runs, made small; and the tree holds what the README says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mujoco", reason="the README's commands train on MuJoCo, which needs Python 3.11")

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
TINY = (
    "num_envs=32 max_env_steps=640 algo.batch_size=32 algo.critic_updates_per_step=0.5 algo.warmup_steps=4 "
    "algo.hidden=[16] algo.replay_size=20000 eval_interval=320 log_interval=320 eval_episodes=2 video=false "
    "runtime=sync compile=false"
)
# What makes a command small: (a part of the command, words added to it, exit codes that are fine)
SMALLER = (
    ("scripts/train.py --help", "", (0,)),
    ("scripts/record.py", "steps=64 num_envs=4", (0, 2)),  # 2: without the package minari
    ("scripts/train.py data=", "passes=4 algo.batch_size=16 algo.hidden=[16] eval_episodes=2 video=false compile=false",
     (0, 2)),
    ("algo=bro_fast", TINY.replace("algo.hidden=[16]", "algo.critic_width=16 algo.actor_width=16"), (0,)),
    ("scripts/train.py", TINY, (0,)),
    ("scripts/play.py", "episodes=2 seconds=0.2", (0,)),
    ("scripts/evaluate.py", "episodes=4", (0,)),
    ("scripts/export.py", "steps=2", (0,)),
    ("scripts/sweep.py status", "", (0,)),
    ("scripts/sweep.py", "seed=0 algo.utd=0.1,0.2 max_env_steps=640 num_envs=32 algo.batch_size=16 algo.hidden=[8] "
     "eval_interval=128 log_interval=64 eval_episodes=2 launcher.pin=false", (0,)),
    ("scripts/autopilot.py", "dry_run=true", (0,)),  # tests/scaling/autopilot flies
    ("scripts/fit.py", "", (0, 2)),  # two runs of a few steps reach nothing: a line says so
    ("scripts/plan.py", "", (2,)),  # so there are no laws here; tests/scaling plans with real ones
    ("scripts/bench.py sim", "tasks=[Cartpole] num_envs=[8] seconds=0.1", (0,)),
    ("scripts/bench.py learner", "seconds=0.1 batch_sizes=[64] hidden=[32,16] threads=[1] algos=[pql] "
     "networks=[elu] modes=[eager]", (0,)),
    ("scripts/bench.py pipeline", "task=Cartpole seconds=0.2 settle=0 rounds=1 sides=[sync] num_envs=16 "
     "algo.batch_size=16 algo.hidden=[8] algo.replay_size=20000 algo.warmup_steps=4 algo.critic_updates_per_step=0.5 "
     "compile=false", (0,)),
    ("scripts/bench.py peers", "learners=", (2,)),  # hours; tests/pql/bench/test_peers.py runs its cells
    ("scripts/bench.py curves", "", (0,)),
    ("scaling.study.flights", f"curves={ROOT / 'docs/results/scaling/cartpole16/curves.csv.gz'} flights=1 samples=100",
     (0,)),
    ("scaling.study.choices", "data=.", (2,)),  # minutes, and the public sweeps; tests/scaling/study has a small one
    ("scaling.study", "replicates=2 samples=4", (0,)),
)  # fmt: skip


# What `python <words>` does, for each line of words on stdin: in a process of its own, but for slow imports made once.
PYTHON = """
import json, os, runpy, sys
import mujoco, pql.run.trainer
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = json.loads(line)
        if sys.argv[0] == "-m":
            del sys.argv[0]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            sys.path[0] = os.path.dirname(sys.argv[0])
            runpy.run_path(sys.argv[0], run_name="__main__")
        sys.exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture
def python(tmp_path):
    """`python(words)`: (exit code, stdout, stderr) of an interpreter in `tmp_path`."""
    command, pipe = [sys.executable, "-c", PYTHON], subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stdin=pipe, stdout=pipe, text=True, bufsize=1) as server:

        def run(words):
            server.stdin.write(json.dumps(words) + "\n")
            code = int(server.stdout.readline())
            return code, (tmp_path / "stdout").read_text(), (tmp_path / "stderr").read_text()

        yield run
        server.stdin.close()


def commands() -> list[str]:
    """The lines of the README's sh blocks, and its commands between back-ticks that begin with an interpreter."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.S)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`(\.venv/bin/python [^`]+)`", README)
    return [line for line in [*lines, *inline] if line]


def test_each_command_of_the_readme_runs(python):
    lines = [re.sub(r"^docker/run.sh (?=python )", ".venv/bin/", line) for line in commands()]  # as the image runs it
    scripts = [line for line in lines if not line.startswith(("make", "docker/"))]
    assert len(scripts) >= 14, "the README lost its commands, or this test does not find them any more"
    for line in scripts:
        found = [(words, codes) for part, words, codes in SMALLER if part in line]
        assert found, f"no small form known for: {line}"
        words, codes = found[0]
        given = shlex.split(line)
        assert given[0] == ".venv/bin/python"
        program = [str(ROOT / word) if word.startswith("scripts/") else word for word in given[1:]]
        later = shlex.split(words)  # a key given here replaces the README's value
        replaced = {word.partition("=")[0] for word in later}
        program = [word for word in program if "=" not in word or word.partition("=")[0] not in replaced]
        code, out, err = python([*program, *later])
        assert code in codes, f"{line}\nexit code {code}\n{out}\n{err}"
        if code == 2:
            assert "Traceback" not in err and err.strip(), err


def test_each_example_of_the_page_about_environments_trains(tmp_path, monkeypatch, request):
    """mjlab's on the stand-in in tests/labs."""
    pytest.importorskip("gymnasium", reason="needs gymnasium: pip install .[gym]")
    pytest.importorskip("dm_env", reason="needs dm-control: pip install .[dmc]")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT / "tests/labs/standin", ROOT, tmp_path))))
    python = request.getfixturevalue("python")  # a process that has these variables
    page = (ROOT / "docs/environments.md").read_text()
    for name, code in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", page, re.S):
        (tmp_path / name).write_text(code)
    lines = re.findall(r"```sh\n(.*?)\n```", page, re.S)
    assert len(lines) == 5 and all(line in page for line in lines)
    for number, line in enumerate(lines):
        interpreter, script, *words = shlex.split(line.replace("mjlab_venv/bin/python", sys.executable))
        assert interpreter == ".venv/bin/python"
        tiny = [word for word in TINY.split() if not word.startswith("num_envs")]
        more = ["num_envs=32", f"run_dir={number}", "sim.threads=1"]
        code, out, err = python([str(ROOT / script), *words, *tiny, *more])
        assert code == 0, f"{line}\n{out}\n{err}"
        assert json.loads((tmp_path / str(number) / "summary.json").read_text())["status"] == "completed"


def test_docker_commands_of_the_readme_reach_docker(tmp_path, monkeypatch):
    """With a docker that records its words; tests/docker tests the scripts themselves."""
    monkeypatch.syspath_prepend(str(ROOT / "tests/docker"))
    import stand_in

    stand_in.isaacgym_tarball(tmp_path / "IsaacGym_Preview_4_Package.tar.gz")
    stand_in.isaacgymenvs_checkout(tmp_path / "IsaacGymEnvs")
    log = tmp_path / "docker.log"
    env = {**os.environ, "PATH": f"{ROOT / 'tests/docker/stub'}:{os.environ['PATH']}", "DOCKER_LOG": str(log)}
    lines = [line for line in commands() if line.startswith("docker/")]
    assert len(lines) >= 4
    for line in lines:
        script, *words = shlex.split(line)
        done = subprocess.run(
            [str(ROOT / script), *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        call = log.read_text().split("\n--\n")[-2].splitlines()
        assert call[0] == {"docker/build.sh": "buildx", "docker/run.sh": "run"}[script]
        if script == "docker/run.sh":
            assert call[-3:] == words[-3:] and "scripts/train.py" in call


def test_make_targets_of_the_readme_exist():
    targets = {line.split()[1] for line in commands() if line.startswith("make")}
    assert {"train", "test", "gpu-check", "wheels"} <= targets
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True, timeout=60)


def test_words_that_the_readme_gives_to_make_are_known_to_what_it_runs(monkeypatch):
    from pql import cli
    from pql.bench import gpu_check

    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import wheels

    schemas = {"gpu-check": gpu_check.Options, "wheels": wheels.Options}
    lines = [shlex.split(line) for line in commands() if line.startswith("make ")]
    given = [(words[1], word[5:]) for words in lines for word in words[2:] if word.startswith("ARGS=")]
    assert {target for target, _ in given} >= set(schemas)
    for target, words in given:
        if target in schemas:
            cli.parse(words.split(), schemas[target], "")


def test_files_named_in_the_readme_exist():
    named = re.findall(r"`((?:pql|tasks|scaling|cfg|scripts|docs|tests|docker)/[\w./-]*)`", README)
    images = re.findall(r"\]\(([^)#:]+\.png)\)", README)
    assert named
    for name in [*named, *images]:
        assert (ROOT / name).exists(), name


def test_the_readme_algorithm_trains_in_both_runtimes_and_is_resumed_and_exported(tmp_path):
    code = re.findall(r"```python\n(.*?)```", README, re.S)[1]
    assert len(code.splitlines()) <= 60
    plugin = tmp_path / "soft.py"
    plugin.write_text(code)

    def script(name, *words):
        done = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / name), *words],
            capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    tiny = [word for word in TINY.split() if not word.startswith("runtime")]
    for runtime in ("sync", "parallel"):
        words = ["task=Cartpole", "algo=soft", f"plugins=[{plugin}]", f"run_dir={runtime}", f"runtime={runtime}"]
        script("train.py", *words, *tiny, "algo.entropy=-0.5")
        before = json.loads((tmp_path / runtime / "summary.json").read_text())
        script("train.py", f"run_dir={runtime}", "resume=true", f"max_env_steps={2 * before['env_steps']}")
        after = json.loads((tmp_path / runtime / "summary.json").read_text())
        assert after["status"] == "completed" and after["critic_updates"] > before["critic_updates"]
        assert '"entropy"' in (tmp_path / runtime / "metrics.jsonl").read_text()
    script("export.py", "run_dir=sync", f"plugins=[{plugin}]")  # what a run's folder names is not imported unasked
    assert (tmp_path / "sync" / "policy.onnx").exists()


def test_the_readme_task_trains(tmp_path):
    code = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    assert len(code.splitlines()) < 40
    plugin = tmp_path / "pendulum.py"
    plugin.write_text(code)
    words = ["task=Pendulum", f"plugins=[{plugin}]", f"run_dir={tmp_path / 'run'}", *TINY.split()]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/train.py"), *words],
        capture_output=True, text=True, timeout=300, check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
