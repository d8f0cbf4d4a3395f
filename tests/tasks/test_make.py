"""Names and options: what is known, what is refused and with which words."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import tasks
from tasks.simulators import base as simulator

needs_mujoco = pytest.mark.skipif(simulator.BACKENDS["mujoco"].unavailable() is not None, reason="needs MuJoCo")


def test_tasks_are_listed():
    assert {"Ant", "BallBalance", "Cartpole", "Humanoid"} <= set(tasks.list())


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"name": "ant"}, "did you mean Ant"),
        ({"name": "CartPole"}, "did you mean Cartpole"),
        ({"name": "zzz"}, "known: AllegroHand, Ant, Ant-v5, Anymal, BallBalance, Cartpole"),
        ({"sim": "mujco"}, "did you mean mujoco"),
        ({"sim": "bullet"}, "known: auto, .*mujoco"),
        ({"num_envs": 0}, "at least 1, not 0"),
        ({"num_envs": -3}, "at least 1, not -3"),
        ({"num_envs": 2.5}, "at least 1, not 2.5"),
        ({"threads": 0}, "threads must be at least 1"),
    ],
)
def test_mistakes_are_named_in_one_line(arguments, words):
    with pytest.raises(tasks.TaskError, match=words) as caught:
        tasks.make(**{"name": "Cartpole", "num_envs": 2, **arguments})
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


@needs_mujoco
@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"device": "cuda:99"}, "CUDA devices|no simulator can run"),
        ({"device": "nonsense", "sim": "mujoco"}, "no device"),
        ({"device": "meta", "sim": "mujoco"}, "runs on cpu"),
        ({"colour": "red"}, "can't take the options .*colour"),
    ],
)
def test_mistakes_about_device_and_options_are_named_in_one_line(arguments, words):
    with pytest.raises(tasks.TaskError, match=words) as caught:
        tasks.make(**{"name": "Cartpole", "num_envs": 2, **arguments})
    assert "\n" not in str(caught.value)


def test_old_python_is_told_what_it_lacks(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 8, 18))
    with pytest.raises(tasks.TaskError, match=r"sim=mujoco needs Python 3\.11"):
        tasks.make("Ant", 2, sim="mujoco")
    with pytest.raises(tasks.TaskError, match=r"no simulator can run Ant here: .*; mujoco needs Python 3\.11"):
        tasks.make("Ant", 2)


def test_package_imports_without_mujoco_and_says_how_to_get_it():
    code = """
import sys
sys.modules["mujoco"] = None
import tasks
sys.version_info = (3, 12, 0)  # an older one lacks more than the package
try:
    tasks.make("Ant", 2, sim="mujoco")
except tasks.TaskError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install mujoco" in done.stdout, done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_importing_the_package_does_not_import_a_simulator():
    code = "import sys, tasks; print([name for name in sys.modules if name.split('.')[0] == 'mujoco'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_registered_simulator_is_found_and_auto_prefers_the_first_that_can_run():
    made = []

    def backend(name, why):
        def make(*args, **kwargs):
            made.append((name, kwargs))
            return SimpleNamespace(step=None)

        return tasks.Backend(name, "cpu", lambda: why, make)

    before = dict(simulator.BACKENDS)

    class Anywhere(tasks.Cartpole):
        simulators = ("fast", "broken", "mujoco")

    tasks.register("Anywhere", Anywhere)
    try:
        tasks.register_simulator(backend("fast", None), first=True)
        tasks.register_simulator(backend("broken", "lacks a wheel: pip install wheel"), first=True)
        tasks.make("Anywhere", 3, seed=5)
        assert made == [("fast", {"device": torch.device("cpu"), "seed": 5, "threads": None})]
        with pytest.raises(tasks.TaskError, match="sim=broken lacks a wheel"):
            tasks.make("Anywhere", 3, sim="broken")
        with pytest.raises(tasks.TaskError, match="Cartpole doesn't run on sim=fast"):
            tasks.make("Cartpole", 3, sim="fast")
    finally:
        tasks.registry._TASKS.pop("Anywhere")
        simulator.BACKENDS.clear()
        simulator.BACKENDS.update(before)
