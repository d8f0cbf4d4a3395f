"""Ingenuity: it hovers on its own weight on Mars, and its numbers against a slow recomputation."""

import math

import numpy as np
import pytest
import torch

import tasks

mujoco = pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")

BOX, DISC = 0.12**3 * 50, math.pi * 0.15**2 * 0.01 * 1000
WEIGHT = (BOX + 2 * DISC) * 3.721


@pytest.fixture
def craft():
    model = mujoco.MjModel.from_xml_string(tasks.Ingenuity().mjcf())
    return model, mujoco.MjData(model)


def test_it_weighs_on_mars_what_its_sizes_say(craft):
    model, data = craft
    assert model.body_mass.sum() == pytest.approx(1.5001, rel=1e-4)
    assert -model.body_mass.sum() * model.opt.gravity[2] == pytest.approx(WEIGHT, rel=1e-9)
    mujoco.mj_forward(model, data)
    assert data.subtree_com[1][2] - data.qpos[2] == pytest.approx(0.025 * DISC / (BOX + 2 * DISC))


@pytest.mark.parametrize("share, climb", [(1.0, 0.0), (1.1, 0.3721), (0.0, -3.721), (-1.0, -7.442)])
@pytest.mark.parametrize("lower", [0.0, 0.5, 1.0])
def test_thrust_of_its_weight_holds_it_and_more_lifts_it(craft, share, climb, lower):
    model, data = craft
    data.ctrl[[2, 5]] = lower * share * WEIGHT, (1 - lower) * share * WEIGHT
    for _ in range(200):  # one second
        mujoco.mj_step(model, data)
    assert data.qvel[2] == pytest.approx(climb, abs=1e-4)
    np.testing.assert_allclose(data.qpos[[0, 1]], 0, atol=1e-6)


def test_the_lower_rotor_tips_it_one_way_and_the_upper_one_the_other(craft):
    model, data = craft
    for motor, turn in ((0, -1), (3, 1)):  # x forces, below and above the middle of its mass: about -y and +y
        mujoco.mj_resetData(model, data)
        data.ctrl[motor] = 1.0
        mujoco.mj_step(model, data)
        assert 0.005 < turn * data.qvel[4] < 0.01 and abs(data.qvel[[3, 5]]).max() < 1e-6
        mujoco.mj_forward(model, data)
        mujoco.mj_subtreeVel(model, data)
        assert data.subtree_linvel[1][0] == pytest.approx(0.005 / (BOX + 2 * DISC), rel=1e-3)


def slow_obs(robot, target):
    position, rotation, _, own = robot.body("chassis")
    w, x, y, z = robot.data.qpos[3:7]
    obs = [*((target - position) / 3), x, y, z, w, *(robot.data.qvel[:3] / 2), *(rotation @ own / math.pi)]
    return np.clip(obs, -5, 5)


def test_step_equals_a_slow_recomputation_from_plain_mujoco(single, actions):
    env = tasks.make("Ingenuity", 3, seed=3)
    env.task.every = 40  # of 500 steps to a target
    robots, steps, ends, changed = [single(env, index) for index in range(3)], [0] * 3, 0, 0
    for raw in actions(env, 130):
        targets = env._memory["targets"].clone().numpy()
        step = env.step(raw)
        for index, robot in enumerate(robots):
            action = np.clip(raw[index].numpy(), -1, 1)
            ctrl = []
            for aside_x, aside_y, along in action.reshape(2, 3):
                thrust = 20 * along
                ctrl += [thrust * np.clip(aside_x, -0.2, 0.2), thrust * np.clip(aside_y, -0.2, 0.2), thrust]
            robot.step(ctrl)
            target = targets[index][min(steps[index] // 40, 3)]
            changed += steps[index] == 40
            steps[index] += 1
            np.testing.assert_allclose(step.next_obs[index], slow_obs(robot, target), rtol=1e-3, atol=1e-4)
            position, rotation, _, own = robot.body("chassis")
            away, up, spin = np.linalg.norm(position - target), rotation[2, 2], (rotation @ own)[2]
            near = 1 / (1 + away**2)
            reward = near + near * (5 / (1 + (1 - up) ** 2) + 1 / (1 + spin**2))
            assert float(step.reward[index]) == pytest.approx(reward, abs=2e-3)
            assert bool(step.terminated[index]) == (away > 8 or position[2] < 0.5)
            if step.terminated[index]:
                ends, steps[index] = ends + 1, 0
                robot.restart()
                first = env._memory["targets"][index, 0].numpy()
                np.testing.assert_allclose(step.obs[index], slow_obs(robot, first), atol=1e-6)
            else:  # the two must not part by what float32 makes of a control
                robot.data.qpos[:] = env.simulator.batch.qpos[index]
                robot.data.qvel[:] = env.simulator.batch.qvel[index]
    assert ends > 0 and changed > 0


def test_a_target_beyond_8_m_or_a_chassis_below_half_a_metre_ends_an_episode():
    task, there = tasks.Ingenuity(), torch.tensor([[1.0, -2.0, 1.5]])
    ways = {(7.9, 0, 0): False, (0, 8.1, 0): True, (0, 0, -0.9): False, (0, 0, -1.1): True, (5.6, -5.6, 0): False}
    for way, over in ways.items():
        qpos = torch.cat((there + torch.tensor([way]), torch.tensor([[1.0, 0, 0, 0]])), 1)
        state = tasks.State(qpos, torch.zeros(1, 6), torch.zeros(1, 0))
        reward, ended = task.judge(state, None, None, {"target": there})
        assert bool(ended) == over and float(reward) == pytest.approx(7 / (1 + sum(x * x for x in way)))


def test_starts_and_targets_are_scattered_as_they_should_be():
    stats = pytest.importorskip("scipy.stats")
    env = tasks.make("Ingenuity", 4096, seed=6)
    qpos, targets = env.simulator.batch.qpos, env._memory["targets"].numpy()
    drawn = [(qpos[:, 0], -1.5, 1.5), (qpos[:, 1], -1.5, 1.5), (qpos[:, 2], 0.8, 2.5)]
    drawn += [(targets[:, number, axis], *limits) for number in range(4)
              for axis, limits in enumerate(((-5, 5), (-5, 5), (1, 2)))]  # fmt: skip
    # False alarms: 15 tests at 1e-5.
    for values, low, high in drawn:
        assert stats.kstest(values, "uniform", args=(low, high - low)).pvalue > 1e-5
    assert (env._memory["target"].numpy() == targets[:, 0]).all() and (qpos[:, 3:] == [1, 0, 0, 0]).all()
