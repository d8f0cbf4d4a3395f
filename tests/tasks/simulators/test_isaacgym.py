"""IsaacGymEnvs' habits behind the contract of a step, its tasks' names, and the words for what may be missing.

The worlds are those of tests/isaacgym_standin/small: an observation says (environment, episode, step), and
`ends_at` when and how each episode ends. So what a step must say can be derived without the adapter.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import tasks
from tasks.simulators import base as simulator
from tasks.simulators import isaacgym
from tasks.simulators.isaacgym_env import IsaacGymEnv

STANDIN = Path(__file__).resolve().parents[2] / "isaacgym_standin"
ENVS, LIMIT = 9, 12
FROM_THE_FIRST = ("ClockPostReset", "ClockSameReset")  # the others show an episode from its second observation on
HABITS = ["ClockPostReset", "ClockPreReset", "ClockSameReset", "ClockNoReset"]

without_isaac_gym = pytest.mark.skipif(
    importlib.util.find_spec("isaacgym") is not None or importlib.util.find_spec("isaacgymenvs") is not None,
    reason="says what is told where Isaac Gym is missing, and here it is installed",
)


@pytest.fixture
def world(standin):
    """`world(name, falls=True)`: a counting world behind the adapter, and its module."""

    def make(name, **env):
        clocks = standin.clocks()
        cfg = {"env": {"numEnvs": ENVS, "episodeLength": LIMIT, **env}}
        return IsaacGymEnv(name, getattr(clocks, name)(cfg, "cpu", "cpu", 0, True, False, False), "cpu"), clocks

    return make


def play(env, steps):
    """[(observations acted in, action, step)], with everything copied."""
    source = torch.Generator().manual_seed(0)
    obs, found = env.reset().clone(), []
    for _ in range(steps):
        action = torch.rand(env.num_envs, env.action_dim, generator=source) * 2 - 1
        step = env.step(action)
        found.append((obs, action, tasks.Step(*(f.clone() if isinstance(f, torch.Tensor) else f for f in step))))
        obs = step.obs.clone()
    return found


@pytest.mark.parametrize("habit", HABITS)
def test_valid_steps_are_transitions_of_one_episode_and_nothing_ends_twice(world, habit):
    env, clocks = world(habit)
    last, ended = LIMIT - 1, set()
    falls_seen = False
    for before, action, step in play(env, 80):
        falls_seen = falls_seen or bool(step.terminated.any())
        assert not (step.terminated & step.truncated).any()
        for e in range(ENVS):
            _, episode, age, _ = before[e].tolist()
            _, next_episode, next_age, pulse = step.next_obs[e].tolist()
            end, fell = clocks.ends_at(e, int(episode), LIMIT)
            over = bool(step.terminated[e] or step.truncated[e])
            if over:
                assert (e, episode) not in ended, "an episode ended twice"
                ended.add((e, episode))
            if step.valid[e]:
                assert float(step.reward[e]) == clocks.reward_of(e, int(episode), int(age) + 1)
                assert bool(step.terminated[e]) == (fell and age + 1 == end < last)
                if habit == "ClockSameReset" and over:
                    assert step.terminated[e]  # bootstraps from nothing
                    assert torch.equal(step.next_obs[e], before[e])
                else:
                    assert (next_episode, next_age) == (episode, age + 1)
                    assert pulse == pytest.approx(float(action[e].sum()), abs=1e-5)
            # a flag on the last step may hide a fall, and this world has them
            assert not (step.valid[e] and step.truncated[e] and falls_seen)
    assert len(ended) > 40
    kinds = {clocks.ends_at(e, int(k), LIMIT) for e, k in ended}
    assert kinds >= {(last, True), (last, False)}
    assert ((1, True) in kinds) == (habit in FROM_THE_FIRST)


@pytest.mark.parametrize("habit", HABITS)
def test_every_step_of_an_episode_that_can_be_learned_from_is(world, habit):
    """None is lost but the reset's own, the last one where its flag may hide a fall, and a lost terminal's."""
    env, clocks = world(habit)
    seen, finished = {}, {}
    steps = play(env, 80)
    for before, _, step in steps:
        for e in range(ENVS):
            _, episode, age, _ = before[e].tolist()
            if step.valid[e]:
                seen.setdefault((e, int(episode)), set()).add(int(age) + 1)
            if step.terminated[e] or step.truncated[e]:
                finished[e, int(episode)] = True
    first = 1 if habit in FROM_THE_FIRST else 2
    checked = 0
    for e, episode in finished:
        if episode == int(steps[0][0][e, 1]):
            continue  # of the first one part was played by `reset`
        end, _ = clocks.ends_at(e, episode, LIMIT)
        last = LIMIT - 1
        learned = set(range(first, end + 1 if end < last else end))
        assert seen.get((e, episode), set()) == learned, (e, episode)
        checked += 1
    assert checked > 30


@pytest.mark.parametrize("habit", ["ClockPostReset", "ClockPreReset", "ClockSameReset"])
def test_time_limits_of_a_task_without_falls_are_truncations(world, habit):
    env, _ = world(habit, falls=False)
    limits = [step for _, _, step in play(env, 40) if step.truncated.any()]
    assert len(limits) >= 2
    for step in limits:
        assert step.truncated.all() and not step.terminated.any()
        if habit == "ClockSameReset":  # the terminal observation is lost: there is nothing right to bootstrap from
            assert not step.valid.any()
        else:
            assert step.valid.all()
            assert (step.next_obs[:, 2] == LIMIT - 1).all()


@pytest.mark.parametrize("habit", HABITS)
def test_reset_begins_an_episode_everywhere(world, habit):
    env, _ = world(habit)
    for _ in range(3):
        episodes = env.reset()[:, 1].clone()
        for _ in range(2):
            env.step(torch.zeros(ENVS, 2))
        assert (env.reset()[:, 1] > episodes).all()


def test_reset_step_brings_no_reward_and_no_end(world):
    env, _ = world("ClockPostReset")
    joined = [step for _, _, step in play(env, 60)]
    resets = [
        (float(now.reward[e]), bool(now.terminated[e] | now.truncated[e]), bool(now.valid[e]))
        for last, now in zip(joined, joined[1:])
        for e in range(ENVS)
        if last.terminated[e] or last.truncated[e]
    ]
    assert len(resets) > 30
    assert set(resets) == {(0.0, False, False)}


def test_results_are_copies_of_the_tasks_live_buffers(world):
    env, _ = world("ClockPostReset")
    step = env.step(torch.zeros(ENVS, 2))
    kept = step.obs.clone(), step.next_obs.clone(), step.reward.clone()
    action = torch.full((ENVS, 2), 5.0)
    env.step(action)
    assert torch.equal(step.obs, kept[0]) and torch.equal(step.next_obs, kept[1]) and torch.equal(step.reward, kept[2])
    assert (action == 5.0).all()  # clipped for the task, not for the caller
    assert (env.task.obs_buf[:, 3] == 2.0).all()


@pytest.mark.parametrize("habit", ["ClockPostReset", "ClockPreReset", "ClockSameReset"])
def test_row_that_leaves_the_finite_numbers_ends_invalid_and_recovers(world, habit):
    env, _ = world(habit, falls=False)
    observe = env.task.observe

    def spoilt():
        observe()
        env.task.obs_buf[4] = float("nan")

    env.task.observe = spoilt
    step = env.step(torch.zeros(ENVS, 2))
    env.task.observe = observe
    assert (~step.valid).nonzero().flatten().tolist() == [4]
    assert step.truncated[4] and not step.terminated[4] and float(step.reward[4]) == 0
    assert int(step.info["diverged_episodes"]) == 1
    assert torch.isfinite(step.obs).all() and torch.isfinite(step.next_obs).all()
    episode = int(env.task.episode[4])
    for _ in range(3):
        step = env.step(torch.zeros(ENVS, 2))
    assert step.valid.all() and int(step.obs[4, 1]) > episode - (habit != "ClockSameReset")
    assert int(step.info["diverged_episodes"]) == 1


def test_observations_in_a_dictionary_are_refused_in_one_line(world):
    env, _ = world("ClockPostReset")
    env.task.step = lambda action: ({"depth": action, "pose": action}, action[:, 0], action[:, 0], {})
    with pytest.raises(tasks.TaskError, match=r"observations as \['depth', 'pose'\]") as caught:
        env.step(torch.zeros(ENVS, 2))
    assert "\n" not in str(caught.value)


# --- names and what may be missing ------------------------------------------------------------------------------


@pytest.fixture
def small(standin, monkeypatch):
    """Both stand-ins on the path of this process; what a test changes of them is forgotten."""
    monkeypatch.syspath_prepend(str(STANDIN))
    monkeypatch.syspath_prepend(str(standin.SMALL))
    return standin


def test_names_are_those_of_the_installed_files(small):
    assert tasks.brought() == [
        "Cartpole", "ClockLong", "ClockNoReset", "ClockPostReset", "ClockPreReset", "ClockSameReset", "ClockSubtasks",
    ]  # fmt: skip
    assert "Trifinger" not in tasks.list()
    assert isaacgym.config_file("ClockLong") == "ClockLong"


@without_isaac_gym
def test_nothing_is_brought_where_isaacgymenvs_is_missing():
    assert tasks.brought() == []


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"name": "cartpol"}, "IsaacGymEnvs has no task 'cartpol'; did you mean Cartpole"),
        ({"name": "ClockBase"}, "has no task 'ClockBase'"),
        ({"num_envs": -4}, "at least 1, not -4"),
        ({"colour": "red"}, "takes task.cfg.<field>=..., not the options .*colour"),
        ({"device": "cuda:99"}, "finds no GPU|CUDA devices"),
        ({"device": "meta"}, "runs on cuda, not on meta|finds no GPU"),
    ],
)
def test_mistakes_are_named_in_one_line_before_a_simulator_starts(small, arguments, words):
    values = {"name": "Cartpole", "num_envs": 2, "sim": "isaacgym", "device": "cpu", **arguments}
    with pytest.raises(tasks.TaskError, match=words) as caught:
        tasks.make(**values)
    assert "\n" not in str(caught.value)


def test_field_that_the_tasks_file_lacks_is_refused_with_the_nearest(small):
    with pytest.raises(tasks.TaskError, match=r"task.cfg.env.episodeLenght.*did you mean task.cfg.env.episodeLength"):
        tasks.make("Cartpole", 2, sim="isaacgym", device="cpu", cfg={"env": {"episodeLenght": 5}})


def test_subtask_brings_the_settings_of_its_own_file_and_another_is_refused(small):
    """AllegroKuka's throw has a shorter episode than its reorientation, say."""

    def limit(**env):
        made = tasks.make("ClockSubtasks", 2, sim="isaacgym", device="cpu", cfg={"env": env})
        made.close()
        return made.max_episode_steps

    assert (limit(subtask="long"), limit(subtask="long", episodeLength=7)) == (40, 7)
    with pytest.raises(tasks.TaskError, match=r"task.cfg.env.subtask=middle: ClockSubtasks has long, short$"):
        limit(subtask="middle")


