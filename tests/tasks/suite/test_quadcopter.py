"""Quadcopter: it hovers on its own weight, and its numbers against a slow recomputation."""

import math

import numpy as np
import pytest
import torch

import tasks

mujoco = pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")

MASS = math.pi * (0.1**2 * 0.03 * 50 + 4 * 0.04**2 * 0.01 * 1000) + 4 * 4 / 3 * math.pi * 0.01**3 * 200


@pytest.fixture
def craft():
    model = mujoco.MjModel.from_xml_string(tasks.Quadcopter().mjcf())
    return model, mujoco.MjData(model)


def test_it_weighs_what_its_sizes_say_and_tilts_by_thirty_degrees(craft):
    model, _ = craft
    assert model.body_mass.sum() == pytest.approx(MASS, rel=1e-9)
    np.testing.assert_allclose(np.degrees(model.jnt_range[1:]), np.tile([-30, 30], (8, 1)))


@pytest.mark.parametrize("share, climb", [(1.0, 0.0), (1.1, 0.981), (0.0, -9.81)])
def test_thrust_of_its_weight_holds_it_and_more_lifts_it(craft, share, climb):
    model, data = craft
    data.qpos[2] = 5.0
    data.ctrl[8:] = share * MASS * 9.81 / 4
    for _ in range(200):  # one second
        mujoco.mj_step(model, data)
    assert data.qvel[2] == pytest.approx(climb, abs=1e-4)
    np.testing.assert_allclose(data.qpos[[0, 1]], 0, atol=1e-6)


def test_rotors_that_lean_push_it_aside_and_hinges_obey_within_50_ms(craft):
    model, data = craft
    data.qpos[2] = 5.0
    # Arms at 45 + 90 i degrees pitch about their own y: 0 and 3 one way, 1 and 2 the other push along +x together.
    data.ctrl[:8:2] = [0.2, -0.2, -0.2, 0.2]
    data.ctrl[8:] = MASS * 9.81 / 4
    for _ in range(10):
        mujoco.mj_step(model, data)
    np.testing.assert_allclose(data.qpos[7::2], data.ctrl[:8:2], atol=0.01)
    for _ in range(10):
        mujoco.mj_step(model, data)
    assert data.qvel[0] > 0.05 and abs(data.qvel[1]) < 0.01


def slow_obs(robot):
    position, rotation, _, own = robot.body("chassis")
    w, x, y, z = robot.data.qpos[3:7]
    obs = [*((np.array([0, 0, 1]) - position) / 3), x, y, z, w, *(robot.data.qvel[:3] / 2)]
    return np.clip([*obs, *(rotation @ own / math.pi), *robot.data.qpos[7:]], -5, 5)


def test_step_equals_a_slow_recomputation_from_plain_mujoco(single, actions):
    env = tasks.make("Quadcopter", 3, seed=3)
    robots = [single(env, index) for index in range(3)]
    targets, thrusts, ends = [robot.data.qpos[7:].copy() for robot in robots], np.zeros((3, 4)), 0
    for raw in actions(env, 250):
        step = env.step(raw)
        for index, robot in enumerate(robots):
            action = np.clip(raw[index].numpy(), -1, 1)
            targets[index] = np.clip(targets[index] + 0.08 * math.pi * action[:8], -math.pi / 6, math.pi / 6)
            thrusts[index] = np.clip(thrusts[index] + 2 * action[8:], 0, 2)
            robot.step([*targets[index], *thrusts[index]])
            obs = slow_obs(robot)
            np.testing.assert_allclose(step.next_obs[index], obs, rtol=1e-3, atol=1e-4)
            position, rotation, _, own = robot.body("chassis")
            away, up, spin = np.linalg.norm(position - [0, 0, 1]), rotation[2, 2], (rotation @ own)[2]
            near = 1 / (1 + away**2)
            reward = near + near * (1 / (1 + (1 - up) ** 2) + 1 / (1 + spin**2))
            assert float(step.reward[index]) == pytest.approx(reward, abs=2e-3)
            assert bool(step.terminated[index]) == (away > 3 or position[2] < 0.3)
            if step.terminated[index]:
                ends += 1
                robot.restart()
                targets[index], thrusts[index] = robot.data.qpos[7:].copy(), 0
                np.testing.assert_allclose(step.obs[index], slow_obs(robot), atol=1e-6)
            else:  # the two must not part by what float32 makes of a control
                robot.data.qpos[:] = env.simulator.batch.qpos[index]
                robot.data.qvel[:] = env.simulator.batch.qvel[index]
    assert ends > 0


def test_reset_scatters_it_about_the_target():
    stats = pytest.importorskip("scipy.stats")
    env = tasks.make("Quadcopter", 4096, seed=6)
    qpos = env.simulator.batch.qpos
    # False alarms: 4 tests at 1e-4.
    for values, low, high in ((qpos[:, 0], -1.5, 1.5), (qpos[:, 1], -1.5, 1.5), (qpos[:, 2], 0.8, 2.5)):
        assert stats.kstest(values, "uniform", args=(low, high - low)).pvalue > 1e-4
    assert stats.kstest(qpos[:, 7:].ravel(), "uniform", args=(-0.2, 0.4)).pvalue > 1e-4
    assert (env._memory["thrust"] == 0).all()
    assert torch.equal(env._memory["target"], torch.from_numpy(qpos[:, 7:]).float())
