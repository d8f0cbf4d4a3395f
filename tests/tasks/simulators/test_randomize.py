"""Model fields that differ between environments: the same on both engines, and what derives from them follows."""

import importlib.util

import numpy as np
import pytest
import torch

import tasks

mujoco = pytest.importorskip("mujoco", reason="the MuJoCo simulators need mujoco 4 and Python 3.11")
needs_warp = pytest.mark.skipif(
    importlib.util.find_spec("mujoco_warp") is None, reason="needs mujoco-warp: pip install .[gpu]"
)
N = 6


@pytest.fixture(params=["mujoco", pytest.param("mujoco_warp", marks=needs_warp)])
def sim(request):
    return {"sim": request.param, "device": "cpu"}


class Varied(tasks.Ant):
    """Ants heavier and heavier, the third on a slippery floor, the fourth with stiff joints."""

    def setup(self, model, device):
        super().setup(model, device)
        self._varied = {
            name: torch.as_tensor(getattr(model, name), dtype=torch.float32).repeat(N, *[1] * getattr(model, name).ndim)
            for name in ("body_mass", "body_inertia", "geom_friction", "dof_damping")
        }
        factor = torch.linspace(0.5, 2.0, N)
        self._varied["body_mass"] *= factor[:, None]
        self._varied["body_inertia"] *= factor[:, None, None]
        self._varied["geom_friction"][2, :, 0] = 0.2
        self._varied["dof_damping"][3] *= 5

    def randomize(self, sampler):
        return self._varied

    def reset(self, sampler):
        start = super().reset(sampler)
        return start._replace(qvel=torch.zeros_like(start.qvel))


@pytest.fixture(autouse=True)
def varied():
    tasks.register("Varied", Varied)
    yield
    tasks.registry._TASKS.pop("Varied")


def actions(env, steps):
    source = torch.Generator().manual_seed(0)
    return [torch.rand(env.num_envs, env.action_dim, generator=source) * 2 - 1 for _ in range(steps)]


def positions(env):
    return np.stack([np.array(env.simulator.positions(index), dtype=float) for index in range(env.num_envs)])


def test_each_environment_moves_as_a_model_with_its_values(sim):
    """Against plain MuJoCo with a model per environment, whose derived constants come from mj_setConst."""
    env = tasks.make("Varied", N, seed=1, **sim)
    plain = []
    for index, start in enumerate(positions(env)):
        model = mujoco.MjModel.from_xml_string(env.task.mjcf())
        for name, values in env.task._varied.items():
            getattr(model, name)[:] = values[index].numpy()
        data = mujoco.MjData(model)
        mujoco.mj_setConst(model, data)
        mujoco.mj_resetData(model, data)
        data.qpos[:] = start
        plain.append((model, data))
    for action in actions(env, 20):
        env.step(action)
        for (model, data), ctrl in zip(plain, action):
            data.ctrl[:] = ctrl.numpy()
            mujoco.mj_step(model, data, env.task.substeps)
    expected = np.stack([data.qpos for _, data in plain])
    np.testing.assert_allclose(positions(env), expected, atol=1e-9 if sim["sim"] == "mujoco" else 5e-5)
    assert np.abs(expected[0] - expected[-1])[7:].max() > 0.05


def test_without_values_of_their_own_all_share_one_model(sim):
    env = tasks.make("Ant", N, **sim)
    assert env.task.randomize(env._sampler) == {}
    assert not any(key.startswith("sim.model.") for key in env.state_dict())


def test_restored_environment_has_the_values_too(sim):
    env = tasks.make("Ant", N, seed=1, randomize=0.5, **sim)
    for action in actions(env, 5):
        env.step(action)
    saved = env.state_dict()
    assert saved["sim.model.body_mass"].shape == (N, 10)
    other = tasks.make("Ant", N, seed=2, randomize=0.5, **sim)
    assert not torch.equal(other.state_dict()["sim.model.body_mass"], saved["sim.model.body_mass"])
    other.load_state_dict(saved)
    for action in actions(env, 30):
        assert torch.equal(env.step(action).next_obs, other.step(action).next_obs)
    with pytest.raises(tasks.TaskError, match="not one of Ant"):
        tasks.make("Ant", N, **sim).load_state_dict(saved)


@pytest.mark.parametrize("name", ["Ant", "Humanoid"])
def test_runners_differ_in_mass_and_friction_within_the_range_asked_for(name):
    env = tasks.make(name, 64, sim="mujoco", randomize=0.3)
    model, state = env.simulator.model, env.state_dict()
    for field in ("body_mass", "body_inertia", "geom_friction"):
        ratio = (state[f"sim.model.{field}"] / torch.from_numpy(getattr(model, field)).clamp(min=1e-12)).flatten(1)
        ratio = ratio[:, torch.from_numpy(getattr(model, field)).flatten() > 0]  # the world has no mass
        torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
        assert 0.7 - 1e-6 < ratio.min() < 0.75 and 1.25 < ratio.max() < 1.3 + 1e-6


def test_range_of_one_or_more_is_refused():
    with pytest.raises(tasks.TaskError, match=r"randomize=1\.0: must be in \[0, 1\)"):
        tasks.make("Ant", 2, sim="mujoco", randomize=1.0)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"body_weight": torch.ones(N, 10)}, "body_weight"),
        ({"body_mass": torch.ones(N, 9)}, r"'body_mass' takes values \(6, 10\), not \(6, 9\)"),
        ({"body_mass": torch.ones(10)}, r"'body_mass' takes values \(6, 10\), not \(10,\)"),
    ],
)
def test_mistakes_about_fields_are_named_in_one_line(sim, fields, words):
    class Mistaken(tasks.Ant):
        def randomize(self, sampler):
            return fields

    tasks.register("Mistaken", Mistaken)
    try:
        with pytest.raises(tasks.TaskError, match=words) as caught:
            tasks.make("Mistaken", N, **sim)
    finally:
        tasks.registry._TASKS.pop("Mistaken")
    assert "\n" not in str(caught.value)