@pytest.mark.parametrize(
    "field, num_envs, words",
    [("multipleOf", 7, "refused 7 environments .*give num_envs and eval_episodes as multiples"),
     ("memoryFor", 100, "CUDA out of memory.*too small for 100 environments; try num_envs=50$")],
)  # fmt: skip
def test_number_of_environments_that_a_task_cannot_make_is_refused_with_the_remedy(small, field, num_envs, words):
    with pytest.raises(tasks.TaskError, match=words) as caught:
        tasks.make("ClockSubtasks", num_envs, sim="isaacgym", device="cpu", cfg={"env": {field: 6}})
    assert "\n" not in str(caught.value)


def test_folder_that_is_no_whole_checkout_is_named_with_the_remedy(small, tmp_path, monkeypatch):
    (tmp_path / "isaacgymenvs").mkdir()
    (tmp_path / "isaacgymenvs" / "__init__.py").write_text("")  # as an install without -e leaves it
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(tasks.TaskError, match=r"finds no cfg/task in .*isaacgymenvs.*: clone .*install -e it$"):
        tasks.make("Cartpole", 2, sim="isaacgym", device="cpu")


def test_environment_in_its_own_process_takes_overrides_and_one_seed_gives_one_trajectory(small):
    def trajectory(seed):
        env = tasks.make("Cartpole", 5, sim="isaacgym", device="cpu", seed=seed, cfg={"env": {"episodeLength": 7}})
        try:
            assert (env.num_envs, env.obs_dim, env.action_dim, env.max_episode_steps) == (5, 4, 1, 7)
            assert "isaacgym" not in sys.modules
            steps = [env.step(torch.full((5, 1), 0.1)) for _ in range(5)]
            return env.reset().clone(), steps[-1].next_obs.clone()
        finally:
            env.close()

    one, again, other = trajectory(1), trajectory(1), trajectory(2)
    assert all(torch.equal(a, b) for a, b in zip(one, again))
    assert not torch.equal(one[0], other[0])


