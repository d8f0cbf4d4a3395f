"""Sets of environments in one simulation: each does what it does alone, to the bit."""

from __future__ import annotations

import pytest
import torch

import tasks

SEEDS, N = (3, 14, 15), 4


@pytest.fixture(params=["mujoco", "mujoco_warp"])
def both(request, mujoco):
    """The same environments, in one simulation and in one each."""
    if request.param == "mujoco_warp":
        pytest.importorskip("mujoco_warp", reason="needs mujoco-warp: pip install .[gpu]")
    on = {"sim": request.param, "device": "cpu"}
    return tasks.make("Cartpole", N, seed=SEEDS, **on), [tasks.make("Cartpole", N, seed=s, **on) for s in SEEDS]


def walk(whole, alone, steps):
    """Pushed so hard that episodes end and begin anew; whether all that is seen agreed."""
    generator = torch.Generator().manual_seed(0)
    agreed, ended = True, 0
    for _ in range(steps):
        action = torch.rand(len(SEEDS) * N, 1, generator=generator) * 2 - 1
        step, parts = whole.step(action), [env.step(a) for env, a in zip(alone, action.split(N))]
        ended += int(step.terminated.sum())
        for name in ("obs", "reward", "terminated", "truncated", "next_obs", "valid"):
            agreed &= torch.equal(getattr(step, name), torch.cat([getattr(part, name) for part in parts]))
    assert ended > 10
    return agreed


def test_each_set_draws_and_moves_as_it_does_alone(both):
    whole, alone = both
    assert torch.equal(whole.reset(), torch.cat([env.reset() for env in alone]))
    assert walk(whole, alone, 200)


def test_a_set_has_the_state_of_environments_alone_and_takes_it(both):
    whole, alone = both
    assert walk(whole, alone, 60)
    kept = [{k: v.clone() for k, v in env.state_dict().items()} for env in alone]
    for one, state in zip(whole.sets, kept):
        mine = one.state_dict()
        assert mine.keys() == state.keys()
        assert all(torch.equal(mine[k], state[k]) for k in state)
    walk(whole, alone, 30)
    whole.sets[1].load_state_dict(kept[1])
    alone[1].load_state_dict(kept[1])
    assert walk(whole, alone, 60)


def test_contacts_without_room_are_counted_by_set(mujoco):
    """The memory is one, and so is what finds no room: two environments a set, on four feet each."""
    pytest.importorskip("mujoco_warp", reason="needs mujoco-warp: pip install .[gpu]")
    env = tasks.make("Ant", 2, seed=SEEDS, sim="mujoco_warp", device="cpu", contacts_per_env=1)
    for _ in range(40):
        counts = env.step(torch.zeros(6, env.action_dim)).info["contact_overflows"]
    assert counts.shape == (3,) and counts.min() > 2
    assert [int(one.state_dict()["sim.contact_overflows"].sum()) for one in env.sets] == counts.tolist()


def test_simulators_that_step_one_set_say_so():
    pytest.importorskip("gymnasium", reason="needs gymnasium: pip install .[gym]")
    with pytest.raises(tasks.TaskError, match="several seeds together"):
        tasks.make("CartPole-v1", 2, sim="gymnasium", seed=[0, 1])
