"""The benchmark measures both sides and leaves no trace."""

import pytest
import torch

import tasks
from tasks.bench import bench_sim

pytest.importorskip("mujoco", reason="the MuJoCo simulator needs mujoco 4 and Python 3.11")


def test_benchmark_reports_both_sides_of_one_run():
    torch.set_num_threads(2)
    found = bench_sim("Cartpole", 256, seconds=0.4, window=0.05, warmup_steps=5, threads=1)
    assert found["task"] == "Cartpole" and found["num_envs"] == 256 and found["torch_threads"] == 1
    assert found["windows"] >= 2
    assert found["env_steps_per_s"] > 0 and found["physics_steps_per_s"] > 0
    assert found["env_ms_per_step"] == pytest.approx(256e3 / found["env_steps_per_s"])
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("package, name", [("gymnasium", "Hopper-v5"), ("dm_control", "dmc/cartpole-balance")])
def test_a_port_is_measured_beside_its_original(package, name):
    pytest.importorskip(package, reason="the ports need pip install .[gym,dmc]")
    found = bench_sim(name, 64, seconds=0.5, window=0.1, warmup_steps=2, threads=1, loop=True)
    assert found["loop_steps_per_s"] > 0
    assert found["loop_ratio"] > 1  # 64 simulations in C against one in Python


def test_benchmark_has_no_original_of_what_is_no_port():
    with pytest.raises(tasks.TaskError, match=r"Cartpole is neither one of Gymnasium's Ant-v5, .* nor dmc/"):
        bench_sim("Cartpole", 2, seconds=0.1, loop=True)


def test_benchmark_refuses_no_time_at_all():
    with pytest.raises(tasks.TaskError, match="above 0"):
        bench_sim("Cartpole", 2, seconds=0)
