"""FrankaPush and FrankaCubeStack: the arm, its control, what it can do, and the tasks' numbers recomputed slowly."""

import math

import numpy as np
import pytest
import torch

import tasks
from tasks.suite.franka import inertia, solve

mujoco = pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")

HOME = [0, 0.1963, 0, -2.618, 0, 2.9416, 0.7854]


def arm_of(name):
    model = mujoco.MjModel.from_xml_string(tasks.get(name)().mjcf())
    return model, mujoco.MjData(model)


def quat_matrix(quat):
    out = np.zeros(9)
    mujoco.mju_quat2Mat(out, np.asarray(quat, float))
    return out.reshape(3, 3)


def test_masses_limits_and_reach_are_the_public_ones():
    model, data = arm_of("FrankaCubeStack")
    robot = model.body_mass[: model.body("A").id].sum()
    # Gaz et al. 2019, then the gripper of Franka's description with two fingers.
    assert robot == pytest.approx(
        4.970684 + 0.646926 + 3.228604 + 3.587895 + 1.225946 + 1.666555 + 0.735522 + 0.73 + 2 * 0.015, abs=1e-6
    )
    low = [-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973, 0, 0]
    high = [2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973, 0.04, 0.04]
    np.testing.assert_allclose(model.jnt_range[:9], np.array([low, high]).T, atol=1e-9)
    np.testing.assert_allclose(model.actuator_ctrlrange[:7, 1], [87, 87, 87, 87, 12, 12, 12])
    for cube, mass in (("A", 0.125), ("B", 0.343)):
        assert model.body(cube).mass[0] == pytest.approx(mass)
    # Stretched upwards: .333 + .316 + .384 to the wrist, from there .088 ahead and .107 + .1034 down to the fingertips.
    data.qpos[:7] = [0, 0, 0, -0.0698, 0, 0, 0]
    data.qpos[3] = 0.0
    mujoco.mj_forward(model, data)
    tip = data.site("tip").xpos - model.body("base").pos
    np.testing.assert_allclose(tip, [0.088, 0, 0.333 + 0.316 + 0.384 - 0.107 - 0.1034], atol=1e-6)


def test_arm_holds_itself_without_torque_and_falls_where_gravity_is_left_to_it():
    model, data = arm_of("FrankaPush")
    for compensated in (True, False):
        if not compensated:
            model.body_gravcomp[:] = 0
        mujoco.mj_resetData(model, data)
        data.qpos[:7] = HOME
        for _ in range(240):
            mujoco.mj_step(model, data)
        moved = np.abs(data.qpos[:7] - HOME).max()
        assert (moved < 1e-6) if compensated else (moved > 0.5)


def test_inertia_and_jacobian_are_mujocos():
    env = tasks.make("FrankaCubeStack", 4, seed=1)
    state, task, model = env.simulator.state(), env.task, env.simulator.model
    mass = inertia(state.fields["cdof"][:, :7], state.fields["crb"][:, task._links]) + task._rotors
    for index in range(4):
        data = mujoco.MjData(model)
        data.qpos[:] = env.simulator.batch.qpos[index]
        mujoco.mj_forward(model, data)
        full, linear, angular = np.zeros((model.nv, model.nv)), np.zeros((3, model.nv)), np.zeros((3, model.nv))
        mujoco.mj_fullM(model, data, full)
        mujoco.mj_jacSite(model, data, linear, angular, model.site("tip").id)
        np.testing.assert_allclose(mass[index], full[:7, :7], atol=1e-6)
        np.testing.assert_allclose(task.hand(state).jacobian[index], np.vstack((linear, angular))[:, :7], atol=1e-6)


def test_solve_is_numpys():
    source = torch.Generator().manual_seed(0)
    factor, right = torch.randn(5, 7, 7, generator=source), torch.randn(5, 7, 3, generator=source)
    matrix = factor @ factor.transpose(1, 2) + torch.eye(7)
    expected = np.linalg.solve(matrix.double(), right.double())
    np.testing.assert_allclose(solve(matrix, right), expected, rtol=1e-3, atol=1e-4)


