"""BallBalance: the mechanism holds, and its numbers against a slow recomputation."""

import math

import numpy as np
import pytest
import torch

import tasks

mujoco = pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")


def slow_obs(robot):
    q, v, sensors = robot.data.qpos, robot.data.qvel, robot.sensors
    forces, torques = sensors[:9].reshape(3, 3), sensors[9:].reshape(3, 3)  # leg, component
    driven = [robot.model.joint(f"lower_{leg}") for leg in range(3)]
    ball = robot.model.joint("ball")
    at, move = int(ball.qposadr[0]), int(ball.dofadr[0])
    obs = [q[joint.qposadr[0]] for joint in driven] + [v[joint.dofadr[0]] for joint in driven]
    obs += [*q[at : at + 3], *v[move : move + 3], *(forces[:, 0] / 20)]
    obs += [torques[leg, component] / 20 for component in range(3) for leg in range(3)]
    return np.clip(obs, -5, 5), q[at : at + 3], v[move : move + 3]


def test_step_equals_a_slow_recomputation_from_plain_mujoco(single, actions):
    env = tasks.make("BallBalance", 3, seed=3)
    robots, targets, ends = [single(env, index) for index in range(3)], np.zeros((3, 3)), 0
    for index, robot in enumerate(robots):
        np.testing.assert_allclose(env._obs[index], slow_obs(robot)[0], atol=1e-6)
    for raw in actions(env, 200):
        step = env.step(raw)
        for index, robot in enumerate(robots):
            # 0.2 rad per step, held between the limits of the hinge.
            moved = targets[index].astype(np.float32) + np.clip(raw[index].numpy(), -1, 1) * np.float32(0.2)
            targets[index] = np.clip(moved, np.float32(math.radians(-70)), np.float32(math.radians(90)))
            robot.step(targets[index])
            obs, ball, velocity = slow_obs(robot)
            np.testing.assert_allclose(step.next_obs[index], obs, rtol=2e-5, atol=2e-5)
            away = np.linalg.norm(ball - [0, 0, 0.7])
            reward = 1 / (1 + away) * 1 / (1 + np.linalg.norm(velocity))
            assert float(step.reward[index]) == pytest.approx(reward, abs=1e-5)
            assert bool(step.terminated[index]) == (ball[2] < 0.15)
            if step.terminated[index]:
                ends += 1
                targets[index] = 0
                robot.restart()
                np.testing.assert_allclose(step.obs[index], slow_obs(robot)[0], atol=1e-6)
    assert ends > 0


def test_tray_stays_up_and_the_ball_stays_on_it():
    model = mujoco.MjModel.from_xml_string(tasks.BallBalance().mjcf())
    data = mujoco.MjData(model)
    data.qpos[13:16] = [0.05, 0.0, 0.68]
    for _ in range(600):
        mujoco.mj_step(model, data)
    assert data.qpos[2] == pytest.approx(0.559, abs=0.01)  # sags by the drives' compliance: 8 N m / 1000 N m/rad
    assert data.qpos[15] == pytest.approx(data.qpos[2] + 0.01 + 0.1, abs=0.003)  # half the tray, and the radius
    # Its weight rests on three legs: the sensed force along each 45-degree leg has the vertical share of the load.
    carried = (math.pi * 0.5**2 * 0.02 * 100 + 4 / 3 * math.pi * 0.1**3 * 200) * 9.81
    vertical = 0.0
    for leg in range(3):
        site = model.site(f"leg_{leg}").id
        vertical += (data.site_xmat[site].reshape(3, 3) @ data.sensordata[3 * leg : 3 * leg + 3])[2]
    assert abs(vertical) == pytest.approx(carried, rel=0.02)


def test_feet_stay_pinned_and_the_tray_follows_targets():
    model = mujoco.MjModel.from_xml_string(tasks.BallBalance().mjcf())
    for target, lifted in ((0.3, True), (-0.5, False)):
        data = mujoco.MjData(model)
        data.qpos[15] = 5.0
        data.ctrl[:] = target
        for _ in range(150):
            mujoco.mj_step(model, data)
        np.testing.assert_allclose(data.qpos[8:13:2], target, atol=0.02)
        assert (data.qpos[2] > 0.6) == lifted
        mujoco.mj_forward(model, data)
        assert np.abs(data.efc_pos[:9]).max() < 0.004  # metres, x y z of three feet


def test_ball_rolls_down_a_tilted_tray():
    model = mujoco.MjModel.from_xml_string(tasks.BallBalance().mjcf())
    data = mujoco.MjData(model)
    data.qpos[13:16] = [0.0, 0.0, 0.67]
    data.ctrl[:] = [0.15, -0.075, -0.075]  # leg 0, at +x, up
    for _ in range(100):
        mujoco.mj_step(model, data)
    assert data.qpos[13] < -0.03
    assert data.qvel[16] == pytest.approx(data.qvel[12] / 0.1, rel=0.1)  # rolls, not slides: w_y = v_x / r


def test_reset_throws_the_ball_towards_the_middle():
    scipy_stats = pytest.importorskip("scipy.stats")
    env = tasks.make("BallBalance", 4096, seed=6)
    ball, velocity = env.simulator.batch.qpos[:, 13:16], env.simulator.batch.qvel[:, 12:15]
    distance, speed = np.hypot(*ball[:, :2].T), np.hypot(*velocity[:, :2].T)
    # False alarms: 4 tests at 1e-4.
    for values, low, high in (
        (distance, 0.001, 0.5),
        (np.arctan2(ball[:, 1], ball[:, 0]), -math.pi, math.pi),
        (ball[:, 2], 1.0, 2.0),
        (speed * 0.499 / (distance - 0.001), 0.0, 5.0),
    ):
        assert scipy_stats.kstest(values, "uniform", args=(low, high - low)).pvalue > 1e-4
    assert (velocity[:, 2] == -5).all()
    inward = -(ball[:, :2] * velocity[:, :2]).sum(1) / (distance * speed)
    np.testing.assert_allclose(inward, 1.0, atol=1e-4)
    np.testing.assert_allclose(env.simulator.batch.qpos[:, 2], 0.36 * math.sqrt(2) + 0.05, atol=1e-6)
    assert (env._memory["target"] == torch.zeros(4096, 3)).all()
