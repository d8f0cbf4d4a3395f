"""Three processes where they pay, one where they would not."""

import pytest

from pql import config
from pql.config import devices


@pytest.mark.parametrize(
    "device, cores, updates, runtime",
    [
        ("cpu", 2, devices.SHORT, "parallel"),
        ("cpu", 2, devices.SHORT - 1, "sync"),
        ("cpu", 1, 1e6, "sync"),
        ("cuda", 1, 1, "parallel"),
    ],
)
def test_auto_is_one_process_for_a_short_run_and_on_a_single_core(monkeypatch, device, cores, updates, runtime):
    monkeypatch.setattr(devices, "cores", lambda: cores)
    assert devices.runtime_for(device, updates) == runtime


def test_run_says_which_it_is_and_what_is_asked_for_holds(monkeypatch):
    monkeypatch.setattr(devices, "cores", lambda: 2)
    chosen = {name: config.load([f"task={name}", "sim=mujoco", "device=cpu"]).runtime for name in ("Cartpole", "Ant")}
    assert chosen == {"Cartpole": "sync", "Ant": "parallel"}
    assert config.load(["task=Cartpole", "device=cpu", "runtime=parallel"]).runtime == "parallel"
