"""A step has no host synchronisation and no branch on values: what capturing it in a CUDA graph asks for.

Fake tensors have shapes but no values, so `.item()`, `nonzero`, boolean indexing or `if tensor:` raise.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

import tasks
from tasks.env import TaskEnv
from tasks.suite import TASKS

mujoco = pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")


class Shapes(tasks.Simulator):
    """A simulator without physics: states of the right shapes."""

    def __init__(self, task, num_envs):
        self.model = mujoco.MjModel.from_xml_string(task.mjcf())
        self.num_envs, self.device, self.dt = num_envs, torch.device("cpu"), 0.01
        data = mujoco.MjData(self.model)
        self.fields = {name: getattr(data, name).shape for name in task.reads}

    def step(self, ctrl):
        assert ctrl.shape == (self.num_envs, self.model.nu)
        return self.state(), torch.zeros(self.num_envs, dtype=torch.bool)

    def state(self):
        sizes = self.model.nq, self.model.nv, self.model.nsensordata
        fields = {name: torch.zeros(self.num_envs, *shape) for name, shape in self.fields.items()}
        return tasks.State(*(torch.zeros(self.num_envs, size) for size in sizes), fields)

    def reset(self, mask, start):
        assert mask.shape == (self.num_envs,)
        shapes = (self.num_envs, self.model.nq), (self.num_envs, self.model.nv)
        assert (start.qpos.shape, start.qvel.shape) == shapes

    advance = state_dict = load_state_dict = None


@pytest.mark.parametrize("name", TASKS)
def test_step_never_looks_at_a_value(name):
    task = tasks.get(name)()
    with FakeTensorMode():
        env = TaskEnv(name, task, Shapes(task, 4))
        env._on_host = False  # as on a GPU
        step = env.step(torch.zeros(4, env.action_dim))
        assert step.obs.shape == step.next_obs.shape == (4, env.obs_dim)
        assert {step.obs.dtype, step.reward.dtype} == {torch.float32}


def test_fake_tensors_would_catch_a_look_at_a_value():
    class Peeks(tasks.Cartpole):
        def judge(self, state, obs, action, memory):
            reward, lost = super().judge(state, obs, action, memory)
            return (reward - 1 if lost.any() else reward), lost

    task = Peeks()
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        TaskEnv("Peeks", task, Shapes(task, 4)).step(torch.zeros(4, 1))
