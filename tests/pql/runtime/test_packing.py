"""How many runs side by side are worth it."""

from __future__ import annotations

import dataclasses

import pytest

from pql import config
from pql.errors import UserError
from pql.runtime import packing
from tasks import TaskError


@pytest.fixture
def cartpole(mujoco):
    words = ["task=Cartpole", "runtime=sync", "device=cpu", "num_envs=64", "algo.utd=0.0625", "algo.batch_size=128"]
    return config.load([*words, "algo.hidden=[64,64]", "algo.critic_updates_per_policy_update=2"])


def test_what_a_pack_saves_is_what_replicas_share(cartpole):
    # four updates of the critic and two of the policy for each vector step
    shared = packing.STEP_S + 6 * packing.UPDATE_S
    own = 64 * packing.ENV_S + 6 * 2e7 / packing.FLOPS
    assert packing.saves(cartpole, 2e7, 4) == pytest.approx((shared + own) / (shared / 4 + own))


def test_small_networks_are_packed_and_what_arithmetic_binds_is_not(cartpole, monkeypatch):
    # a slot: 4 numbers seen, an action and 2 words, for 100,000 transitions and a few more
    monkeypatch.setattr(packing, "free_memory", lambda device: 3.5 * 100_000 * 7 * 4)
    cfg = dataclasses.replace(cartpole, algo=dataclasses.replace(cartpole.algo, replay_size=100_000))
    assert packing.size_of(cfg) == (packing.MOST, 3)
    assert packing.size_of(cfg, at_a_time=2).fits == 1
    for change in ({"hidden": [512, 256]}, {"batch_size": 4096}):
        assert packing.size_of(dataclasses.replace(cfg, algo=dataclasses.replace(cfg.algo, **change))).best == 1
    many = dataclasses.replace(cfg, num_envs=8192, algo=dataclasses.replace(cfg.algo, utd=4 / 8192))
    assert packing.size_of(many).best == 1
    assert packing.size_of(dataclasses.replace(cfg, compile=True)).best == 1


def test_gradients_of_many_updates_are_compiled(cartpole):
    cfg = dataclasses.replace(cartpole, max_env_steps=60_000)  # 3750 updates of each
    assert packing.compiles(cfg, 16) and not packing.compiles(cfg, 4)
    assert packing.compiles(dataclasses.replace(cfg, compile=True), 2)
    assert not packing.compiles(dataclasses.replace(cfg, device="cuda"), 16)


def test_what_cannot_be_packed_says_why(cartpole):
    with pytest.raises(UserError, match="runtime=parallel trains one run at a time"):
        packing.size_of(dataclasses.replace(cartpole, runtime="parallel"))
    other = dataclasses.replace(cartpole.sim, name="gymnasium")
    with pytest.raises(TaskError, match="sim=gymnasium can't step the environments of several seeds together"):
        packing.size_of(dataclasses.replace(cartpole, sim=other))
