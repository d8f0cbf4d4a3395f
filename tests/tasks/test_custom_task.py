"""A task of one's own is one short file: model, start, observation, reward, and its name."""

import math

import pytest
import torch

import tasks
from tasks.check import check

pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")


class Pendulum(tasks.Task):
    """Swing a pole up and hold it there."""

    obs_dim, action_dim, max_episode_steps = 3, 1, 200

    def mjcf(self):
        return """
        <mujoco>
          <option timestep="0.01" integrator="implicitfast"/>
          <worldbody>
            <light pos="0 -2 3" dir="0 .5 -1"/>
            <body pos="0 0 1">
              <joint name="hinge" axis="0 1 0" damping=".05"/>
              <geom type="capsule" fromto="0 0 0 0 0 .5" size=".03" mass="1"/>
            </body>
          </worldbody>
          <actuator><motor joint="hinge" gear="2" ctrlrange="-1 1"/></actuator>
        </mujoco>"""

    def reset(self, sampler):
        return tasks.Start(sampler.uniform(-3.14, 3.14, 1), sampler.uniform(-1.0, 1.0, 1))

    def observe(self, state, memory):
        return torch.cat((state.qpos.cos(), state.qpos.sin(), state.qvel), dim=1)

    def judge(self, state, obs, action, memory):
        reward = obs[:, 0] - 0.01 * obs[:, 2] ** 2 - 0.001 * action[:, 0] ** 2
        return reward, torch.zeros_like(reward, dtype=torch.bool)


@pytest.fixture(autouse=True)
def registered():
    tasks.register("Pendulum", Pendulum)
    yield
    tasks.registry._TASKS.pop("Pendulum")


def test_custom_task_runs_everywhere_a_task_does():
    found = check("Pendulum", num_envs=16)
    assert found["zero"]["episode_length"] == 200
    # Left alone it hangs, most of the time below the hinge: cos < 0.
    assert -200 < found["zero"]["episode_return"] < 0
    env = tasks.make("Pendulum", 4)
    copy = tasks.make("Pendulum", 4, seed=1)
    copy.load_state_dict(env.state_dict())
    assert torch.equal(env.step(torch.ones(4, 1)).obs, copy.step(torch.ones(4, 1)).obs)


def test_custom_task_obeys_its_equation():
    env = tasks.make("Pendulum", 1)
    env.simulator.batch.qpos[:], env.simulator.batch.qvel[:] = math.pi / 2, 0
    obs = env.step(torch.zeros(1, 1)).next_obs
    # Level and at rest: m g l / I, a capsule of .5 m and radius .03 about its end, for .02 s.
    rod, ball = math.pi * 0.03**2 * 0.5, 4 / 3 * math.pi * 0.03**3
    density, hemisphere = 1 / (rod + ball), 3 / 8 * 0.03
    inertia = density * (
        rod * (0.03**2 / 4 + 0.5**2 / 3)
        + ball * (2 / 5 * 0.03**2 + (0.5**2 + 0.5 * 2 * hemisphere) / 2)
    )
    assert float(obs[0, 2]) == pytest.approx(9.81 * 0.25 / inertia * 0.02, rel=0.02)


def test_wrong_obs_dim_is_reported_at_once():
    class Wrong(Pendulum):
        obs_dim = 4

    tasks.register("Wrong", Wrong)
    try:
        with pytest.raises(tasks.TaskError, match=r"gave \(2, 3\), but obs_dim = 4"):
            tasks.make("Wrong", 2)
    finally:
        tasks.registry._TASKS.pop("Wrong")


class Told(Pendulum):
    """The critic is told the state itself, the policy two numbers of it."""

    critic_obs_dim = 2

    def observe_critic(self, state, memory):
        return torch.cat((state.qpos, state.qvel), 1)


def test_critic_may_be_told_more_than_the_policy():
    tasks.register("Told", Told)
    try:
        env, plain = tasks.make("Told", 3, seed=5), tasks.make("Pendulum", 3, seed=5)
        assert (env.critic_obs_dim, plain.critic_obs_dim, plain.critic_obs) == (2, 0, None)
        for ended in (False, True):
            first = plain.reset()
            assert torch.equal(env.reset(), first)
            torch.testing.assert_close(env.critic_obs[:, 0].cos(), first[:, 0])
            for _ in range(200 if ended else 3):
                step, same = env.step(torch.ones(3, 1)), plain.step(torch.ones(3, 1))
                assert torch.equal(step.obs, same.obs) and torch.equal(step.next_obs, same.next_obs)
                assert same.critic_obs is same.next_critic_obs is None
                for obs, told in ((step.obs, step.critic_obs), (step.next_obs, step.next_critic_obs)):
                    torch.testing.assert_close(torch.stack((told[:, 0].cos(), told[:, 0].sin()), 1), obs[:, :2])
                    torch.testing.assert_close(told[:, 1], obs[:, 2])
            if ended:  # after the time limit obs belongs to the next episode, next_obs to the last one
                assert step.truncated.all() and not torch.equal(step.critic_obs, step.next_critic_obs)
        saved = env.state_dict()
        told = env.step(torch.ones(3, 1)).critic_obs
        env.load_state_dict(saved)
        assert torch.equal(env.step(torch.ones(3, 1)).critic_obs, told)
    finally:
        tasks.registry._TASKS.pop("Told")


def test_model_that_does_not_compile_is_reported_in_one_line():
    class Broken(Pendulum):
        def mjcf(self):
            return "<mujoco><worldbody><geom/></worldbody></mujoco>"

    tasks.register("Broken", Broken)
    try:
        with pytest.raises(tasks.TaskError, match="model of Broken does not compile") as caught:
            tasks.make("Broken", 2)
        assert "\n" not in str(caught.value)
    finally:
        tasks.registry._TASKS.pop("Broken")
