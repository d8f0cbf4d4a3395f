"""Do the robots weigh, stand, settle and fall as they should? And what a policy that does nothing earns."""

import math

import numpy as np
import pytest

import tasks
from tasks.check import check, main

mujoco = pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")


def body(task):
    model = mujoco.MjModel.from_xml_string(task.mjcf())
    return model, mujoco.MjData(model)


def capsule(radius, length):
    return math.pi * radius**2 * length + 4 / 3 * math.pi * radius**3


def test_ant_weighs_what_its_sizes_say():
    model, _ = body(tasks.Ant())
    links = 8 * capsule(0.08, 0.2 * math.sqrt(2)) + 4 * capsule(0.08, 0.4 * math.sqrt(2))
    assert model.body_mass.sum() == pytest.approx(5 * (4 / 3 * math.pi * 0.25**3 + links), rel=1e-6)
    assert model.body_mass.sum() == pytest.approx(0.911, abs=5e-4)


def test_limp_ant_settles_on_its_feet():
    model, data = body(tasks.Ant())
    data.qpos[7:] = [0, 0.6, 0, -0.6, 0, -0.6, 0, 0.6]
    for _ in range(600):
        mujoco.mj_step(model, data)
    assert 0.38 < data.qpos[2] < 0.44
    assert data.ncon == 4
    assert np.abs(data.qvel).max() < 1e-3


def test_held_ant_stands_and_its_feet_carry_it():
    model, data = body(tasks.Ant())
    pose = np.array([0, 1, 0, -1, 0, -1, 0, 1.0])
    data.qpos[7:], data.qpos[2] = pose, 0.6
    for _ in range(900):
        data.ctrl[:] = (45 * (pose - data.qpos[7:]) - 3 * data.qvel[6:]) / 15
        mujoco.mj_step(model, data)
    assert data.qpos[2] == pytest.approx(0.56, abs=0.02)  # .4 sqrt 2 sin(1) + .08, and 2 cm of contact margin
    assert data.ncon == 4
    # What the feet pass up is the weight of all above the ankles.
    feet = [number for number in range(model.nbody) if "foot" in model.body(number).name]
    lift = 0.0
    for number, foot in enumerate(feet):
        site = model.site(model.body(foot).name).id
        lift += (data.site_xmat[site].reshape(3, 3) @ data.sensordata[6 * number : 6 * number + 3])[2]
    assert abs(lift) == pytest.approx((model.body_mass.sum() - model.body_mass[feet].sum()) * 9.81, rel=1e-3)


def touching(model, qpos):
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_forward(model, data)
    return [{model.body(model.geom_bodyid[geom]).name for geom in contact.geom} for contact in data.contact]


def test_robots_start_free_of_the_floor_and_of_themselves():
    for name in ("Ant", "Humanoid", "BallBalance"):
        env = tasks.make(name, 64, seed=1)
        nominal = env.simulator.model.qpos0.copy()
        if name == "Ant":
            nominal[8::2] = np.radians([30, -30, -30, 30])
        assert touching(env.simulator.model, nominal) == [], name
        for qpos in env.simulator.batch.qpos:
            for pair in touching(env.simulator.model, qpos):
                # As in the source, the noise of +-.2 rad on its hips crosses a humanoid's legs now and then, and on
                # an ankle it puts an ant's foot 1.5 cm into the floor: .4 sqrt 2 sin(30 deg + .2) + .08 - .44.
                sides = sorted(part.split("_")[0] for part in pair)
                crossed = name == "Humanoid" and sides == ["left", "right"]
                assert crossed or (name == "Ant" and "world" in pair), (name, pair)


def test_humanoid_has_a_human_mass_and_falls_to_rest():
    model, data = body(tasks.Humanoid())
    masses = {model.body(i).name: model.body_mass[i] for i in range(1, model.nbody)}
    assert 38 < sum(masses.values()) < 44
    assert masses["right_thigh"] == pytest.approx(1000 * capsule(0.06, math.hypot(0.01, 0.34)), rel=1e-6)
    np.testing.assert_allclose(
        [mass for name, mass in masses.items() if "right" in name],
        [mass for name, mass in masses.items() if "left" in name],
    )
    for _ in range(1200):
        mujoco.mj_step(model, data)
    assert 0.05 < data.qpos[2] < 0.5
    assert data.ncon >= 3
    assert np.abs(data.qvel).max() < 0.3
    assert min(contact.dist for contact in data.contact) > -0.01


# What the reward's formula gives; the bands allow for the starts' noise (64 episodes) and for the last bit of floats.
EXPECTED = {
    # Stands for 1000 steps: alive .5 + up .1 + heading .5 - four ankles at their limit x .1 = .7 a step.
    ("Ant", "zero"): ((680, 730), (1000, 1000)),
    # Torques of +-15 N m on 1 kg of ant toss it over within seconds, no way made on average.
    ("Ant", "random"): ((-120, 120), (100, 600)),
    # Falls as cosh(4.9 t) from some .05 rad, 60 steps or so, most of them near upright.
    ("Cartpole", "zero"): ((25, 45), (45, 70)),
    # A push of up to 400 N on 2 kg: beyond a right angle within a quarter of a second.
    ("Cartpole", "random"): ((-2, 10), (8, 25)),
    # A ball on a flat tray rolls on: four of five leave, the others rest at about .9 a step.
    ("BallBalance", "zero"): ((60, 220), (120, 350)),
    ("BallBalance", "random"): ((5, 30), (50, 130)),
    # A limp fall from 1.34 to .8 m takes at least 20 steps (free fall), at 2.6 a step less what its springs cost.
    ("Humanoid", "zero"): ((60, 120), (30, 60)),
    ("Humanoid", "random"): ((20, 80), (20, 45)),
    # A fall from .8 to 2.5 m down to .3 m takes 32 to 67 steps, at 1 to 1.5 a step, for .75 m aside.
    ("Quadcopter", "zero"): ((55, 80), (45, 58)),
    # Half its thrust of 8 N is twice its weight, but not for long: it turns over.
    ("Quadcopter", "random"): ((40, 80), (70, 115)),
    # A fall on Mars from .8 to 2.5 m down to .5 m takes 40 to 104 steps, most of them far from the target.
    ("Ingenuity", "zero"): ((25, 90), (70, 82)),
    # Thrusts that change sign at every step cancel out.
    ("Ingenuity", "random"): ((25, 90), (70, 88)),
}


@pytest.mark.parametrize("name", ["Ant", "BallBalance", "Cartpole", "Humanoid", "Ingenuity", "Quadcopter"])
def test_zero_and_random_policies_earn_what_the_formulas_say(name):
    for policy, found in check(name, num_envs=64, seed=11).items():
        (low, high), (short, long) = EXPECTED[name, policy]
        assert low < found["episode_return"] < high, (policy, found)
        assert short <= found["episode_length"] <= long, (policy, found)
        assert found["diverged"] == 0


def test_check_prints_both_policies_and_names_the_nearest_task(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["check", "Cartpole", "--num-envs", "4"])
    assert main() == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["zero", "random"]
    monkeypatch.setattr("sys.argv", ["check", "Cartpolle"])
    assert main() == 2
    assert "did you mean Cartpole?" in capsys.readouterr().err
