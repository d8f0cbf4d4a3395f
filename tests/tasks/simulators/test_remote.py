"""An environment in a process of its own: the same steps, its own folder, and what is said of each way to end."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from tasks import TaskError
from tasks.simulators.remote import RemoteEnv

STANDIN = Path(__file__).resolve().parents[2] / "isaacgym_standin"


@pytest.fixture
def remote(monkeypatch, tmp_path_factory):
    """`remote(**arguments)`: the environment that tests/isaacgym_standin/remote_envs.py makes; closed in the end."""
    monkeypatch.syspath_prepend(str(STANDIN))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("simulations")))  # a crash leaves its folder
    made = []

    def start(factory="make", first="json", crash="", **arguments):
        made.append(RemoteEnv(f"remote_envs:{factory}", arguments, first, crash))
        return made[-1]

    yield start
    for env in made:
        env.close()


@pytest.mark.parametrize("critic", [False, True])
def test_steps_equal_those_of_the_same_environment_in_this_process(remote, critic):
    env = remote(critic=critic)
    from remote_envs import Sum

    twin = Sum(critic=critic)
    assert env.critic_obs_dim == (1 if critic else 0)
    assert (env.name, env.num_envs, env.obs_dim, env.action_dim) == ("Sum", 3, 2, 2)
    assert (env.max_episode_steps, env.dt, env.device) == (10, 0.5, torch.device("cpu"))
    source = torch.Generator().manual_seed(0)
    for episode in range(2):
        assert torch.equal(env.reset(), twin.reset()), episode
        assert (env.critic_obs.tolist() == [[-1.0]] * 3) if critic else env.critic_obs is None
        for _ in range(5):
            action = torch.rand(3, 2, generator=source)
            got, want = env.step(action), twin.step(action)
            for field in ("obs", "reward", "terminated", "truncated", "next_obs", "valid"):
                assert torch.equal(getattr(got, field), getattr(want, field)), field
            for field in ("critic_obs", "next_critic_obs"):
                assert torch.equal(getattr(got, field), getattr(want, field)) if critic else getattr(got, field) is None
            assert got.info.keys() == {"largest"}  # single numbers come across
            assert torch.equal(got.info["largest"], want.info["largest"])
    with pytest.raises(TaskError, match=r"\(3, 2\), not \(3, 1\)"):
        env.step(torch.zeros(3, 1))


def test_it_has_a_folder_of_its_own_that_goes_with_it(remote, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    env = remote()
    assert not list(tmp_path.iterdir())
    assert (env.folder / "left_behind.xml").exists()
    assert "a simulator prints" in env.log.read_text() and "a simulator prints" not in capfd.readouterr().out
    process = env._process
    env.close()
    assert process.returncode == 0
    assert not env.folder.exists()
    with pytest.raises(RuntimeError, match="closed"):
        env.reset()


def test_what_the_factory_calls_a_mistake_is_one_here(remote):
    with pytest.raises(TaskError, match=r"^choose another colour$"):
        remote(mistake="choose another colour")


def test_a_module_that_cannot_be_imported_first_is_the_factorys_to_explain(remote):
    with pytest.raises(TaskError, match="could not import: ModuleNotFoundError"):
        remote("make_without", first="no_such_module_anywhere")


def test_a_crash_while_it_is_made_is_a_mistake_with_the_advice_given(remote):
    with pytest.raises(TaskError, match=r"was killed by SIGSEGV: buy memory; its output: .*output\.log") as caught:
        remote(dies="SIGSEGV", crash="buy memory")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault, words", [("SIGKILL", "was killed by SIGKILL"), ("raise", "RuntimeError: three is")])
def test_a_later_failure_names_its_cause(remote, fault, words, capfd):
    env = remote(fault=fault)
    env.step(torch.zeros(3, 2))
    env.step(torch.zeros(3, 2))
    with pytest.raises(RuntimeError, match=words):
        env.step(torch.zeros(3, 2))
    if fault == "raise":
        assert "three is too many" in capfd.readouterr().err  # with the traceback of the other process


def test_it_ends_with_the_process_that_made_it(tmp_path):
    """Also when that is killed, and SIGINT or SIGTERM to its group leave it to that process."""
    code = (
        "import sys, signal, time; from tasks.simulators.remote import RemoteEnv\n"
        "env = RemoteEnv('remote_envs:make', {}, 'json')\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(env._process.pid, flush=True); sys.stdin.readline()\n"
        "print(float(env.reset().sum()), flush=True); time.sleep(60)"
    )
    path = os.pathsep.join([str(STANDIN), str(STANDIN.parents[1])])
    maker = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    try:
        pid = int(maker.stdout.readline())
        os.killpg(maker.pid, signal.SIGTERM)
        maker.stdin.write("go on\n")
        maker.stdin.flush()
        assert maker.stdout.readline() == "6.0\n"
        maker.kill()
        maker.wait(10)
        end = time.monotonic() + 10
        while _alive(pid):
            assert time.monotonic() < end, "the simulation outlived its maker"
            time.sleep(0.01)
    finally:
        maker.kill()
        maker.communicate()


def test_it_ends_with_the_process_that_made_it_while_it_still_imports(tmp_path):
    code = (
        "import os; from tasks.simulators.process import Process\n"
        "print(Process('import time; time.sleep(60)', []).popen.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    env = {**os.environ, "PYTHONPATH": str(STANDIN.parents[1]), "TMPDIR": str(tmp_path)}
    maker = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env, check=False)
    end = time.monotonic() + 10
    while _alive(int(maker.stdout)):
        assert time.monotonic() < end, "the simulation outlived its maker"
        time.sleep(0.01)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
