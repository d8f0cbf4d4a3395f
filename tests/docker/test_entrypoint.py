"""The container's entry point: a plain exec, or a command beside an MPS daemon that ends after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ENTRYPOINT = Path(__file__).resolve().parents[2] / "docker" / "entrypoint.sh"
# Stands in for NVIDIA's: -d starts the daemon, and words on standard input command it.
CONTROL = """#!/bin/sh
if [ "$1" = -d ]; then echo "started $CUDA_MPS_PIPE_DIRECTORY" >>"$MPS_LOG"; exit ${MPS_STARTS:-0}; fi
read -r word; echo "$word" >>"$MPS_LOG"; exit ${MPS_QUITS:-0}
"""
# Says when it is ready, and on a signal its name; then it ends with code 5, as a trainer after its checkpoint.
CHILD = """
import os, signal, sys, time
def stop(number, frame):
    os.write(1, (signal.Signals(number).name + "\\n").encode())  # print may not be called from within a print
    time.sleep(0.2)
    sys.exit(5)
for number in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(number, stop)
os.write(1, b"ready\\n")
while True:
    time.sleep(0.05)
"""


@pytest.fixture
def start(tmp_path):
    """Starts the entry point with a command and MPS on; ends it at the test's end."""
    (tmp_path / "nvidia-cuda-mps-control").write_text(CONTROL)
    (tmp_path / "nvidia-cuda-mps-control").chmod(0o755)
    begun = []

    def heed() -> None:
        """A shell cannot trap what was ignored before it began, as SIGINT is for whatever a script started with &."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def run(*command: str, **env: str) -> subprocess.Popen:
        mps = {"PQL_MPS": "1", "MPS_LOG": str(tmp_path / "mps.log"), "TMPDIR": str(tmp_path), **env}
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", **mps}
        words = ["/bin/bash", str(ENTRYPOINT), *command]
        process = subprocess.Popen(
            words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=heed,
        )  # fmt: skip
        begun.append(process)
        return process

    yield run
    for process in begun:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def mps_log(tmp_path: Path) -> list:
    return (tmp_path / "mps.log").read_text().splitlines() if (tmp_path / "mps.log").exists() else []


def test_without_mps_the_command_takes_the_shells_place(start, tmp_path):
    process = start(sys.executable, "-c", "import os, sys; print(os.getpid()); sys.exit(3)", PQL_MPS="0")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 3
    assert int(out) == process.pid
    assert mps_log(tmp_path) == []


def test_the_daemon_starts_before_the_command_and_quits_after_it(start, tmp_path):
    code = "import os; print(os.environ['CUDA_MPS_PIPE_DIRECTORY'], open(os.environ['MPS_LOG']).read().split()[0])"
    process = start(sys.executable, "-c", code)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    pipe, seen = out.split()
    assert seen == "started"
    assert mps_log(tmp_path) == [f"started {pipe}", "quit"]
    assert not Path(pipe).exists()


def test_the_commands_exit_code_is_kept(start, tmp_path):
    assert start("sh", "-c", "exit 7").wait(timeout=60) == 7
    assert mps_log(tmp_path)[-1] == "quit"


@pytest.mark.parametrize(("sent", "seen"), [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGTERM"), ("SIGUSR2", "SIGUSR2")])
def test_a_signal_reaches_the_command_whose_end_is_awaited(start, tmp_path, sent, seen):
    process = start(sys.executable, "-c", CHILD)
    assert process.stdout.readline() == "ready\n"
    os.kill(process.pid, signal.Signals[sent])
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (5, f"{seen}\n"), err
    assert mps_log(tmp_path)[-1] == "quit"


def test_the_command_may_be_interrupted_from_a_terminal(start):
    """A shell's background child ignores SIGINT unless the shell sees to it."""
    process = start(sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGINT).__name__)")
    assert process.communicate(timeout=60)[0] == "default_int_handler\n"


def test_a_daemon_that_does_not_start_or_is_not_there_is_explained(start, tmp_path):
    process = start("echo", "ran", MPS_STARTS="1")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and out == ""
    assert err.startswith("error: the MPS daemon did not start") and err.count("\n") == 1
    (tmp_path / "nvidia-cuda-mps-control").unlink()
    process = start("echo", "ran")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 2 and out == ""
    assert err.startswith("error: no nvidia-cuda-mps-control in the container") and err.count("\n") == 1


def test_a_daemon_that_does_not_quit_does_not_hold_up_the_end(start):
    began = time.monotonic()
    hanging = "#!/bin/sh\n[ \"$1\" = -d ] || exec sleep 600\n"
    command = f"printf '%s' '{hanging}' >\"$(command -v nvidia-cuda-mps-control)\""
    process = start("sh", "-c", command, PQL_MPS_QUIT_S="1")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "did not quit" in err
    assert time.monotonic() - began < 60
