"""The contract of a step: ends, terminal observations, divergence, determinism, saving and restoring."""

import numpy as np
import pytest
import torch

import tasks

pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")
ALL = ["Ant", "BallBalance", "Cartpole", "Humanoid"]


class Slide(tasks.Task):
    """A block on a frictionless rail that drifts at 1 m/s; its episode ends beyond `wall` metres or at 6 steps."""

    obs_dim, action_dim, max_episode_steps = 2, 1, 6
    substeps = 1

    def __init__(self, wall=float("inf")):
        self.wall = wall

    def mjcf(self):
        return """
        <mujoco><option timestep="0.1" gravity="0 0 0"/>
          <worldbody><body><joint name="rail" type="slide" axis="1 0 0"/><geom size=".1" mass="1"/></body></worldbody>
          <actuator><motor joint="rail" ctrlrange="-1 1"/></actuator>
        </mujoco>"""

    def reset(self, sampler):
        return tasks.Start(sampler.uniform(0.0, 0.0, 1), sampler.uniform(1.0, 1.0, 1))

    def observe(self, state, memory):
        return torch.cat((state.qpos, state.qvel), dim=1)

    def judge(self, state, obs, action, memory):
        return obs[:, 0], obs[:, 0] > self.wall


@pytest.fixture
def slide():
    tasks.register("Slide", Slide)
    yield lambda **options: tasks.make("Slide", 3, **options)
    tasks.registry._TASKS.pop("Slide")


def still(env):
    return torch.zeros(env.num_envs, env.action_dim)


def random_actions(env, steps, seed=0):
    source = torch.Generator().manual_seed(seed)
    return [torch.rand(env.num_envs, env.action_dim, generator=source) * 2 - 1 for _ in range(steps)]


def test_episode_is_truncated_after_exactly_its_limit(slide):
    env = slide()
    for episode in range(2):
        for count in range(1, 7):
            step = env.step(still(env))
            assert step.truncated.tolist() == [count == 6] * 3, (episode, count)
            assert not step.terminated.any()
            assert step.valid.all()
            # 0.1 m per step of 0.1 s; the successor is the true one also at the limit, what follows starts at 0.
            torch.testing.assert_close(step.next_obs[:, 0], torch.full((3,), 0.1 * count))
            torch.testing.assert_close(step.obs[:, 0], torch.full((3,), 0.0 if count == 6 else 0.1 * count))


def test_end_on_the_last_step_is_terminated_and_not_truncated(slide):
    env = slide(wall=0.55)  # passed on the sixth step of six
    for _ in range(6):
        step = env.step(still(env))
    assert step.terminated.all()
    assert not step.truncated.any()


@pytest.mark.parametrize(
    "seed, ends", [(1, [0, 1, 0, 1]), ([1, 2, 3], [[0, 0, 0], [0, 0, 1], [0, 0, 0], [1, 1, 1]])], ids=["one", "three"]
)
def test_starts_are_drawn_in_steps_alone_in_which_an_episode_ends(slide, seed, ends):
    env = slide(seed=seed)  # a set, or three, of three environments, of which the very last has less far to the wall
    env.task.wall = 0.35
    env.simulator.batch.qpos[-1, 0] = 0.2
    drawn = []
    for _ in range(4):
        before = env.state_dict()["generator"]
        env.step(still(env))
        drawn.append((env.state_dict()["generator"] != before).any(-1).tolist())
    assert drawn == ends


def test_whoever_diverged_in_any_control_step_of_an_action_is_no_transition(monkeypatch):
    env = tasks.make("FrankaPush", 3)
    step, same, calls = env.simulator.step, torch.zeros(3, dtype=torch.bool), []

    def diverges_at_first(ctrl):
        same.copy_(torch.tensor([False, not calls, False]))
        calls.append(1)
        return step(ctrl)[0], same

    monkeypatch.setattr(env.simulator, "step", diverges_at_first)
    found = env.step(still(env))
    assert len(calls) == 3
    assert found.valid.tolist() == [True, False, True] and found.truncated.tolist() == [False, True, False]


def test_each_environment_ends_by_itself(slide):
    env = slide(wall=0.35)
    env.simulator.batch.qpos[:, 0] = [0.0, 0.1, 0.2]
    ended = [env.step(still(env)).terminated.tolist() for _ in range(4)]
    assert ended == [[False, False, False], [False, False, True], [False, True, False], [True, False, False]]


def test_actions_beyond_the_range_are_clipped(slide):
    pushed, clipped = slide(), slide()
    for _ in range(3):
        assert torch.equal(pushed.step(still(pushed) + 7).obs, clipped.step(still(clipped) + 1).obs)


def test_action_of_a_wrong_shape_is_refused_with_both_shapes(slide):
    env = slide()
    with pytest.raises(tasks.TaskError, match=r"\(3, 1\), not \(3, 2\)"):
        env.step(torch.zeros(3, 2))


