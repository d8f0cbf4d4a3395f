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


def test_benchmark_refuses_no_time_at_all():
    with pytest.raises(tasks.TaskError, match="above 0"):
        bench_sim("Cartpole", 2, seconds=0)
