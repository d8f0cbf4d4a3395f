"""Shared by the tests of tasks: one torch thread, a plain MuJoCo to compare with, short rollouts."""

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def one_torch_thread():
    """As in any process that simulates; restored for the tests of other packages."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def mujoco():
    return pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")


class Single:
    """One environment in plain MuJoCo: an MjData stepped by mj_step, started where environment `index` stands."""

    def __init__(self, mujoco, env, index):
        self.mujoco, self.env, self.index = mujoco, env, index
        self.model = env.simulator.model
        self.data = mujoco.MjData(self.model)
        self.restart()

    def restart(self):
        self.mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = self.env.simulator.batch.qpos[self.index]
        self.data.qvel[:] = self.env.simulator.batch.qvel[self.index]
        self.sensors = np.zeros(self.model.nsensordata)  # the contract at an episode's start

    def step(self, ctrl):
        self.data.ctrl[:] = ctrl
        for _ in range(self.env.task.substeps):
            self.mujoco.mj_step(self.model, self.data)
        self.sensors = self.data.sensordata.copy()

    def body(self, name):
        """Position, rotation matrix (body to world), velocity and angular velocity in the body's own axes."""
        fresh = self.mujoco.MjData(self.model)
        fresh.qpos[:], fresh.qvel[:] = self.data.qpos, self.data.qvel
        self.mujoco.mj_forward(self.model, fresh)
        number = self.model.body(name).id
        twist = np.zeros(6)
        self.mujoco.mj_objectVelocity(self.model, fresh, self.mujoco.mjtObj.mjOBJ_XBODY, number, twist, 1)
        return fresh.xpos[number].copy(), fresh.xmat[number].reshape(3, 3).copy(), twist[3:], twist[:3]


@pytest.fixture
def single(mujoco):
    return lambda env, index: Single(mujoco, env, index)


@pytest.fixture
def actions():
    """A generator of random actions in [-1.2, 1.2]: beyond the range, so that clipping shows."""

    def draw(env, steps, seed=0):
        source = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            yield torch.rand(env.num_envs, env.action_dim, generator=source) * 2.4 - 1.2

    return draw
