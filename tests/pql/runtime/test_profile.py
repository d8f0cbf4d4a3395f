"""profile=true: a trace of the roles side by side, and where their time goes."""

from __future__ import annotations

import errno
import json
import os
from types import SimpleNamespace

import pytest

from pql import config
from pql.run.monitor import Monitor
from pql.run.trainer import train
from pql.runtime import profile


def test_a_part_has_the_time_that_no_part_within_it_has():
    now = [0.0]
    trace = profile.Trace("actor", lambda: now[0])

    def advance(seconds):
        now[0] += seconds

    class Role:
        def step(self):
            advance(1)
            self.act()
            self.act()

        def act(self):
            advance(2)

    role = Role()
    trace.time(role, {"step": "step: rest", "act": "act", "nothing": "x"})
    advance(5)
    role.step()
    assert trace.seconds == {"step: rest": 1, "act": 4}
    found = trace.as_dict()
    assert found["lasted"] == 10
    assert list(zip(*found["spans"])) == [(0, 6, 2), (0, 8, 2), (1, 5, 5)]
    rows = [line.split() for line in profile.table([found]).splitlines()]
    assert rows[1:] == [["50.0%", "between"], ["40.0%", "act"], ["10.0%", "step:", "rest"]]
    assert "act" not in vars(Role()) and Role.act is not vars(role)["act"]  # no other pays


def test_a_trace_keeps_the_newest_spans_and_counts_all(monkeypatch):
    monkeypatch.setattr(profile, "KEPT", 10)
    now = [0.0]
    trace = profile.Trace("actor", lambda: now[0])
    for _ in range(25):
        with trace.span("x"):
            now[0] += 1
    assert trace.seconds == {"x": 25} and sorted(trace.starts) == list(range(15, 25))


@pytest.mark.parametrize("runtime", ["sync", "parallel"])
def test_a_run_leaves_a_trace_of_its_roles_and_says_their_shares(tiny, tmp_path, capsys, runtime):
    summary = train(config.load(tiny(profile="true", runtime=runtime, checkpoint_interval=800)))
    assert summary["status"] == "completed"
    trace = json.loads((tmp_path / "run" / "trace.json").read_text())
    roles = {e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    assert list(roles.values()) == ["actor", "v_learner", "p_learner", "monitor"]
    spans = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    parts = {role: {e["name"] for e in spans if roles[e["tid"]] == role} for role in roles.values()}
    assert {"simulate", "act", "store"} <= parts["actor"] and "checkpoint" in parts["monitor"]
    assert {"backward", "forward", "copy: sample", "optimizer"} <= parts["v_learner"]
    assert {"backward", "forward", "copy: publish"} <= parts["p_learner"]
    assert ("wait" in parts["actor"]) == (runtime == "parallel")
    begin, end = min(e["ts"] for e in spans), max(e["ts"] + e["dur"] for e in spans)
    assert 0 < end - begin < 1.5e6 * summary["wall_time_s"] + 20e6  # one clock for all
    said = capsys.readouterr().out
    assert "v_learner (" in said and "backward" in said and "trace.json" in said
    assert not list((tmp_path / "run").glob(".trace_*"))


def test_a_trace_that_found_no_room_ends_no_run_and_hinders_none_after_it(tmp_path, monkeypatch):
    """A process may have left half of one, and a part that can't be read would stop each session to come."""
    for role in ("actor", "v_learner", "p_learner"):
        profile.leave(tmp_path, profile.Trace(role))
    half = profile.part_of(tmp_path, "actor")
    half.write_text(half.read_text()[:9])
    profile.part_of(tmp_path, "v_learner").write_text("")
    assert [trace["role"] for trace in profile.collect(tmp_path, ("actor", "v_learner", "p_learner"))] == ["p_learner"]
    assert list(tmp_path.iterdir()) == []

    def no_room(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_room)
    profile.leave(tmp_path, profile.Trace("actor"))
    assert list(tmp_path.iterdir()) == []
    said = []
    Monitor.show_profile(SimpleNamespace(run_dir=tmp_path, progress=SimpleNamespace(message=said.append)), [])
    assert "trace.json could not be written" in said[0] and "the trace:" not in said[0]
