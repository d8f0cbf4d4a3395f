"""Seconds of runs that shared a process are not a run's own: no cost model is made of them."""

from __future__ import annotations

import json

from scaling.curves.run_directories import read_run


def test_seconds_of_runs_side_by_side_are_left_out_of_the_cost_model(tmp_path):
    (tmp_path / "config.yaml").write_text("task: {name: Cartpole}\nalgo: {utd: 0.5, batch_size: 8}\n")

    def windows_with(**more):
        lines = [
            {"env_steps": 100 * k, "eval_return": 1.0, "critic_updates": 50 * k, "wall_time_s": 2.0 * k, **more}
            for k in range(1, 9)
        ]
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        curve, windows, _, notes = read_run(tmp_path)
        assert len(curve) == 8
        return windows, notes

    windows, notes = windows_with()
    assert len(windows) > 0 and not any("side by side" in note for note in notes)
    windows, notes = windows_with(runs_side_by_side=4)
    assert len(windows) == 0
    assert "its seconds are those of several runs side by side, not its own: left out" in notes
    windows, notes = windows_with(runs_side_by_side=4, time_alone_s=7.0)
    assert len(windows) > 0 and (windows["seconds"] == 0).all()
    assert any("its seconds are modelled" in note for note in notes)
