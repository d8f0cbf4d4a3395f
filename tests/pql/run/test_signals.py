"""Signals that ask a run to end, whenever they come."""

from __future__ import annotations

import importlib.util
import json
import signal
import time
from pathlib import Path

import pytest

from pql.run.interrupt import Interrupt
from pql.runtime import checkpoint
from pql.signals import SIGNALS
from tasks.simulators.worker import link

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"])
def test_each_ends_a_run_with_a_checkpoint_and_the_exit_code_that_shells_expect(tiny, tmp_path, monkeypatch, name):
    spec = importlib.util.spec_from_file_location("train_script", ROOT / "scripts" / "train.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setenv("POINT_FAULT", f"v_learner:{name}:10")
    before = signal.getsignal(getattr(signal, name))
    if before == signal.SIG_IGN:  # these tests themselves run under nohup
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        assert script.main(tiny(algo="pql_faulty", eval_interval=0)) == 128 + getattr(signal, name)
    finally:
        signal.signal(getattr(signal, name), before)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["reason"], summary["critic_updates"]) == ("interrupted", name, 10)
    assert checkpoint.newest(tmp_path / "run")[1]["critic_updates"] == 10


def test_worker_processes_of_simulators_leave_the_same_signals_to_the_run():
    assert set(link.SIGNALS) == set(SIGNALS)


def test_hangup_stays_ignored_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            signal.raise_signal(signal.SIGHUP)
            assert interrupt.name is None
            signal.raise_signal(signal.SIGTERM)
            assert interrupt.name == "SIGTERM"
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1])
def test_run_that_is_still_importing_ends_with_one_line_and_nothing_written(tiny, tmp_path, script, number):
    run = script(tiny())
    end = time.monotonic() + 60
    caught = 0
    while not caught >> (number - 1) & 1:  # its very first act is to catch them
        assert time.monotonic() < end and run.process.poll() is None
        status = Path(f"/proc/{run.process.pid}/status").read_text()
        caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
        if number == signal.SIGINT:  # which Python itself catches before
            caught = caught if caught >> (signal.SIGUSR1 - 1) & 1 else 0
    run.process.send_signal(number)
    code, out, err = run.end(60)
    assert code == 128 + number and out == ""
    assert err == f"error: stopped by {signal.Signals(number).name} before the run began: nothing was changed\n"
    assert not (tmp_path / "run").exists()