def axis(quat, column):
    x, y, z, w = quat.unbind(1)
    return torch.from_numpy(np.stack([quat_matrix(q)[:, column] for q in torch.stack((w, x, y, z), 1).numpy()])).float()


def grasp(obs, step):
    """A hand-written policy: over A, down to it, shut, up, over B, down, open, up."""
    cube, tip, way = obs[:, 4:7], obs[:, 10:13], obs[:, 7:10]
    over = torch.tensor([0.0, 0.0, 0.1])
    above_b = cube + way + torch.tensor([0.0, 0.0, 0.066])
    if step < 60:
        want, grip = cube + over, 1.0
    elif step < 110:
        want, grip = cube, 1.0
    elif step < 125:
        want, grip = cube, -1.0
    elif step < 165:
        want, grip = torch.cat((tip[:, :2], torch.full((len(obs), 1), 1.25)), 1), -1.0
    elif step < 215:
        want, grip = torch.cat((above_b[:, :2], torch.full((len(obs), 1), 1.25)), 1), -1.0
    elif step < 255:
        want, grip = above_b, -1.0
    else:
        want, grip = torch.cat((tip[:, :2], torch.full((len(obs), 1), 1.3)), 1), 1.0
    down = torch.tensor([0.0, 0.0, -1.0]).expand(len(obs), 3)
    upright = torch.linalg.cross(axis(obs[:, 13:17], 2), down)
    turn = torch.linalg.cross(axis(obs[:, 13:17], 0), axis(obs[:, :4], 0))[:, 2:] * (step < 125)
    action = torch.zeros(len(obs), 7)
    action[:, :3], action[:, 3:6], action[:, 6] = (want - tip) * 10, upright * 2, grip
    action[:, 5:6] += turn * 2
    return action


def test_gripper_lifts_the_cube_and_a_stack_ends_the_episode_with_sixteen():
    env = tasks.make("FrankaCubeStack", 16, seed=2)
    obs, stacked = env.reset(), torch.zeros(16, dtype=torch.bool)
    for step in range(299):
        done = env.step(grasp(obs, step))
        obs = done.obs
        if step == 164:
            np.testing.assert_allclose(obs[:, 6], 1.25, atol=0.01)
            np.testing.assert_allclose(obs[:, 17:], 0.0235, atol=0.0015)  # half a cube between the fingers, pressed
            assert (done.reward > 1.5).all()
        assert ((done.reward == 16) == done.terminated).all()
        parts = [done.info[f"reward/{name}"] for name in ("near", "lifted", "aligned", "stacked")]
        torch.testing.assert_close(sum(parts), done.reward)
        stacked |= done.terminated
    assert stacked.sum() >= 14


