"""Where roles compute, and how far behind their device may be."""

from __future__ import annotations

import pytest
import torch

from pql import config
from pql.errors import UserError
from pql.memory.device import InFlight, device_of, mps_is_running
from tasks.graphs import TorchGraph


def test_on_a_cpu_a_graphed_function_is_called_and_nothing_waits():
    calls = []
    graphed = TorchGraph(lambda: calls.append(1), torch.device("cpu"), [])
    for _ in range(6):
        graphed()
    report = torch.tensor([4])
    assert len(calls) == 6 and InFlight(torch.device("cpu"))(report) is report


def test_mps_is_seen_by_its_daemons_pipe(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert not mps_is_running()
    (tmp_path / "control").touch()
    assert mps_is_running()


@pytest.mark.parametrize("name", ["v_device", "p_device"])
def test_learners_own_device_must_be_there(tiny, plugin, name):
    with pytest.raises(UserError, match=rf"^algo\.{name}=cuda:99 is not there"):
        config.load(tiny(**{f"algo.{name}": "cuda:99"}))
    cfg = config.load(tiny(**{f"algo.{name}": "cpu"}))
    assert device_of(cfg, name.replace("device", "learner")) == torch.device("cpu")
