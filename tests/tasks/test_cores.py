"""Cores that a process may use: its affinity, and its container's quota of time."""

import os

from tasks.cores import cores

HAVE = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def found(tmp_path, membership, files):
    tmp_path.mkdir()
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return cores(tmp_path / "membership", tmp_path / "cgroup")


def test_quota_of_a_cgroup_or_of_one_above_it_binds(tmp_path):
    new = {"job/cpu.max": "150000 100000", "job/step/cpu.max": "max 100000"}
    assert found(tmp_path / "v2", "0::/job/step\n", new) == 1
    old = {"cpu/job/cpu.cfs_quota_us": "100000\n", "cpu/job/cpu.cfs_period_us": "100000\n"}
    assert found(tmp_path / "v1", "4:memory:/job\n3:cpu,cpuacct:/job\n", old) == 1
    assert found(tmp_path / "tiny", "0::/\n", {"cpu.max": "50000 100000"}) == 1  # never none


def test_without_a_quota_the_affinity_counts(tmp_path):
    assert found(tmp_path / "v2", "0::/job\n", {"job/cpu.max": "max 100000"}) == HAVE
    unlimited = {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}
    assert found(tmp_path / "v1", "3:cpu:/\n", unlimited) == HAVE
    assert cores(tmp_path / "nowhere", tmp_path) == HAVE
    assert found(tmp_path / "large", "0::/\n", {"cpu.max": "9900000 100000"}) == HAVE
