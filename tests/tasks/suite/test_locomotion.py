"""Ant and Humanoid against a slow recomputation, one environment and one number at a time, from plain MuJoCo."""

import math

import numpy as np
import pytest
import torch

import tasks

pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")

GEARS = {"abdomen": 67.5, "hip_y": 135, "hip": 45, "knee": 90, "ankle": 22.5, "shoulder": 67.5, "elbow": 45}
STIFFNESS = {"abdomen_x": 10, "abdomen": 20, "hip_y": 20, "hip": 10, "knee": 5, "ankle": 2, "shoulder": 10, "elbow": 2}
DAMPING = {"abdomen": 5, "hip": 5, "knee": 0.1, "ankle": 1, "shoulder": 5, "elbow": 1}


def by_name(table, joint):
    return next(value for part, value in table.items() if part in joint)


def torso_part(robot, angular_scale):
    (x, y, z), rotation, linear, angular = robot.body("torso")
    forward, upward = rotation[:, 0], rotation[:, 2]
    yaw = math.atan2(forward[1], forward[0])
    roll = math.atan2(rotation[2, 1], rotation[2, 2])
    bearing = math.atan2(0 - y, 1000 - x)
    off = (bearing - yaw + math.pi) % (2 * math.pi) - math.pi
    to_target = np.array([1000 - x, 0 - y]) / math.hypot(1000 - x, y)
    heading = forward[0] * to_target[0] + forward[1] * to_target[1]
    return [z, *linear, *(angular_scale * angular), yaw, roll, off, upward[2], heading]


def fractions(robot):
    """Joint angles with -1 and 1 at the limits."""
    out = []
    for joint in range(1, robot.model.njnt):
        low, high = robot.model.jnt_range[joint]
        out.append((2 * robot.data.qpos[6 + joint] - low - high) / (high - low))
    return out


def ant_obs(robot, action):
    return [*torso_part(robot, 1.0), *fractions(robot), *(0.2 * robot.data.qvel[6:]), *(0.1 * robot.sensors), *action]


def ant_reward(robot, action, distance_before):
    (x, y, z), rotation, _, _ = robot.body("torso")
    if z < 0.31:
        return -2.0, True
    reward = (distance_before - math.hypot(1000 - x, y)) * 60
    heading = torso_part(robot, 1.0)[11]
    reward += 0.5 + (0.1 if rotation[2, 2] > 0.93 else 0.0) + (0.5 if heading > 0.8 else 0.5 * heading / 0.8)
    for joint in range(8):
        reward -= 0.005 * action[joint] ** 2 + 0.05 * abs(action[joint] * 0.2 * robot.data.qvel[6 + joint])
        reward -= 0.1 if abs(fractions(robot)[joint]) > 0.99 else 0.0
    return reward, False


def humanoid_obs(robot, action):
    torques = []
    for joint in range(21):
        name = robot.model.joint(joint + 1).name
        torque = by_name(GEARS, name) * action[joint] - by_name(STIFFNESS, name) * robot.data.qpos[7 + joint]
        torques.append(torque - by_name(DAMPING, name) * robot.data.qvel[6 + joint] + robot.sensors[12 + joint])
    return [
        *torso_part(robot, 0.25),
        *fractions(robot),
        *(0.1 * robot.data.qvel[6:]),
        *(0.01 * np.array(torques)),
        *(0.01 * robot.sensors[:12]),
        *action,
    ]


def humanoid_reward(robot, action, distance_before):
    (x, y, z), rotation, _, _ = robot.body("torso")
    if z < 0.8:
        return -1.0, True
    reward = (distance_before - math.hypot(1000 - x, y)) * 60
    heading = torso_part(robot, 0.25)[11]
    reward += 2.0 + (0.1 if rotation[2, 2] > 0.93 else 0.0) + (0.5 if heading > 0.8 else 0.5 * heading / 0.8)
    for joint in range(21):
        share = by_name(GEARS, robot.model.joint(joint + 1).name) / 135
        reward -= 0.01 * action[joint] ** 2 + 0.05 * share * abs(action[joint] * 0.1 * robot.data.qvel[6 + joint])
        reach = abs(fractions(robot)[joint])
        reward -= share * 0.25 * (reach - 0.98) / 0.02 if reach > 0.98 else 0.0
    return reward, False


