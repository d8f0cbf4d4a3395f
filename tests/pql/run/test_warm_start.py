"""init_from: another run's networks and normaliser, with settings of one's own."""

from __future__ import annotations

import pytest
import torch

from pql import config
from pql.errors import UserError
from pql.roles import actor
from pql.run.trainer import train
from pql.runtime import checkpoint


def parts_of(run_dir):
    folder, _ = checkpoint.newest(run_dir)
    return [checkpoint.load_tensors(folder, role) for role in ("actor", "v_learner", "p_learner")]


def test_run_begins_with_the_networks_and_the_normaliser_of_another(completed, tiny, tmp_path, capsys):
    run_dir = completed[2]
    # Two vector steps, in which nobody learns: they are as they were; only the normaliser has seen more.
    more = {"num_envs": 4, "algo.batch_size": 16, "algo.reward_scale": 0.5, "algo.warmup_steps": 50}
    train(config.load(tiny(init_from=run_dir, max_env_steps=8, **more)))
    for theirs, mine in list(zip(parts_of(run_dir), parts_of(tmp_path / "run")))[1:]:
        assert torch.equal(mine["weights"], theirs["weights"])
        if "average" in theirs:
            assert torch.equal(mine["average"], theirs["average"])
    theirs, mine = parts_of(run_dir)[0]["normalizer"], parts_of(tmp_path / "run")[0]["normalizer"]
    assert mine[0] == theirs[0] + 12  # first observations and those of two steps, of 4 environments
    saved = config.read(tmp_path / "run" / "config.yaml")
    newest = checkpoint.newest(run_dir)[0]
    assert saved.init_from == str(newest.resolve()) and saved.num_envs == 4
    assert f"normaliser of {newest}, 1600 env steps of Point" in capsys.readouterr().out


def test_it_acts_by_its_policy_from_the_first_step_and_learns_on(completed, tiny, tmp_path, monkeypatch):
    seen = []
    act = actor.Actor.act

    def noted(self):
        seen.append((int(self.shared.vector_steps), self.random_steps))
        return act(self)

    monkeypatch.setattr(actor.Actor, "act", noted)
    summary = train(config.load(tiny(init_from=completed[2], max_env_steps=320)))
    assert seen[0] == (0, 0) and summary["critic_updates"] == 40
    resumed = train(config.load([f"run_dir={tmp_path / 'run'}", "resume=true", "max_env_steps=640"]))
    assert resumed["critic_updates"] == 80  # goes on from its own checkpoint


def test_what_does_not_fit_is_refused_in_one_line_that_names_the_way(completed, tiny, tmp_path):
    run_dir = completed[2]
    with pytest.raises(UserError, match=r"its p_learner has 82 numbers, this run's 162: give the same algo, algo\.hid"):
        train(config.load(tiny(init_from=run_dir, **{"algo.hidden": "[32]"})))
    with pytest.raises(UserError, match="its v_learner has"):
        train(config.load(tiny(init_from=run_dir, **{"task.options.told": "true"})))
    with pytest.raises(UserError, match="holds no good checkpoint"):
        train(config.load(tiny(init_from=tmp_path / "nowhere")))
    with pytest.raises(UserError, match="a policy alone, no critic"):
        train(config.load(tiny(init_from=run_dir / "best")))
    with pytest.raises(UserError, match=r"was trained with num_envs=8, not 16.*init_from="):
        config.load([f"run_dir={run_dir}", "resume=true", "num_envs=16"])
