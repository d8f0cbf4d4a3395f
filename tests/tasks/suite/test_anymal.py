"""Anymal: it weighs what the real one does and stands, and its numbers against a slow recomputation."""

import math

import numpy as np
import pytest

import tasks

mujoco = pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")

POSE = [0.03, 0.4, -0.8, 0.03, -0.4, 0.8, -0.03, 0.4, -0.8, -0.03, -0.4, 0.8]  # LF, LH, RF, RH


@pytest.fixture
def robot():
    model = mujoco.MjModel.from_xml_string(tasks.Anymal().mjcf())
    data = mujoco.MjData(model)
    data.qpos[7:] = data.ctrl[:] = POSE
    return model, data


def test_masses_and_limits_are_the_public_ones_and_sides_mirror_each_other(robot):
    model, _ = robot
    assert model.body_mass.sum() == pytest.approx(52.135, abs=1e-3)
    np.testing.assert_allclose(model.jnt_range[1], [-0.72, 0.49], atol=1e-5)
    np.testing.assert_allclose(model.jnt_range[7], [-0.49, 0.72], atol=1e-5)
    np.testing.assert_allclose(model.jnt_range[[2, 3]], [[-9.42, 9.42]] * 2, atol=5e-3)
    np.testing.assert_allclose(model.actuator_forcerange, [[-80, 80]] * 12)
    whole = mujoco.MjData(model)
    mujoco.mj_forward(model, whole)
    centre = whole.subtree_com[1] - whole.qpos[:3]
    assert abs(centre[1]) < 1e-3 and abs(centre[0]) < 0.02  # the base's own is 1.8 cm behind its middle


def test_it_stands_for_ten_seconds_on_four_feet_that_carry_its_weight(robot):
    model, data = robot
    for step in range(1000):
        mujoco.mj_step(model, data)
        if step == 300:
            settled = data.qpos[:3].copy()
    assert 0.50 < data.qpos[2] < 0.55
    np.testing.assert_allclose(data.qpos[:3], settled, atol=0.005)  # feet don't creep
    assert {model.body(model.geom_bodyid[max(contact.geom)]).name[3:] for contact in data.contact} == {"SHANK"}
    forces = np.zeros(6)
    lift = 0.0
    for number in range(data.ncon):
        mujoco.mj_contactForce(model, data, number, forces)
        lift += forces[0]
    assert lift == pytest.approx(52.135 * 9.81, rel=0.01)
    assert (data.sensordata[:5] == 0).all()
    drives = 85 * (data.ctrl - data.qpos[7:]) - 2 * data.qvel[6:]
    np.testing.assert_allclose(data.sensordata[5:], drives, atol=0.05)  # one substep apart


def test_on_its_back_the_base_feels_the_floor_and_the_episode_ends():
    env = tasks.make("Anymal", 2, seed=1)
    env.simulator.batch.qpos[1, 2:7] = [0.3, 0, 1, 0, 0]  # turned over
    from_pose = env._action * 0
    for _ in range(40):
        step = env.step(from_pose)
        assert not step.terminated[0]
        if step.terminated[1]:
            return
    raise AssertionError("lying on its back, and the episode goes on")


def slow_obs(robot, command, action):
    _, rotation, linear, angular = robot.body("base")
    obs = [*(2 * linear), *(0.25 * angular), *(rotation.T @ [0, 0, -1]), 2 * command[0], 2 * command[1]]
    obs += [0.25 * command[2], *(robot.data.qpos[7:] - POSE), *(0.05 * robot.data.qvel[6:]), *action]
    return np.clip(obs, -5, 5)


def test_step_equals_a_slow_recomputation_from_plain_mujoco(single, actions):
    env = tasks.make("Anymal", 3, seed=4)
    robots, ends = [single(env, index) for index in range(3)], 0
    commands = env._memory["command"].numpy().copy()
    assert (np.abs(commands) <= [2, 1, 1]).all()
    for raw in actions(env, 220):
        step = env.step(raw)
        for index, robot in enumerate(robots):
            action, command = np.clip(raw[index].numpy(), -1, 1), commands[index]
            robot.step(np.float32(POSE) + np.float32(0.5) * action)
            _, _, linear, angular = robot.body("base")
            np.testing.assert_allclose(step.next_obs[index], slow_obs(robot, command, action), rtol=2e-4, atol=2e-4)
            reward = math.exp(-((command[0] - linear[0]) ** 2 + (command[1] - linear[1]) ** 2) / 0.25)
            reward += 0.5 * math.exp(-((command[2] - angular[2]) ** 2) / 0.25) - 2.5e-5 * (robot.sensors[5:] ** 2).sum()
            assert float(step.reward[index]) == pytest.approx(0.02 * max(reward, 0), abs=2e-5)
            assert bool(step.terminated[index]) == bool((robot.sensors[:5] > 1).any())
            if step.terminated[index]:
                ends += 1
                robot.restart()
                commands[index] = env._memory["command"][index].numpy()
                expected = slow_obs(robot, commands[index], np.zeros(12))
                np.testing.assert_allclose(step.obs[index], expected, atol=1e-5)
    assert ends > 0


def test_reset_draws_commands_and_scales_the_pose():
    stats = pytest.importorskip("scipy.stats")
    env = tasks.make("Anymal", 4096, seed=5)
    command, qpos = env._memory["command"].numpy(), env.simulator.batch.qpos
    # False alarms: 4 tests at 1e-4.
    for column, most in enumerate((2.0, 1.0, 1.0)):
        assert stats.kstest(command[:, column], "uniform", args=(-most, 2 * most)).pvalue > 1e-4
    assert stats.kstest((qpos[:, 7:] / POSE).ravel(), "uniform", args=(0.5, 1)).pvalue > 1e-4
    np.testing.assert_allclose(qpos[:, :7], np.tile([0, 0, 0.62, 1, 0, 0, 0], (4096, 1)), atol=1e-6)
