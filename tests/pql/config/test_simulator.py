"""`sim=auto`: what it chose is in the configuration, and a run begins by saying so."""

import pytest
import torch
from omegaconf import OmegaConf

import tasks
from pql import config
from pql.run.evaluation import open_run
from pql.run.trainer import train

pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")


def test_run_says_and_keeps_which_simulator_was_chosen(tiny, capsys):
    cfg = config.load([word for word in tiny(task="Cartpole", plugins=None) if not word.startswith("sim=")])
    assert cfg.sim.name == "mujoco"
    train(cfg)
    assert capsys.readouterr().out.splitlines()[0] == "Cartpole: sim=mujoco device=cpu"
    assert OmegaConf.load(f"{cfg.run_dir}/config.yaml").sim.name == "mujoco"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU would be used")
@pytest.mark.parametrize("said, found", [("mujoco_warp", "mujoco"), ("mujoco", "mujoco"), ("isaacgym", "isaacgym")])
def test_run_of_a_gpu_is_looked_at_on_mujoco_where_there_is_none(tiny, tmp_path, said, found):
    cfg = config.load(tiny(task="Cartpole", plugins=None))
    cfg.sim.name, cfg.device = said, "cuda"
    (tmp_path / "run").mkdir()
    config.save(cfg, tmp_path / "run" / "config.yaml")
    assert open_run(str(tmp_path / "run"))[1].sim.name == found


def test_what_no_simulator_can_run_is_left_for_its_maker_to_tell(tiny, monkeypatch):
    def refuse(*args):
        raise tasks.TaskError("nothing runs here")

    monkeypatch.setattr(tasks, "chosen", refuse)
    assert config.load(tiny(task="Cartpole", plugins=None, sim="auto")).sim.name == "auto"
