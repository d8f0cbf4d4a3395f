"""Where the roles' time goes: a trace of all of them side by side, and the share of each by part (profile=true).

A role's methods are replaced by timed ones, in the objects of a profiled run alone: any other pays nothing. Times are
the host's: on a GPU, where kernels are done later than they are asked for, an update is one part, and what it costs
there shows where a role waits.
"""

from __future__ import annotations

import functools
import json
import time
from array import array
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

from pql.files import write_atomically
from pql.roles.fused import Fused

KEPT = 30_000  # newest spans of a role that the trace holds; shares are of all of them
SHORTEST = 10e-6  # seconds of a span worth drawing
FILE = "trace.json"
# method or what it belongs to -> the part whose time it is; what calls a timed method has the rest of its own time
ACTOR = {"step": "step: rest", "act": "act", "env.step": "simulate", "note": "look for faults", "take": "store",
         "replay.put": "copy: into replay", "replay.add": "copy: into replay"}  # fmt: skip
LEARNER = {"update": "update: rest", "receive": "copy: receive", "sample": "copy: sample", "noise": "noise",
           "differentiate": "backward", "descend": "optimizer", "follow": "target copy", "publish": "copy: publish",
           "conclude": "conclude", "graphed_diagnose": "diagnose"}  # fmt: skip
MONITOR = {"log": "log", "begin_evaluation": "evaluate", "finish_evaluation": "evaluate",
           "evaluate_a_little": "evaluate", "save": "checkpoint"}  # fmt: skip


class Trace:
    """Spans of one role: the newest in full, of all of them the seconds by part, without those of spans within."""

    def __init__(self, role: str, clock: Callable[[], float] = time.monotonic):
        self.role, self.clock = role, clock
        self.seconds: dict[str, float] = {}
        self.names: list[str] = []
        self.kinds, self.starts, self.lengths = array("i"), array("d"), array("d")
        self.spans = 0
        self.within = [0.0]  # of each open span: seconds that belong to spans inside
        self.began = self.ended = clock()

    def begin_anew(self) -> None:
        """The role's time counts from now on."""
        self.seconds.clear()
        self.began = self.clock()

    @contextmanager
    def span(self, name: str) -> Iterator[None]:
        start = self.clock()
        self.within.append(0.0)
        try:
            yield
        finally:
            self.ended = self.clock()
            length = self.ended - start
            self.seconds[name] = self.seconds.get(name, 0.0) + length - self.within.pop()
            self.within[-1] += length
            if length >= SHORTEST:
                self._keep(name, start, length)

    def _keep(self, name: str, start: float, length: float) -> None:
        if name not in self.names:
            self.names.append(name)
        values = self.names.index(name), start, length
        for column, value in zip((self.kinds, self.starts, self.lengths), values):
            if len(column) < KEPT:
                column.append(value)
            else:
                column[self.spans % KEPT] = value
        self.spans += 1

    def time(self, owner: Any, parts: dict[str, str]) -> None:
        """From now on each of these methods of `owner`, where it has it, is a span."""
        for path, part in parts.items():
            *way, name = path.split(".")
            holder = functools.reduce(getattr, way, owner)
            if hasattr(holder, name):
                setattr(holder, name, self.timed(getattr(holder, name), part))

    def timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            with self.span(part):
                return function(*args, **more)

        return call

    def as_dict(self) -> dict[str, Any]:
        spans = [list(column) for column in (self.kinds, self.starts, self.lengths)]
        facts = {"role": self.role, "seconds": self.seconds, "names": self.names, "spans": spans}
        return {**facts, "lasted": self.ended - self.began}


def role_trace(role: Any) -> Trace:
    """A trace of an actor or a learner, whose methods are timed from now on."""
    trace = Trace(role.role)
    trace.time(role, ACTOR if role.role == "actor" else LEARNER)
    if role.role != "actor":
        trace.time(role, {"improved": "compiled update"} if isinstance(role.improved, Fused) else {"loss": "forward"})
    return trace


def monitor_trace(monitor: Any) -> Trace:
    """A trace of what is done beside the roles."""
    trace = Trace("monitor")
    trace.time(monitor, MONITOR)
    return trace


def part_of(run_dir: Path | str, role: str) -> Path:
    """Where a process leaves its trace for the parent."""
    return Path(run_dir) / f".trace_{role}.json"


def leave(run_dir: Path | str, trace: Trace) -> None:
    """Whole, or not at all where the disk is full: the training itself is done by now."""
    with suppress(OSError):
        write_atomically(part_of(run_dir, trace.role), json.dumps(trace.as_dict()))


def collect(run_dir: Path | str, roles: Sequence[str]) -> list[dict[str, Any]]:
    """What processes have left; one that was killed, or found the disk full, has left nothing."""
    found = []
    for path in (part_of(run_dir, role) for role in roles):
        if path.exists():
            with suppress(ValueError):  # cut short
                found.append(json.loads(path.read_text()))
            path.unlink()
    return found


def write(run_dir: Path | str, traces: Sequence[dict[str, Any]]) -> None:
    """trace.json, for Perfetto (ui.perfetto.dev) or chrome://tracing: one row for each role."""
    events: list[dict[str, Any]] = []
    for row, trace in enumerate(traces):
        common = {"pid": 1, "tid": row}
        events.append({"name": "thread_name", "ph": "M", **common, "args": {"name": trace["role"]}})
        events.append({"name": "thread_sort_index", "ph": "M", **common, "args": {"sort_index": row}})
        for kind, start, length in zip(*trace["spans"]):
            name = trace["names"][kind]
            times = {"ts": round(start * 1e6, 1), "dur": round(length * 1e6, 1)}
            events.append({"name": name, "cat": name.partition(":")[0], "ph": "X", **times, **common})
    write_atomically(Path(run_dir) / FILE, json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}))


def table(traces: Sequence[dict[str, Any]]) -> str:
    """Each role's share of time by part, the largest first; what no part has is 'between'."""
    lines = []
    for trace in traces:
        whole = max(trace["lasted"], 1e-9)
        parts = {**trace["seconds"], "between": whole - sum(trace["seconds"].values())}
        lines.append(f"{trace['role']} ({whole:.1f} s)")
        for name, seconds in sorted(parts.items(), key=lambda part: -part[1]):
            if seconds / whole >= 0.0005:
                lines.append(f"  {seconds / whole:6.1%}  {name}")
    return "\n".join(lines)