def test_auto_prefers_isaacgym_where_it_can_run_and_the_device_is_its_own(small, monkeypatch):
    made = []

    def backend(name, what):
        def make(*args, **kwargs):
            made.append((name, what(args)))
            return SimpleNamespace(step=None)

        return simulator.BACKENDS[name]._replace(unavailable=lambda: None, make=make)

    fakes = {"isaacgym": backend("isaacgym", lambda args: args), "mujoco": backend("mujoco", lambda args: args[0])}
    monkeypatch.setattr("tasks.simulators.base.BACKENDS", fakes)
    monkeypatch.setattr("tasks.registry.BACKENDS", fakes)
    monkeypatch.setattr("tasks.registry._device", lambda backend, device: torch.device("cpu"))
    tasks.make("Cartpole", 3)
    tasks.make("Cartpole", 3, device="cuda", cfg={"env": {}})
    tasks.make("Cartpole", 3, device="cpu")
    tasks.make("Ant", 3)  # which this IsaacGymEnvs lacks
    tasks.make("ClockLong", 3)
    assert made == [
        ("isaacgym", ("Cartpole", {}, 3)), ("isaacgym", ("Cartpole", {"cfg": {"env": {}}}, 3)), ("mujoco", "Cartpole"),
        ("mujoco", "Ant"), ("isaacgym", ("ClockLong", {}, 3)),
    ]  # fmt: skip
    asked = tasks.chosen("Cartpole"), tasks.chosen("Cartpole", device="cpu"), tasks.chosen("Ant")
    assert asked == ("isaacgym", "mujoco", "mujoco")


