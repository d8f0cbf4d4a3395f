"""scripts/fit.py on logs: the table it writes or the one line it refuses with; small event files."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[4]
CLOCK = itertools.count(1_000_000)  # wall time of the next event


@pytest.fixture(scope="session")
def logs() -> Path:
    folder = ROOT.parent / "shared" / "inputs" / "logs"
    if not folder.is_dir():
        pytest.skip(f"no sample logs at {folder}")
    return folder


def fit(*words: str) -> int:
    """scripts/fit.py in this process; returns its exit status."""
    from scaling.cli import main

    spec = importlib.util.spec_from_file_location("script_fit", ROOT / "scripts" / "fit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return main(module.Options, "scripts/fit.py", module.__doc__, module.run, words)


@pytest.fixture(name="fit")
def fit_fixture():
    return fit


@pytest.fixture
def read(tmp_path, capsys):
    """read(curves, meta, ...) -> the table written; its notes are read.notes."""

    def call(curves: Path, meta: str = "", *words: str) -> pd.DataFrame:
        path = tmp_path / "table.csv"
        status = fit(f"curves={curves}", *([f"meta={meta}"] if meta else []), f"table={path}", *words)
        said = capsys.readouterr()
        assert status == 0, said.err
        call.notes = " ".join(said.out.split())
        return pd.read_csv(path)

    return call


@pytest.fixture
def refusal(tmp_path, capsys):
    """refusal(curves, meta, ...) -> the one line that a mistake costs."""

    def call(curves: Path, meta: str = "", *words: str) -> str:
        meta, written = [f"meta={meta}"] if meta else [], tmp_path / "refused.csv"
        assert fit(f"curves={curves}", *meta, f"table={written}", *words) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert not written.exists()
        return lines[0]

    return call


@pytest.fixture
def write_events():
    """write_events(folder, {tag: [(step, value), ...]}): one event file, later than those before it."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    def call(folder: Path, scalars: dict, begin: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        rows = sorted((index, tag, *point) for tag, points in scalars.items() for index, point in enumerate(points))
        with (folder / f"events.out.tfevents.{next(CLOCK)}.here").open("wb") as file:
            writer = RecordWriter(file)
            for number, (_, tag, step, value) in enumerate(rows):
                event = Event(step=step, wall_time=next(CLOCK) if begin is None else begin + number)
                event.summary.value.add(tag=tag, simple_value=value)
                writer.write(event.SerializeToString())

    return call
