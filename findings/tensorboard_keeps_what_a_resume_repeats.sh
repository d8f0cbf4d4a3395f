#!/usr/bin/env bash
# tensorboard 2.21.0, EventAccumulator(folder), purge_orphaned_data=True (its default: "whether to discard any events
# that were orphaned by a TensorFlow restart").
#
# A run writes steps 0..100, is resumed from its checkpoint at 60 and writes 60..150 into the same folder. One would
# expect 16 points, the resumed ones from 60 on. It gives 21: both sessions one after the other, so that steps go back
# from 100 to 60. What is orphaned is found only where the second writer says so itself (a SessionLog START record, by
# SummaryWriter(purge_step=60) of PyTorch): then 16. Files of version 1 were purged by going back alone.
# Unasked it also keeps 10,000 points of a tag, at random: size_guidance={"scalars": 0} keeps all.
#
# Output seen:
#   resumed: 21 points, steps go back: True
#   resumed, with SessionLog.START at 60: 16 points, steps go back: False
#   20000 points, by default: 10000; with size_guidance scalars=0: 20000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorboard==2.21.0 "setuptools<81"
"$folder/venv/bin/python" - "$folder" <<'EOF'
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter


def session(folder, number, steps, purge=None):
    folder.mkdir(exist_ok=True)
    with open(folder / f"events.out.tfevents.{number}.host", "wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=number, file_version="brain.Event:2").SerializeToString())
        if purge is not None:
            start = SessionLog(status=SessionLog.START)
            writer.write(Event(wall_time=number, step=purge, session_log=start).SerializeToString())
        for step in steps:
            event = Event(wall_time=number + step, step=step)
            event.summary.value.add(tag="return", simple_value=number)
            writer.write(event.SerializeToString())


def read(folder, **options):
    events = EventAccumulator(str(folder), **options)
    events.Reload()
    return [point.step for point in events.Scalars("return")]


root, seen = Path(sys.argv[1]), []
for name, purge, said in (("plain", None, ""), ("purge", 60, ", with SessionLog.START at 60")):
    session(root / name, 1000, range(0, 101, 10))
    session(root / name, 2000, range(60, 151, 10), purge)
    steps = read(root / name)
    seen.append((len(steps), steps != sorted(steps)))
    print(f"resumed{said}: {seen[-1][0]} points, steps go back: {seen[-1][1]}")
session(root / "long", 1000, range(20000))
few, everything = len(read(root / "long")), len(read(root / "long", size_guidance={"scalars": 0}))
print(f"20000 points, by default: {few}; with size_guidance scalars=0: {everything}")
sys.exit((*seen, few, everything) != ((21, True), (16, False), 10000, 20000))
EOF
