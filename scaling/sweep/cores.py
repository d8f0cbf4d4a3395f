"""How many cores this process may use: its affinity, and its container's share of time, which the affinity hides.

And how urgently: Linux weighs sessions against each other (autogroups), and a session of its own begins anew.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores(root: Path = CGROUP, membership: Path = Path("/proc/self/cgroup")) -> list[int]:
    """The cores to use: those of the affinity, as many as the tightest quota of the cgroups above pays for."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    return cores[: max(1, math.floor(min(quota(root, membership), len(cores))))]


def hand_on_priority(process: int, proc: Path = Path("/proc")) -> None:
    """Give a child in a session of its own the priority of this one's (sched(7), "The autogroup feature")."""
    try:
        nice = (proc / "self/autogroup").read_text().split()[-1]  # "/autogroup-25 nice 19"
        if nice != "0":
            (proc / str(process) / "autogroup").write_text(nice)
    except (OSError, IndexError):  # no autogroups here, or a priority that may not be given
        pass


def quota(root: Path, membership: Path) -> float:
    """Cores' worth of time that the cgroups (v2 cpu.max, v1 cpu.cfs_quota_us) allow; inf without a limit."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return math.inf
    least = math.inf
    for line in lines:
        _, controllers, inner = [*line.split(":", 2), "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        bases = [root] if not controllers else [root / controllers, root / "cpu"]
        for base in bases:
            for folder in (Path(inner.lstrip("/")), *Path(inner.lstrip("/")).parents):  # a limit above binds as well
                least = min(least, _limit(base / folder))
    return least


def _limit(folder: Path) -> float:
    try:
        limit, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit, period = ((folder / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return math.inf
    try:
        return int(limit) / int(period) if int(limit) > 0 else math.inf
    except (ValueError, ZeroDivisionError):  # "max"
        return math.inf
