"""Cartpole against a slow recomputation and against its equation of motion."""

import math

import numpy as np
import pytest
import torch

import tasks

mujoco = pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")

# The hinge sits .47 m under the middle of a bar of .06 x 1 m and 1 kg, on a cart of 1 kg that rolls freely.
ARM, INERTIA = 0.47, 1.0 * (0.06**2 + 1.0**2) / 12


def test_step_equals_a_slow_recomputation_from_plain_mujoco(single, actions):
    env = tasks.make("Cartpole", 4, seed=1)
    carts = [single(env, index) for index in range(4)]
    lost_count = 0
    for raw in actions(env, 80):
        step = env.step(raw)
        for index, cart in enumerate(carts):
            cart.step(np.clip(raw[index].numpy(), -1, 1))
            (x, angle), (speed, turn) = cart.data.qpos, cart.data.qvel
            np.testing.assert_allclose(step.next_obs[index], np.clip([x, speed, angle, turn], -5, 5), atol=1e-5)
            lost = abs(x) > 3 or abs(angle) > math.pi / 2
            reward = -2 if lost else 1 - angle**2 - 0.01 * abs(speed) - 0.005 * abs(turn)
            assert float(step.reward[index]) == pytest.approx(reward, abs=1e-5)
            assert bool(step.terminated[index]) == lost
            if lost:
                lost_count += 1
                cart.restart()
                (x, angle), (speed, turn) = cart.data.qpos, cart.data.qvel
                np.testing.assert_allclose(step.obs[index], [x, speed, angle, turn], atol=1e-6)
    assert lost_count > 3


def test_full_action_pushes_with_400_newton():
    env = tasks.make("Cartpole", 1)
    env.simulator.batch.qpos[:] = 0
    env.simulator.batch.qvel[:] = 0
    step = env.step(torch.ones(1, 1))
    # Upright and at rest: M a_cart = [[2, -ARM], [-ARM, I + ARM^2]] for a force on the cart alone, over 1/60 s.
    matrix = np.array([[2.0, -ARM], [-ARM, INERTIA + ARM**2]])
    cart, pole = np.linalg.solve(matrix, [400.0, 0.0]) / 60
    # The pole has turned by .1 rad meanwhile, hence the per cent.
    assert env.simulator.batch.qvel[0, 0] == pytest.approx(cart, rel=0.02)
    assert abs(env.simulator.batch.qvel[0, 1]) == pytest.approx(abs(pole), rel=0.05)
    assert bool(step.valid.all())


def test_hanging_pole_swings_with_the_period_of_its_equation():
    model = mujoco.MjModel.from_xml_string(tasks.Cartpole().mjcf())
    data = mujoco.MjData(model)
    data.qpos[1] = math.pi - 0.05
    crossings, before = [], None
    for _ in range(1200):
        mujoco.mj_step(model, data)
        after = data.qpos[1] - math.pi
        if before is not None and before < 0 <= after:
            crossings.append(data.time - model.opt.timestep * after / (after - before))
        before = after
    # Small swings of a pole m on a free cart M, both 1 kg: omega^2 = (M + m) m g l / ((M + m) (I + m l^2) - (m l)^2).
    omega = math.sqrt(2 * 9.81 * ARM / (2 * (INERTIA + ARM**2) - ARM**2))
    assert np.diff(crossings).mean() == pytest.approx(2 * math.pi / omega, rel=0.005)
    # The cart, pushed by nobody, keeps the common centre of mass in place.
    middle = data.qpos[0] - ARM * math.sin(data.qpos[1]) / 2
    assert middle == pytest.approx(-ARM * math.sin(math.pi - 0.05) / 2, abs=1e-3)


def test_free_swing_keeps_its_energy_as_the_timestep_shrinks():
    """No hidden damping: what energy is lost is the integrator's first-order error, a tenth at a tenth of the step."""
    lost = []
    for fraction in (1, 10):
        model = mujoco.MjModel.from_xml_string(tasks.Cartpole().mjcf())
        model.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_ENERGY
        model.opt.timestep /= fraction
        data = mujoco.MjData(model)
        data.qpos[1] = 2.0
        mujoco.mj_forward(model, data)
        start = data.energy.sum()
        for _ in range(600 * fraction):
            mujoco.mj_step(model, data)
        mujoco.mj_forward(model, data)
        lost.append(abs(data.energy.sum() - start))
    assert lost[0] < 0.3  # of 5 J that the swing turns over, in 5 s
    assert lost[1] < 0.15 * lost[0]


def test_reset_is_uniform_in_its_ranges():
    scipy_stats = pytest.importorskip("scipy.stats")
    env = tasks.make("Cartpole", 4096, seed=2)
    for values, reach in ((env.simulator.batch.qpos, 0.1), (env.simulator.batch.qvel, 0.25)):
        for column in values.T:
            # False alarms: 4 tests at 1e-4.
            assert scipy_stats.kstest(column, "uniform", args=(-reach, 2 * reach)).pvalue > 1e-4