def test_cube_stack_equals_a_slow_recomputation_from_plain_mujoco(single, actions):
    env = tasks.make("FrankaCubeStack", 2, seed=4)
    robots = [single(env, index) for index in range(2)]
    for raw in actions(env, 40):
        step = env.step(raw)
        for index, robot in enumerate(robots):
            model, action = robot.model, np.clip(raw[index].numpy(), -1, 1)
            data = mujoco.MjData(model)
            data.qpos[:], data.qvel[:] = robot.data.qpos, robot.data.qvel
            mujoco.mj_forward(model, data)
            full, jac = np.zeros((21, 21)), np.zeros((6, 21))
            mujoco.mj_fullM(model, data, full)
            mujoco.mj_jacSite(model, data, jac[:3], jac[3:], model.site("tip").id)
            mass, jac, q, qd = full[:7, :7], jac[:, :7], data.qpos[:7], data.qvel[:7]
            weight = np.linalg.inv(jac @ np.linalg.inv(mass) @ jac.T)
            pull = 150 * action[:6] * [0.1, 0.1, 0.1, 0.5, 0.5, 0.5] - 2 * math.sqrt(150) * (jac @ qd)
            posture = mass @ (10 * ((np.array(HOME) - q + math.pi) % (2 * math.pi) - math.pi) - 2 * math.sqrt(10) * qd)
            null = np.eye(7) - jac.T @ weight @ jac @ np.linalg.inv(mass)
            limit = np.array([87, 87, 87, 87, 12, 12, 12])
            torque = np.clip(jac.T @ weight @ pull + null @ posture, -limit, limit)
            np.testing.assert_allclose(env.simulator.batch.ctrl[index, :7], torque, atol=2e-3, rtol=2e-3)
            robot.data.qpos[:], robot.data.qvel[:] = data.qpos, data.qvel
            robot.step([*env.simulator.batch.ctrl[index, :7], *[0.04 * (action[6] >= 0)] * 2])
            np.testing.assert_allclose(robot.data.qpos, env.simulator.batch.qpos[index], atol=1e-9)
            mujoco.mj_forward(model, robot.data)
            a, b = robot.data.body("A"), robot.data.body("B")
            tips = [robot.data.site(name).xpos for name in ("tip", "left_tip", "right_tip")]
            w, x, y, z = robot.data.qpos[12:16]
            hw, hx, hy, hz = robot.data.body("hand").xquat
            obs = [x, y, z, w, *a.xpos, *(b.xpos - a.xpos), *tips[0], hx, hy, hz, hw, *robot.data.qpos[7:9]]
            np.testing.assert_allclose(step.next_obs[index], obs, atol=1e-5)
            away = [np.linalg.norm(tip - a.xpos) for tip in tips]
            assert float(step.reward[index]) == pytest.approx(0.1 * (1 - math.tanh(10 * np.mean(away))), abs=1e-5)
    assert not step.terminated.any()


def test_cubes_begin_apart_on_the_table_and_joints_near_home():
    env = tasks.make("FrankaCubeStack", 4096, seed=5)
    qpos = env.simulator.batch.qpos
    assert np.linalg.norm(qpos[:, 9:11] - qpos[:, 16:18], axis=1).min() >= 0.1697
    assert (np.abs(qpos[:, [9, 10, 16, 17]]) <= 0.25).all()
    np.testing.assert_allclose(qpos[:, [11, 18]], np.tile([1.0499, 1.0599], (4096, 1)), atol=1e-6)
    assert (np.abs(qpos[:, :7] - HOME) <= 0.25 + 1e-6).all() and (qpos[:, 3] >= -3.0718).all()


def test_cube_on_the_floor_stays_where_friction_holds_it_and_slides_where_it_does_not():
    model, data = arm_of("FrankaPush")
    for share, moves in ((0.8, False), (1.2, True)):
        mujoco.mj_resetData(model, data)
        data.qpos[:7] = HOME
        data.xfrc_applied[model.body("cube").id, 0] = share * 0.06**3 * 1000 * 9.81  # of its weight, friction is 1
        for _ in range(60):
            mujoco.mj_step(model, data)
        assert (data.qpos[7] > 0.55) == moves
        assert abs(data.qpos[7] - 0.5) < 2e-3 or moves


