"""A run's seconds: those that passed, and where it shared them with others, those that it would have taken alone."""

from __future__ import annotations

from typing import Any


def times(monitor: Any) -> dict[str, Any]:
    """Seconds of training, and whose they are, as a line of metrics has them."""
    told = {"wall_time_s": round(monitor.wall_time, 3)}
    if monitor.side_by_side > 1:
        told["runs_side_by_side"] = monitor.side_by_side
        told.update({name: round(seconds, 3) for name, seconds in alone(monitor).items()})
    return told


def alone(monitor: Any) -> dict[str, float]:
    """What was counted, at the pace of a run by itself (`Monitor.pace_alone`); empty where that was not timed."""
    if monitor.pace_alone is None:
        return {}
    earlier = (monitor.manifest or {}).get("time_alone_s", monitor.earlier_time)
    done = (now - before for now, before in zip(monitor.counters, monitor.began_at))
    return {"time_alone_s": earlier + sum(n * seconds for n, seconds in zip(done, monitor.pace_alone))}
