"""How many cores this process may use."""

from __future__ import annotations

import os
from pathlib import Path

MEMBERSHIP, CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def cores(membership: Path = MEMBERSHIP, cgroups: Path = CGROUPS) -> int:
    """Those of its affinity, as many as its share of time pays for: a container's quota does not show there."""
    have = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([have, *_quotas(membership, cgroups)])))


def _quotas(membership: Path, cgroups: Path) -> list[float]:
    """Cores' worth of time that each cgroup above this process allows (v2: cpu.max, v1: cpu.cfs_quota_us)."""
    found = []
    for line in _text(membership).splitlines():
        _, controllers, inner = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        place = Path(inner.lstrip("/"))
        for base in (cgroups, cgroups / "cpu", cgroups / "cpu,cpuacct"):
            for folder in (base / place, *(base / above for above in place.parents)):
                words = _text(folder / "cpu.max").split() or [
                    _text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")
                ]
                if len(words) == 2 and all(word.isdigit() and int(word) for word in words):  # "max" and -1: no limit
                    found.append(int(words[0]) / int(words[1]))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
