"""AllegroHand and ShadowHand: what they weigh, hold and reach, goals one after another, numbers recomputed slowly."""

import math

import numpy as np
import pytest
import torch

import tasks

mujoco = pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")

HANDS = ["AllegroHand", "ShadowHand"]
GOAL = {"AllegroHand": [0, -0.2, 0.52], "ShadowHand": [0, -0.39, 0.56]}


def hand_of(name):
    model = mujoco.MjModel.from_xml_string(tasks.get(name)().mjcf())
    return model, mujoco.MjData(model), model.njnt - 1


def test_allegro_weighs_and_bends_as_described():
    model, _, _ = hand_of("AllegroHand")
    finger, thumb = 0.0119 + 0.065 + 0.0355 + 0.0096 + 0.021, 0.0176 + 0.0119 + 0.038 + 0.0388 + 0.021
    cube = 400 * 0.065**3
    assert model.body_mass.sum() == pytest.approx(0.4154 + 3 * finger + thumb + cube, rel=1e-4)
    finger = [[-0.5585, 0.5585], [-0.2792, 1.7278], [-0.2792, 1.7278], [-0.2792, 1.7278]]
    thumb = [[0.2792, 1.5708], [-0.3316, 1.1519], [-0.2792, 1.7278], [-0.2792, 1.7627]]
    np.testing.assert_allclose(model.jnt_range[:16], finger * 3 + thumb, atol=1e-9)
    np.testing.assert_allclose(model.actuator_ctrlrange, model.jnt_range[:16], atol=1e-9)
    np.testing.assert_allclose(model.actuator_forcerange, [[-0.5, 0.5]] * 16)


def test_allegros_frames_are_those_of_the_public_description():
    """Its middle fingertip and its thumb's, straight: lengths of links, and where the palm is, by hand."""
    model, data, _ = hand_of("AllegroHand")
    mujoco.mj_forward(model, data)
    tilt = math.radians(5.4)
    along, out = np.array([0, -math.cos(tilt), -math.sin(tilt)]), np.array([0, -math.sin(tilt), math.cos(tilt)])
    palm = np.array([-0.0088, -0.0824, 0.5127])
    middle = palm + 0.0088 * np.array([1, 0, 0]) - 0.0113 * out + (0.0537 + 0.054 + 0.0384) * along
    np.testing.assert_allclose(data.body("middle_3").xpos, middle, atol=2e-4)
    thumb = palm + np.array([-0.0081, 0, 0]) - 0.0367 * along - (0.0295 - 0.005) * out
    assert np.linalg.norm(data.body("thumb_3").xpos - thumb) == pytest.approx(0.0554 + 0.0514, abs=2e-4)


def test_shadow_weighs_and_bends_as_described():
    model, _, _ = hand_of("ShadowHand")
    fingers, thumb = 4 * (0.008 + 0.014 + 0.012 + 0.01), 0.01 + 0.016 + 0.002 + 0.016 + 0.016
    whole = 4 + 0.3 + 0.3 + 0.075 + fingers + thumb + 567 * 0.05**3
    assert model.body_mass.sum() == pytest.approx(whole, rel=1e-9)
    finger = [[-0.349, 0.349], *[[0, 1.571]] * 3]
    thumb = [[-1.047, 1.047], [0, 1.222], [-0.209, 0.209], [-0.524, 0.524], [-1.571, 0]]
    ranges = [[-0.489, 0.14], [-0.698, 0.489], *finger * 3, [0, 0.785], *finger, *thumb]
    np.testing.assert_allclose(model.jnt_range[:24], ranges, atol=1e-9)
    driven = np.delete(np.arange(24), [5, 9, 13, 18])  # all but each finger's last joint
    assert model.actuator_trnid[:, 0].tolist() == driven.tolist()
    np.testing.assert_allclose(model.actuator_ctrlrange, np.array(ranges)[driven], atol=1e-9)
    most = [4.785, 2.175, *[0.9, 0.9, 0.7245] * 3, 0.9, 0.9, 0.9, 0.7245, 2.3722, 1.45, 0.99, 0.99, 0.81]
    np.testing.assert_allclose(model.actuator_forcerange[:, 1], most)


