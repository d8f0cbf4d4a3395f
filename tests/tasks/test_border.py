"""What a task returns is checked as its environments are made: nothing of another shape is broadcast."""

import pytest
import torch

import tasks
from tasks.border import look_at_first_step

pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")


class Pair(tasks.Task):
    """Two blocks on rails, a motor each."""

    obs_dim, action_dim, max_episode_steps, substeps = 4, 2, 10, 1

    def mjcf(self):
        body = '<body pos="0 {0} 0"><joint name="rail{0}" type="slide" axis="1 0 0"/><geom size=".1" mass="1"/></body>'
        motor = '<motor joint="rail{0}" ctrlrange="-1 1"/>'
        two = (0, 1)
        return (
            f'<mujoco><option timestep="0.1" gravity="0 0 0"/><worldbody>{"".join(map(body.format, two))}</worldbody>'
            f'<actuator>{"".join(map(motor.format, two))}</actuator></mujoco>'
        )

    def reset(self, sampler):
        return tasks.Start(sampler.uniform(-1, 1, 2), sampler.uniform(-1, 1, 2), {"age": torch.zeros(3)})

    def observe(self, state, memory):
        return torch.cat((state.qpos, state.qvel), 1)

    def judge(self, state, obs, action, memory):
        return -obs[:, 0].abs(), obs[:, 0].abs() > 2


REWARD = "Pair.judge gave {}, but the reward must be one number per environment, (3,)"
ENDED = "Pair.judge gave {}, but terminated must be one bool per environment, (3,)"
CONTROL = "Pair.control gave {}, but the model has 2 actuators (action_dim = {} was declared), so controls must be "


def judged(change):
    def judge(self, state, obs, action, memory):
        return change(*Pair.judge(self, state, obs, action, memory))

    return {"judge": judge}


WRONG = {
    "one action for two actuators": (
        {"action_dim": 1, "control": lambda self, action, memory: action[:, :1]},
        CONTROL.format("(3, 1)", 1) + "(3, 2)",
    ),
    "wrong action_dim": ({"action_dim": 3}, CONTROL.format("(3, 3)", 3) + "(3, 2)"),
    "one reward for all": (judged(lambda r, t: (r.mean(), t)), REWARD.format("()")),
    "reward in a column": (judged(lambda r, t: (r[:, None], t)), REWARD.format("(3, 1)")),
    "reward of whole numbers": (judged(lambda r, t: (r.long(), t)), REWARD.format("int64") + ", of float32"),
    "reward as a Python number": (judged(lambda r, t: (1.0, t)), REWARD.format("float") + ", a torch tensor"),
    "float terminated": (judged(lambda r, t: (r, t.float())), ENDED.format("float32 (3,)")),
    "terminated in a column": (judged(lambda r, t: (r, t[:, None])), ENDED.format("bool (3, 1)")),
    "reward alone": (judged(lambda r, t: r), "Pair.judge gave Tensor, but must give (reward, terminated)"),
    "float64 observations": (
        {"observe": lambda self, state, memory: Pair.observe(self, state, memory).double()},
        "Pair.observe gave float64, but obs_dim = 4 was declared: (3, 4), of float32",
    ),
    "one observation for all": (
        {"observe": lambda self, state, memory: Pair.observe(self, state, memory)[:1]},
        "Pair.observe gave (1, 4), but obs_dim = 4 was declared: (3, 4)",
    ),
    "one start for all": (
        {"reset": lambda self, sampler: tasks.Start(torch.zeros(1, 2), torch.zeros(3, 2))},
        "Pair.reset gave (1, 2), but qpos must be (3, 2)",
    ),
    "one memory for all": (
        {"reset": lambda self, sampler: tasks.Start(torch.zeros(3, 2), torch.zeros(3, 2), {"age": torch.zeros(1)})},
        "Pair.reset gave age (1,), but what is remembered must have a row per environment, (3, ...)",
    ),
    "metric of another length": (
        {"metrics": lambda self, state: {"speed": torch.zeros(2)}},
        "Pair.metrics gave speed (2,), but a metric must be one number, or have a row per environment, (3, ...)",
    ),
    "no obs_dim": ({"obs_dim": None}, "Pair.obs_dim is None: must be a whole number of at least 1"),
}


@pytest.fixture
def made():
    def make(**changes):
        tasks.register("Pair", type("Pair", (Pair,), changes))
        return tasks.make("Pair", 3)

    yield make
    tasks.registry._TASKS.pop("Pair")


@pytest.mark.parametrize("case", WRONG)
def test_what_would_be_broadcast_is_refused_naming_function_and_rule(made, case):
    changes, said = WRONG[case]
    with pytest.raises(tasks.TaskError) as caught:
        made(**changes)
    assert str(caught.value) == said


def test_task_that_keeps_the_rules_draws_as_before_it_was_checked(made):
    env = made()
    first = env.reset().clone()
    fresh = torch.Generator().manual_seed(0)
    draw = [torch.rand((3, 2), generator=fresh) * 2 - 1 for _ in range(4)][2:]  # the second reset's
    torch.testing.assert_close(first, torch.cat(draw, 1))
    assert env.step(torch.ones(3, 2)).valid.all()


def test_task_on_float64_state_may_return_float64(made):
    env = made(dtype=torch.float64)
    step = env.step(torch.ones(3, 2))
    assert step.obs.dtype == step.reward.dtype == torch.float32


class Foreign(tasks.VectorEnv):
    """Environments that a plugin's simulator brings, one tensor of whose steps may be another than it must be."""

    name, num_envs, obs_dim, action_dim, critic_obs_dim = "Foreign", 3, 4, 2, 5

    def __init__(self, **changes):
        self.changes = changes

    def reset(self):
        return torch.zeros(3, 4)

    def step(self, action):
        no, seen, told = torch.zeros(3, dtype=torch.bool), torch.zeros(3, 4), torch.zeros(3, 5)
        step = tasks.Step(seen, torch.zeros(3), no, no, seen, ~no, {}, told, told)
        return step._replace(**self.changes)


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("reward", torch.zeros(3, 1), "float32 (3, 1), but it must be float32 (3,)"),
        ("reward", torch.zeros(()), "float32 (), but it must be float32 (3,)"),
        ("terminated", torch.zeros(3), "float32 (3,), but it must be bool (3,)"),
        ("valid", True, "bool, but it must be a tensor, bool (3,)"),
        ("next_obs", torch.zeros(1, 4), "float32 (1, 4), but it must be float32 (3, 4)"),
        ("obs", torch.zeros(3, 4, dtype=torch.float64), "float64 (3, 4), but it must be float32 (3, 4)"),
        ("next_critic_obs", None, "NoneType, but it must be a tensor, float32 (3, 5)"),
    ],
)
def test_step_of_a_simulator_that_brings_its_own_environments_is_looked_at_once(name, value, said):
    with pytest.raises(tasks.TaskError) as caught:
        look_at_first_step(Foreign(**{name: value})).step(torch.zeros(3, 2))
    assert str(caught.value) == f"Foreign.step gave {name} as {said}"


def test_what_keeps_the_promises_steps_as_before():
    env = look_at_first_step(Foreign())
    env.step(torch.zeros(3, 2))
    assert "step" not in vars(env)  # from now on nothing stands between