def test_push_equals_a_slow_recomputation_from_plain_mujoco(single, actions):
    env = tasks.make("FrankaPush", 2, seed=4, action_repeat=1)
    robots, goals = [single(env, index) for index in range(2)], env._memory["goal"].numpy().copy()
    for raw in actions(env, 60):
        before = [(robot.data.qpos.copy(), robot.data.qvel.copy()) for robot in robots]
        step = env.step(raw)
        for index, robot in enumerate(robots):
            model, action = robot.model, np.clip(raw[index].numpy(), -1, 1)
            data = mujoco.MjData(model)
            data.qpos[:], data.qvel[:] = before[index]
            mujoco.mj_forward(model, data)
            jac = np.zeros((6, 13))
            mujoco.mj_jacSite(model, data, jac[:3], jac[3:], model.site("tip").id)
            jac, axes = jac[:, :7], data.site("tip").xmat.reshape(3, 3)
            twist = jac @ data.qvel[:7]
            turn = sum(np.cross(axes[:, i], np.diag([1, -1, -1])[:, i]) for i in range(3)) / 2
            torque = jac.T @ [*(25 * action - 40 * twist[:3]), *(20 * turn - 3 * twist[3:])]
            limit = np.array([87, 87, 87, 87, 12, 12, 12])
            np.testing.assert_allclose(env.simulator.batch.ctrl[index], np.clip(torque, -limit, limit), atol=1e-4)
            robot.step(env.simulator.batch.ctrl[index])
            np.testing.assert_array_equal(robot.data.qpos, env.simulator.batch.qpos[index])
            mujoco.mj_forward(model, data := robot.data)
            tip, cube = data.site("tip").xpos, data.qpos[7:10]
            to_goal = goals[index] - cube[:2]
            obs = [*data.qpos[:7], *data.qvel[:7], *tip, *(cube - tip), *data.qpos[10:], *data.qvel[7:], *to_goal]
            np.testing.assert_allclose(step.next_obs[index], obs, atol=1e-5)
            away, distance = np.linalg.norm(cube - tip), np.linalg.norm(to_goal)
            reward = 0.5 * (1 - math.tanh(2 * away)) + 1 - math.tanh(2.5 * distance) + (distance < 0.03)
            assert float(step.reward[index]) == pytest.approx(reward, abs=1e-5)


def test_an_action_of_a_push_lasts_three_control_steps_each_with_torques_of_its_own():
    env, plain = (tasks.make("FrankaPush", 4, seed=5, action_repeat=repeat) for repeat in (3, 1))
    source, pushed = torch.Generator().manual_seed(0), []
    for _ in range(120):
        action = torch.rand(4, 3, generator=source) * 2 - 1
        step, plains = env.step(action), [plain.step(action) for _ in range(3)]
        torch.testing.assert_close(step.reward, sum(one.reward for one in plains))
        assert torch.equal(step.next_obs, plains[-1].next_obs)
        assert torch.equal(step.truncated, plains[-1].truncated)
        pushed.append((step.info["pushed"], plains[-1].info["pushed"]))
    assert all(torch.isnan(one).all() and torch.isnan(other).all() for one, other in pushed[:-1])
    assert step.truncated.all() and torch.equal(*pushed[-1])
    with pytest.raises(tasks.TaskError, match="must divide the 360 control steps"):
        tasks.make("FrankaPush", 2, action_repeat=7)


def push(obs):
    """A hand-written policy: over a point behind the cube, down, and on to the goal."""
    tip, cube = obs[:, 14:17], obs[:, 14:17] + obs[:, 17:20]
    way = obs[:, 30:]
    ahead = torch.nn.functional.normalize(way, dim=1)
    from_cube = (tip - cube)[:, :2]
    along = (from_cube * ahead).sum(1, keepdim=True)
    aside = from_cube - along * ahead
    behind = (along < -0.045) & (aside.norm(dim=1, keepdim=True) < 0.02)
    low = behind & (tip[:, 2:] < 0.06)
    place = torch.where(low, 3 * way.clamp(-0.03, 0.03) - aside, -from_cube - 0.075 * ahead)
    height = torch.where(behind, 0.03, 0.12) - tip[:, 2:]
    arrived = way.norm(dim=1, keepdim=True) < 0.012
    return torch.cat((torch.where(arrived, 0.0, 12 * place), 12 * height), dim=1)


def test_a_hand_written_policy_pushes_most_cubes_to_their_goals():
    env = tasks.make("FrankaPush", 128, seed=2)
    obs, returns = env.reset(), torch.zeros(128)
    for _ in range(120):
        step = env.step(push(obs).clamp(-1, 1))
        obs, returns = step.obs, returns + step.reward
    print(f"return {returns.mean():.0f}, {step.info['pushed'].mean():.2f} of the cubes at their goals")
    assert step.info["pushed"].mean() > 0.5 and returns.mean() > 450