@pytest.mark.parametrize("name", HANDS)
def test_gravity_pulls_at_the_cube_alone(name):
    model, data, n = hand_of(name)
    low, high = model.jnt_range[:n].T
    data.qpos[:n] = np.clip(0.1, low, high)
    data.ctrl[:] = np.clip(0.1, *model.actuator_ctrlrange.T)
    if name == "ShadowHand":
        data.qpos[[5, 9, 13, 18]] = 0.1
    start = data.qpos.copy()
    data.qpos[n : n + 3] = start[n : n + 3] = [1, 0, 5]
    for _ in range(60):
        mujoco.mj_step(model, data)
    np.testing.assert_allclose(data.qpos[:n], start[:n], atol=1e-5)
    assert data.qpos[n + 2] == pytest.approx(5 - 9.81 / 2 * 0.5**2, abs=0.03)


@pytest.mark.parametrize("name, kept, least", [("AllegroHand", 8, 8), ("ShadowHand", 8, 7)])
def test_held_hand_keeps_a_cube_in_its_palm_for_ten_seconds(name, kept, least):
    """Zero action: all drives at the middle of their ranges, which is a hand half closed.

    Allegro's closes in .1 s, faster than a cube falls between its fingers, and flicks away most that begin as the task
    has it; a cube put behind closed fingers stays. Shadow's keeps those that fall on it.
    """
    model, data, n = hand_of(name)
    still = 0
    for number in range(kept):
        env = tasks.make(name, 1, seed=number, threads=1)
        mujoco.mj_resetData(model, data)
        data.qpos[:] = env.simulator.batch.qpos[0]
        data.ctrl[:] = model.actuator_ctrlrange.mean(1)
        if name == "AllegroHand":
            turn = 0.1 * (number % 4)
            data.qpos[:n] = data.ctrl
            data.qpos[n:] = [0, -0.10 - 0.01 * (number // 4), 0.55, math.cos(turn / 2), 0, 0, math.sin(turn / 2)]
        for step in range(1200):
            mujoco.mj_step(model, data)
            if step == 600:
                there = data.qpos[n : n + 3].copy()
        near = np.linalg.norm(data.qpos[n : n + 3] - GOAL[name]) < 0.24 and data.qpos[n + 2] > 0.5
        still += near and np.abs(data.qpos[n : n + 3] - there).max() < 0.002
    assert still >= least


def test_flat_allegro_hand_keeps_what_falls_on_it():
    env = tasks.make("AllegroHand", 24, seed=3, threads=1)
    model = env.simulator.model
    low, high = torch.as_tensor(model.actuator_ctrlrange, dtype=torch.float32).unbind(1)
    flat = (2 * torch.clamp(torch.zeros(16), low, high) - low - high) / (high - low)
    fell = torch.zeros(24, dtype=torch.bool)
    for _ in range(300):
        fell |= env.step(flat.expand(24, 16)).terminated
    assert fell.sum() <= 5  # the source's own shapes in MuJoCo keep nine of ten


@pytest.mark.parametrize("name, seconds", [("AllegroHand", 0.2), ("ShadowHand", 1.0)])
def test_joints_go_where_they_are_told(name, seconds):
    model, data, n = hand_of(name)
    data.qpos[n : n + 3] = [1, 0, 5]
    data.ctrl[:] = 0.7 * model.actuator_ctrlrange.T[0] + 0.3 * model.actuator_ctrlrange.T[1]
    for _ in range(round(seconds * 120)):
        mujoco.mj_step(model, data)
    driven = model.actuator_trnid[:, 0]
    np.testing.assert_allclose(data.qpos[driven], data.ctrl, atol=0.02)
    for last in np.setdiff1d(np.arange(n), driven):  # the tendons: .00705 and .00805 m of pulley, 1 mm of slack
        assert abs(0.00705 * data.qpos[last] - 0.00805 * data.qpos[last - 1]) < 0.0011


def product(a, b):
    out = np.zeros(4)
    mujoco.mju_mulQuat(out, np.asarray(a, float), np.asarray(b, float))
    return out


def back(quat):
    return np.asarray(quat) * [1, -1, -1, -1]


def xyzw(quat):
    return [*quat[1:], quat[0]]


def slow_obs(robot, name, goal, action, torques, forces, kind):
    """From mj_forward at the present state, by names."""
    model, n = robot.model, robot.model.njnt - 1
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = robot.data.qpos, robot.data.qvel
    mujoco.mj_forward(model, data)
    low, high = model.jnt_range[:n].T
    place, quat = data.qpos[n : n + 3], data.qpos[n + 3 :]
    angles = 2 * (data.qpos[:n] - low) / (high - low) - 1
    aim = [*GOAL[name], *xyzw(goal), *xyzw(product(quat, back(goal)))]
    spin = data.body("cube").xmat.reshape(3, 3) @ data.qvel[n + 3 :]
    tips, places = [], []
    if name == "ShadowHand":
        for finger in ("FF", "MF", "RF", "LF", "TH"):
            body, twist = data.body(f"{finger}_distal"), np.zeros(6)
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_XBODY, body.id, twist, 0)
            tips += [*body.xpos, *xyzw(body.xquat), *twist[3:], *twist[:3]]
            places += [*body.xpos]
    full_torques = np.zeros(n)
    full_torques[model.actuator_trnid[:, 0]] = torques
    if kind == "openai":
        obs = [*places, *place, *aim[7:], *action]
    elif kind == "full_no_vel":
        obs = [*angles, *place, *xyzw(quat), *aim, *places, *action]
    else:
        cube = [*place, *xyzw(quat), *data.qvel[n : n + 3], *(0.2 * spin)]
        middle = [*(10 * full_torques)] if kind == "full_state" else []
        last = [*(10 * np.asarray(forces))] if kind == "full_state" else []
        obs = [*angles, *(0.2 * data.qvel[:n]), *middle, *cube, *aim, *tips, *last, *action]
    return np.clip(obs, -5, 5)


@pytest.mark.parametrize(
    "name, options",
    [
        ("AllegroHand", {}),
        ("AllegroHand", {"observations": "full_no_vel", "asymmetric": True}),
        ("ShadowHand", {"observations": "full"}),
        ("ShadowHand", {"observations": "openai", "asymmetric": True}),
    ],
)
def test_steps_equal_a_slow_recomputation_from_plain_mujoco(name, options, single, actions):
    env = tasks.make(name, 2, seed=4, threads=1, **options)
    kind, m = options.get("observations", "full_state"), env.action_dim
    assert env.obs_dim == {"AllegroHand": {"full_state": 88, "full_no_vel": 50},
                           "ShadowHand": {"full": 157, "openai": 42}}[name][kind]  # fmt: skip
    robots, goals, ends, reached = [single(env, index) for index in range(2)], env._memory["goal"].numpy().copy(), 0, 0
    low, high = env.simulator.model.actuator_ctrlrange.T
    for number, raw in enumerate(actions(env, 60)):
        if number == 0:  # the second goal is where its cube is, which falls as it is: a step later it is reached
            env._memory["goal"][1] = torch.from_numpy(env.simulator.batch.qpos[1, -4:])
            goals[1] = env._memory["goal"][1].numpy()
        step = env.step(raw)
        for index, robot in enumerate(robots):
            action, n = np.clip(raw[index].numpy(), -1, 1), robot.model.njnt - 1
            if not step.terminated[index]:
                ctrl = env.simulator.batch.ctrl[index]
                np.testing.assert_allclose(ctrl, low + (high - low) * (action + 1) / 2, atol=1e-6)
                robot.step(ctrl)
                np.testing.assert_array_equal(robot.data.qpos, env.simulator.batch.qpos[index])
            if step.terminated[index]:  # it stands at its next start: what is compared is that, below
                ends += 1
                robot.restart()
                goals[index] = env._memory["goal"][index].numpy()
                first = slow_obs(robot, name, goals[index], np.zeros(m), np.zeros(m), np.zeros(30 * (n == 24)), kind)
                np.testing.assert_allclose(step.obs[index], first, atol=2e-5)
                continue
            goals[index] = env._memory["goal"][index].numpy()
            want = [robot, name, goals[index], action, robot.sensors[:m], robot.sensors[-30:] if n == 24 else []]
            np.testing.assert_allclose(step.next_obs[index], slow_obs(*want, kind), atol=1e-4, rtol=1e-5)
            if options.get("asymmetric"):
                full = slow_obs(*want, "full_state")
                np.testing.assert_allclose(step.next_critic_obs[index], full, atol=1e-4, rtol=1e-5)
            away = np.linalg.norm(robot.data.qpos[n : n + 3] - GOAL[name])
            apart = product(robot.data.qpos[n + 3 :], back(goals[index]))
            angle = 2 * math.asin(min(1, np.linalg.norm(apart[1:])))
            hit = angle <= 0.1
            reward = -10 * away + 1 / (angle + 0.1) - 0.0002 * (action**2).sum() + 250 * hit
            assert float(step.reward[index]) == pytest.approx(reward, rel=1e-4, abs=1e-3)
            assert away < 0.24
            assert bool(env._memory["hit"][index]) == hit
            if number == 0 and index == 1:
                reached += hit
    assert reached == 1 and (ends > 0 or name == "ShadowHand"), (reached, ends)


def test_goals_follow_one_another_and_are_counted_until_the_episode_ends():
    env = tasks.make("ShadowHand", 3, seed=2, threads=1)
    env.max_episode_steps = env.task.max_episode_steps = 8
    seen = []
    for number in range(8):
        before = env._memory["goal"].clone()
        if number in (2, 5):
            env._memory["goal"][0] = before[0] = torch.from_numpy(env.simulator.batch.qpos[0, -4:])
        step = env.step(torch.zeros(3, 20))
        hit = number in (2, 5)
        assert (step.info["reward/success"] == torch.tensor([250.0 * hit, 0, 0])).all()
        counted = step.info["consecutive_successes"]
        if number < 7:
            after = env._memory["goal"]
            assert torch.isnan(counted).all()
            # The goal that is reached is shown until the next step, and only then is there another.
            assert torch.equal(after, before) or number in (3, 6)
            assert torch.equal(after[1:], before[1:])
            seen.append(after[0].clone())
    assert counted.tolist() == [2, 0, 0]
    assert not torch.equal(seen[3], seen[2]) and not torch.equal(seen[6], seen[5]) and torch.equal(seen[4], seen[3])
    assert step.truncated.all() and (env._memory["goals"] == 0).all()


@pytest.mark.parametrize("name", HANDS)
def test_starts_and_goals_are_drawn_as_in_the_source(name):
    stats = pytest.importorskip("scipy.stats")
    env = tasks.make(name, 1024, seed=5, threads=1)
    model, n = env.simulator.model, env.simulator.model.njnt - 1
    qpos, (low, high) = env.simulator.batch.qpos, model.jnt_range[: model.njnt - 1].T
    share = (qpos[:, :n] / 0.2 - low) / (high - low)
    free = [joint for joint in range(n) if 0.2 * low[joint] >= low[joint] and 0.2 * high[joint] <= high[joint]]
    assert n - len(free) == (name == "AllegroHand")  # its thumb's first joint begins at its limit, mostly
    # False alarms: 8 tests at 1e-4 each.
    assert stats.kstest(share[:, free].ravel()[:: len(free)], "uniform").pvalue > 1e-4
    place = (qpos[:, n : n + 3] - GOAL[name] - [0, 0, 0.04]) / 0.01
    assert stats.kstest(place.ravel(), "uniform", args=(-1, 2)).pvalue > 1e-4
    turns, first = qpos[:, n + 3 :].copy(), env._memory["goal"].numpy().copy()
    env._memory["hit"][:] = True
    env.step(torch.zeros(1024, env.action_dim))
    second = env._memory["goal"].numpy().copy()
    for w, x, y, z in (turns.T, first.T, second.T):
        np.testing.assert_allclose(w * z, x * y, atol=1e-6)  # a turn about x, then one about y
        for angle in (2 * np.arctan2(x, w), 2 * np.arctan2(y, w)):
            assert stats.kstest((angle / math.pi + 1) % 2, "uniform", args=(0, 2)).pvalue > 1e-4
    assert np.abs(first - second).max(1).min() > 1e-3 and len(np.unique(second[:, 0])) > 1000


def test_pictures_show_the_goal():
    env = tasks.make("AllegroHand", 2, seed=1, threads=1)
    try:
        before = env.render(160, 120, 1)
    except tasks.TaskError as error:
        pytest.skip(str(error))
    env._memory["goal"][1] = torch.tensor([0.6, 0.0, 0.8, 0.0])
    assert (env.render(160, 120, 1)[:, :80] != before[:, :80]).any()  # it is left of the hand
    assert (env.render(160, 120, 1)[:, 100:] == before[:, 100:]).all()


def test_wrong_options_are_told_in_one_line():
    with pytest.raises(tasks.TaskError, match="must be one of full_state, full, full_no_vel, not 'openai'"):
        tasks.make("AllegroHand", 1, observations="openai")
    with pytest.raises(tasks.TaskError, match="asymmetric must be true or false, not 1"):
        tasks.make("ShadowHand", 1, asymmetric=1)