@pytest.mark.parametrize(
    "name, steps, slow_obs, slow_reward",
    [("Ant", 260, ant_obs, ant_reward), ("Humanoid", 40, humanoid_obs, humanoid_reward)],
)
def test_step_equals_a_slow_recomputation_from_plain_mujoco(name, steps, slow_obs, slow_reward, single, actions):
    env = tasks.make(name, 3, seed=4, threads=2)
    robots = [single(env, index) for index in range(3)]
    obs, falls = env.reset(), 0
    for robot in robots:
        robot.restart()
    for index, robot in enumerate(robots):
        np.testing.assert_allclose(obs[index], slow_obs(robot, np.zeros(env.action_dim)), atol=1e-5)
    for raw in actions(env, steps):
        before = [math.hypot(1000 - robot.data.qpos[0], robot.data.qpos[1]) for robot in robots]
        step = env.step(raw)
        for index, robot in enumerate(robots):
            action = np.clip(raw[index].numpy(), -1, 1)
            robot.step(action)
            reward, fallen = slow_reward(robot, action, before[index])
            # Sensed forces reach hundreds of newtons: compared relative to their size.
            np.testing.assert_allclose(step.next_obs[index], slow_obs(robot, action), rtol=2e-5, atol=2e-5)
            assert float(step.reward[index]) == pytest.approx(reward, abs=2e-4)
            assert bool(step.terminated[index]) == fallen
            if fallen:
                falls += 1
                robot.restart()
                np.testing.assert_allclose(
                    step.obs[index], slow_obs(robot, np.zeros(env.action_dim)), rtol=2e-5, atol=2e-5
                )
            else:
                # The batch and mj_step agree to the last bit, so no error can build up.
                np.testing.assert_array_equal(robot.data.qpos, env.simulator.batch.qpos[index])
                assert torch.equal(step.obs[index], step.next_obs[index])
    assert falls > 0, "no episode ended: the test has not seen a terminal observation"
    assert bool(step.valid.all())


@pytest.mark.parametrize("name, start_height", [("Ant", 0.44), ("Humanoid", 1.34)])
def test_reset_draws_joints_around_rest_within_their_limits(name, start_height):
    env = tasks.make(name, 4096, seed=5)
    model, qpos, qvel = env.simulator.model, env.simulator.batch.qpos, env.simulator.batch.qvel
    np.testing.assert_allclose(qpos[:, :7], np.tile([0, 0, start_height, 1, 0, 0, 0], (4096, 1)), atol=1e-6)
    assert (qvel[:, :6] == 0).all()
    low, high = model.jnt_range[1:].T
    rest = np.clip(0, low, high)
    assert (np.abs(qpos[:, 7:] - rest) <= 0.2 + 1e-6).all()
    assert (qpos[:, 7:] >= low - 1e-6).all() and (qpos[:, 7:] <= high + 1e-6).all()
    # Uniform(-a, a) has standard deviation a / sqrt(3); 5 sigma of a mean of 4096: false alarms below 1e-4 in all.
    free = (low < -0.2) & (high > 0.2)
    assert free.sum() >= 4
    assert np.abs(qpos[:, 7:][:, free].mean(0)).max() < 5 * 0.2 / math.sqrt(3 * 4096)
    assert np.abs(qvel[:, 6:].mean(0)).max() < 5 * 0.1 / math.sqrt(3 * 4096)
    np.testing.assert_allclose(qvel[:, 6:].std(0), 0.1 / math.sqrt(3), rtol=0.06)


def test_progress_reward_is_exact_far_from_the_origin():
    """100 m down the track a float32 distance of 900 m has steps of 6e-5 m, or 4 mm/s; the reward must not."""
    task = tasks.Ant()
    before, now = torch.tensor([[100.0, 3.0]]), torch.tensor([[100.0703125, 3.0078125]])  # exact in binary
    state = tasks.State(torch.cat((now, torch.zeros(1, 13)), 1), torch.zeros(1, 14), torch.zeros(1, 24))
    speed = task._progress(state, {"position": before}, dt=1 / 60)
    assert float(speed) == pytest.approx((math.hypot(900, 3) - math.hypot(899.9296875, 3.0078125)) * 60, abs=1e-5)