@pytest.mark.parametrize("where", ["qpos", "qvel", "action"])
@pytest.mark.parametrize("name", ["Ant", "Cartpole"])
def test_nan_ends_that_episode_alone_as_invalid(name, where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env, twin = (tasks.make(name, 8, seed=1, threads=2) for _ in range(2))
    action = still(env)
    if where == "action":
        action[5] = float("nan")
    else:
        getattr(env.simulator.batch, where)[5, 0] = float("nan")
    step, undisturbed = env.step(action), twin.step(still(twin))
    assert (~step.valid).nonzero().flatten().tolist() == [5]
    assert step.truncated[5] and not step.terminated[5]
    assert int(step.info["diverged_episodes"]) == 1
    assert all(torch.isfinite(field).all() for field in (step.obs, step.next_obs, step.reward))
    assert float(step.reward[5]) == 0
    others = [0, 1, 2, 3, 4, 6, 7]
    for field in ("obs", "reward", "terminated", "truncated", "next_obs"):
        assert torch.equal(getattr(step, field)[others], getattr(undisturbed, field)[others])
    after = env.step(still(env))
    assert after.valid.all()
    assert int(after.info["diverged_episodes"]) == 1
    assert not list(tmp_path.iterdir()), "MuJoCo left its log file in the working directory"


@pytest.mark.parametrize("name", ALL)
def test_one_seed_gives_the_same_trajectories_at_any_number_of_threads(name):
    def trajectory(threads, seed=7):
        torch.manual_seed(threads)  # global random state must not matter
        env = tasks.make(name, 24, seed=seed, threads=threads)
        return [torch.cat((s.obs, s.next_obs, s.reward[:, None]), 1) for s in map(env.step, random_actions(env, 40))]

    one, two, three = trajectory(1), trajectory(2), trajectory(3)
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(one, two, three))
    assert not torch.equal(one[-1], trajectory(1, seed=8)[-1])


@pytest.mark.parametrize("name", ALL)
def test_restored_environment_has_an_identical_future(name):
    """Across resets too: 60 random steps end episodes of every task but Ant, whose limit is brought near."""
    limit = {"Ant": 50}.get(name, 500)
    env = tasks.make(name, 16, seed=3, threads=2)
    env.max_episode_steps = limit
    actions = random_actions(env, 90)
    for action in actions[:30]:
        env.step(action)
    saved = env.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in saved.values())
    assert saved["generator"].dtype == torch.uint8
    expected = [env.step(action) for action in actions[30:]]
    assert any((step.terminated | step.truncated).any() for step in expected)

    other = tasks.make(name, 16, seed=99, threads=1)
    other.max_episode_steps = limit
    other.step(actions[0])
    assert torch.equal(other.load_state_dict(saved), saved["obs"])
    for action, want in zip(actions[30:], expected):
        got = other.step(action)
        for field in ("obs", "reward", "terminated", "truncated", "next_obs", "valid"):
            assert torch.equal(getattr(got, field), getattr(want, field)), field


def test_saved_state_is_a_copy():
    env = tasks.make("Cartpole", 4)
    saved = env.state_dict()
    before = {key: value.clone() for key, value in saved.items()}
    env.step(still(env) + 1)
    assert all(torch.equal(saved[key], before[key]) for key in saved)


def test_state_of_another_size_or_task_is_refused():
    env = tasks.make("Cartpole", 4)
    with pytest.raises(tasks.TaskError, match="Cartpole with 4 environments"):
        env.load_state_dict(tasks.make("Cartpole", 5).state_dict())
    with pytest.raises(tasks.TaskError, match="Cartpole with 4 environments"):
        env.load_state_dict(tasks.make("Ant", 4).state_dict())


@pytest.mark.parametrize("name", ALL)
def test_shapes_and_types_are_those_declared(name):
    env = tasks.make(name, 5)
    obs = env.reset()
    step = env.step(still(env))
    assert obs.shape == step.obs.shape == step.next_obs.shape == (5, env.obs_dim)
    assert {step.obs.dtype, step.next_obs.dtype, step.reward.dtype} == {torch.float32}
    assert {step.terminated.dtype, step.truncated.dtype, step.valid.dtype} == {torch.bool}
    assert step.reward.shape == step.terminated.shape == step.truncated.shape == step.valid.shape == (5,)
    assert env.dt == pytest.approx(0.01 if name == "BallBalance" else 1 / 60)
    assert {"Ant": (60, 8), "BallBalance": (24, 3), "Cartpole": (4, 1), "Humanoid": (108, 21)}[name] == (
        env.obs_dim,
        env.action_dim,
    )


def test_later_steps_leave_earlier_results_alone():
    env = tasks.make("Ant", 4)
    step = env.step(still(env))
    kept = step.obs.clone(), step.next_obs.clone(), step.info["diverged_episodes"].clone()
    env.simulator.batch.qvel[2, 0] = np.nan
    env.step(still(env) + 1)
    assert torch.equal(step.obs, kept[0]) and torch.equal(step.next_obs, kept[1])
    assert torch.equal(step.info["diverged_episodes"], kept[2])
