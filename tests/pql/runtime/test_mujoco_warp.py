"""Training, evaluation and resuming with sim=mujoco_warp, on a CPU."""

from __future__ import annotations

import json

import pytest
import torch

from pql import config
from pql.errors import UserError
from pql.run import evaluation, trainer
from pql.run.metrics import read_metrics

pytest.importorskip("mujoco_warp", reason="needs mujoco-warp: pip install .[gpu]")


@pytest.fixture
def settings(tiny):
    """Of a short run on Cartpole."""

    def make(**changes):
        values = {"task": "Cartpole", "plugins": None, "sim": "mujoco_warp", "max_env_steps": 800, "log_interval": 200}
        return config.load(tiny(**{**values, "eval_interval": 0, **changes}))

    return make


def test_run_learns_from_warp_and_is_resumed_exactly(settings, tmp_path):
    whole = trainer.train(settings(run_dir=tmp_path / "whole"))
    first = read_metrics(tmp_path / "whole" / "metrics.jsonl")[0]
    assert whole["env_steps"] == 800 and whole["critic_updates"] == 100
    assert whole["contact_overflows"] == first["contact_overflows"] == 0
    trainer.train(settings(run_dir=tmp_path / "parts", max_env_steps=400))
    parts = trainer.train(settings(run_dir=tmp_path / "parts", resume="true"))
    assert parts["eval_return"] == whole["eval_return"]
    trained = evaluation.load_run(str(tmp_path / "parts"), 4)
    assert type(trained.env.simulator).__name__ == "WarpSimulator"
    assert torch.isfinite(torch.from_numpy(trained.evaluate().returns)).all()
    assert json.loads((tmp_path / "parts" / "summary.json").read_text())["status"] == "completed"


def test_room_for_contacts_is_an_option(settings):
    cfg = settings(**{"sim.contacts_per_env": 2})
    assert evaluation.make_env(cfg, 3, 0).simulator.data.naconmax == 6
    assert evaluation.make_env(settings(), 3, 0).simulator.data.naconmax == 72
    with pytest.raises(UserError, match=r"sim\.contacts_per_env=0: must be at least 1"):
        settings(**{"sim.contacts_per_env": 0})
