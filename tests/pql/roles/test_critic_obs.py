"""Observations for the critic alone: replay carries them, the critic sees them, the policy does not."""

from __future__ import annotations

import json

import pytest
import torch

from pql import config
from pql.config import make_env
from pql.roles.actor import Actor
from pql.roles.build import make_replay, prepare
from pql.run import evaluation, trainer
from pql.run.trainer import train
from pql.runtime import checkpoint
from tasks.base import Spaces

TOLD = {"task.options.told": "true"}


def test_each_row_holds_what_both_see_of_the_same_two_moments(tiny, plugin):
    cfg = config.load(tiny(**TOLD, **{"algo.n_step": 2, "algo.warmup_steps": 100}))
    env = make_env(cfg, cfg.num_envs, 0)
    assert env.spaces == (2, 2, 3, True)
    algorithm, _, shared = prepare(cfg, env.spaces)
    replay = make_replay(cfg, algorithm, shared)
    actor = Actor(cfg, env, algorithm, replay, shared)
    for _ in range(80):
        actor.step()
    batch = replay.unpack(replay.rows_at(torch.arange(int(replay.head))))
    assert batch.critic_obs.shape == (79 * 8, 3)
    assert torch.equal(batch.critic_obs[:, :2], batch.obs) and torch.equal(batch.next_critic_obs[:, :2], batch.next_obs)
    steps = (batch.next_critic_obs - batch.critic_obs)[:, 2]  # the window's length; only an episode's last is cut
    assert set(steps.tolist()) == {1.0, 2.0}
    cut = (steps == 1) & (batch.discount > 0)  # truncated: the age of the terminal moment, not of the new episode
    assert cut.any() and (batch.next_critic_obs[cut][:, 2] == 25).all()


def test_nothing_is_carried_where_the_critic_sees_what_the_policy_sees(tiny, plugin):
    cfg = config.load(tiny())
    algorithm, _, shared = prepare(cfg, Spaces(2, 2))
    replay = make_replay(cfg, algorithm, shared)
    assert replay.rows.shape[1] == 2 + 2 + 2  # one observation, an action, return and code
    batch = replay.unpack(replay.blank(4))
    assert batch.critic_obs.data_ptr() == batch.obs.data_ptr()
    assert batch.next_critic_obs.data_ptr() == batch.next_obs.data_ptr()


@pytest.mark.parametrize("runtime, algo", [("sync", "pql_d"), ("parallel", "pql")])
def test_critic_sees_them_and_what_is_deployed_does_not(tiny, tmp_path, monkeypatch, runtime, algo):
    """The parallel run's mailboxes follow a GPU's protocol, in which no reader looks at a version first."""

    def shared_as_on_a_gpu(*arguments):
        parts = prepare(*arguments)
        for mailbox in (*parts.shared.weights.values(), parts.shared.average, parts.shared.normalizer):
            mailbox.on_device = True
        return parts

    if runtime == "parallel":
        monkeypatch.setattr(trainer, "prepare", shared_as_on_a_gpu)
    run_dir = tmp_path / "run"
    summary = train(config.load(tiny(runtime=runtime, algo=algo, **TOLD)))
    assert summary["status"] == "completed"
    outputs = 51 if algo == "pql_d" else 1
    assert summary["critic_parameters"] == 2 * ((3 + 2) * 16 + 16 + 16 * outputs + outputs)
    trained = evaluation.load_run(str(run_dir), 4)
    assert trained.act.policy.body[0].in_features == trained.act.mean.numel() == 2
    moments = checkpoint.load_tensors(checkpoint.newest(run_dir)[0], "actor")["normalizer"]
    assert len(moments) == 1 + 2 * 5
    torch.testing.assert_close(trained.act.mean.double(), moments[1:3], rtol=1e-6, atol=1e-6)
    longer = train(config.load([f"run_dir={run_dir}", "resume=true", "max_env_steps=2400"]))
    assert longer["env_steps"] == 2400 and json.loads((run_dir / "summary.json").read_text())["status"] == "completed"


def test_learns_with_a_critic_that_is_told_more(tiny, tmp_path):
    """Towards the origin. Ten seeds gave 16.9 to 21.4, a random policy's return was 5.4 at most."""
    settings = {"algo.critic_updates_per_step": 2, "algo.critic_lr": 0.003, "algo.actor_lr": 0.003}
    changes = {"max_env_steps": 8000, "eval_episodes": 32, "algo.replay_size": 8000, **settings, **TOLD}
    assert train(config.load(tiny(**changes)))["eval_return"] > 12