def package(folder, name, binding=None):
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("raise RuntimeError('imported')")
    if binding:
        (folder / name / "_bindings" / "linux-x86_64").mkdir(parents=True)
        (folder / name / "_bindings" / "linux-x86_64" / binding).write_text("")


@without_isaac_gym
def test_each_thing_missing_is_named_with_its_remedy_and_nothing_is_imported(tmp_path, monkeypatch):
    import numpy

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(sys, "version_info", (3, 11, 2))
    assert "needs Python 3.8" in isaacgym.unavailable()
    monkeypatch.setattr(sys, "version_info", (3, 8, 18))
    assert "is not installed: download Isaac Gym Preview 4" in isaacgym.unavailable()
    package(tmp_path, "isaacgym", "gym_38.so")
    importlib.invalidate_caches()
    monkeypatch.setattr(sys, "version_info", (3, 11, 2))
    assert "no binding for Python" in isaacgym.unavailable()
    monkeypatch.setattr(sys, "version_info", (3, 8, 18))
    monkeypatch.setattr(isaacgym, "_libpython", lambda: False)
    assert "LD_LIBRARY_PATH" in isaacgym.unavailable()
    monkeypatch.setattr(isaacgym, "_libpython", lambda: True)
    monkeypatch.setattr(numpy, "__version__", "1.24.4")
    assert "pip install numpy==1.23.5 (this is 1.24.4)" in isaacgym.unavailable()
    monkeypatch.setattr(numpy, "__version__", "1.23.5")
    assert "lacks IsaacGymEnvs" in isaacgym.unavailable()
    package(tmp_path, "isaacgymenvs")
    importlib.invalidate_caches()
    assert isaacgym.unavailable() is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(Path, "read_text", _missing)
    assert "finds no GPU" in isaacgym.unavailable()
    assert isaacgym.unavailable("cpu") is None
    old = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  450.80.02  Wed Sep 23 2020\nGCC version: 9"
    monkeypatch.setattr(Path, "read_text", lambda self: old)
    assert "driver (450.80.02)" in isaacgym.unavailable() and "update the NVIDIA driver" in isaacgym.unavailable()


def _missing(self):
    raise FileNotFoundError(self)


@pytest.mark.parametrize(
    "error, words",
    [
        (ImportError("libpython3.8.so.1.0: cannot open shared object file: No such file"), "LD_LIBRARY_PATH"),
        (ModuleNotFoundError("No module named 'isaacgym'"), "is not installed: download"),
        (ModuleNotFoundError("No module named 'warp'"), "pip install warp-lang"),
        (ModuleNotFoundError("No module named 'urdfpy'"), "pip install urdfpy"),
        (ModuleNotFoundError("No module named '_tkinter'"), "apt-get install python3-tk"),
        (AttributeError("module 'numpy' has no attribute 'float'"), "pip install numpy==1.23.5"),
        (RuntimeError("CUDA driver version is insufficient for CUDA runtime version"), "update the NVIDIA driver"),
        (RuntimeError("No CUDA GPUs are available"), "finds"),
        (RuntimeError("Ninja is required to load C++ extensions"), "pip install ninja"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "try num_envs=2048"),
        (SystemExit(None), "try num_envs=2048"),
        (ValueError("Unknown subtask=throw in {'regrasping': 0}"), "refused task.cfg.env.subtask .*in {'regrasping'"),
        (AssertionError("num_envs must be a multiple of 6"), "refused 4096 environments .*of 6.*give num_envs"),
        (ImportError("PyTorch was imported before isaacgym modules."), "sitecustomize"),
    ],
)
def test_each_known_failure_is_explained_in_one_line(error, words):
    said = isaacgym.explain(error, 4096)
    assert said is not None and "\n" not in said
    assert re.search(words, said), said


def test_an_unknown_failure_is_not_explained_away():
    assert isaacgym.explain(KeyError("dofVelocityScale"), 4096) is None
    assert isaacgym.explain(RuntimeError("size of tensor a (3) must match"), 4096) is None
    assert isaacgym.explain(AssertionError(), 4096) is None


def test_an_assertion_without_words_is_explained_by_its_line():
    num_envs = 7
    try:
        assert num_envs % 6 == 0
    except AssertionError as error:
        assert "refused 7 environments (AssertionError: assert" in isaacgym.explain(error, num_envs)


def test_standin_refuses_to_come_after_torch(standin):
    """As the original does; so the tests that run tasks on it prove the order of imports."""
    code = "import torch, isaacgym"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=standin.environment(), timeout=60
    )
    assert "isaacgym comes first" in done.stderr
