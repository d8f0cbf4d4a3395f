"""Checkpoints: whole or not at all, the last good one kept."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from pql.memory.replay import RING
from pql.runtime import checkpoint


def save(run_dir, env_steps, value):
    folder = checkpoint.begin(run_dir)
    checkpoint.save_tensors(folder, "actor", {"x": torch.full((1000,), float(value))})
    return checkpoint.finish(folder, env_steps, {"task": "Point"})


def value_of(run_dir, said=None):
    folder, manifest = checkpoint.newest(run_dir, (said if said is not None else []).append)
    return float(checkpoint.load_tensors(folder, "actor")["x"][0]), manifest["env_steps"]


def test_newest_two_are_kept(tmp_path):
    for step in (100, 9, 1000):
        save(tmp_path, step, step)
    assert [p.name for p in checkpoint.found(tmp_path)] == ["000000000100", "000000001000"]
    assert value_of(tmp_path) == (1000, 1000)


def test_none_where_there_is_none(tmp_path):
    assert checkpoint.newest(tmp_path) is None and checkpoint.found(tmp_path) == []


def test_a_fall_back_is_said_only_where_there_is_something_to_fall_back_to(tmp_path):
    for step in (1, 2):
        (save(tmp_path, step, step) / "actor.safetensors").write_bytes(b"")
    said = []
    assert checkpoint.newest(tmp_path, said.append) is None
    assert [line.partition("; ")[2] for line in said] == ["falling back to the one before", "there is none before"]


def test_every_byte_counts(tmp_path):
    """A flip at any of 50 places of each file is noticed: CRC-32 finds every error of up to 32 bits in a row."""
    save(tmp_path, 1, 1.0)
    folder = save(tmp_path, 2, 2.0)
    path = folder / "actor.safetensors"
    good = path.read_bytes()
    for place in range(0, len(good), len(good) // 50):
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        said = []
        assert value_of(tmp_path, said) == (1.0, 1)
        assert len(said) == 1 and "actor.safetensors is damaged" in said[0]
    path.write_bytes(good)
    assert value_of(tmp_path) == (2.0, 2)


# Stops itself with SIGKILL at the nth call of anything that changes the file system while it saves a checkpoint.
KILLED_WHILE_SAVING = """
import os, shutil, signal, sys
from pathlib import Path
import torch
from pql.runtime import checkpoint
count, at = 0, int(sys.argv[2])
def counted(function):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call
for module, names in ((os, "rename replace fsync unlink rmdir mkdir"), (checkpoint, "save_file"), (shutil, "rmtree")):
    for name in names.split():
        setattr(module, name, counted(getattr(module, name)))
checkpoint.shutil.rmtree = shutil.rmtree
while True:
    # every save that a kill at this place may hit, in a process of its own
    pid = os.fork()
    if pid:
        status = os.waitpid(pid, 0)[1]
        print("killed" if os.WIFSIGNALED(status) else "saved", flush=True)
        if not os.WIFSIGNALED(status):
            break
        at += 1
        if sys.stdin.readline() != "next\\n":
            break
        continue
    folder = checkpoint.begin(Path(sys.argv[1]))
    checkpoint.save_tensors(folder, "actor", {"x": torch.full((1000,), float(sys.argv[3]))})
    checkpoint.finish(folder, int(sys.argv[4]), {})
    os._exit(0)
"""


@pytest.mark.parametrize("steps", [20, 10], ids=["a new step", "the same step again"])
def test_kill_at_any_moment_of_saving_leaves_a_good_checkpoint(tmp_path, steps):
    """A process is killed before its 1st, 2nd, 3rd ... change to the file system, until one is not hit any more."""
    save(tmp_path, 10, 1.0)
    killed = 0
    with subprocess.Popen(
        [sys.executable, "-c", KILLED_WHILE_SAVING, str(tmp_path), "1", "2.0", str(steps)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        for word in process.stdout:
            said = []
            assert value_of(tmp_path, said) in ((1.0, 10), (2.0, steps))
            assert said == []  # no half-written checkpoint has ever had a name
            if word != "killed\n":
                break
            killed += 1
            process.stdin.write("next\n")
            process.stdin.flush()
    assert process.returncode == 0 and killed >= 6
    assert value_of(tmp_path) == (2.0, steps)
    assert not list((tmp_path / "checkpoints").glob(".part*"))


def test_text_files_are_replaced_whole(tmp_path):
    path = tmp_path / "summary.json"
    checkpoint.write_atomically(path, "old")
    reader = subprocess.Popen(
        [sys.executable, "-c", "import sys\nprint(flush=True)\nseen = set()\n"
         "while not sys.stdin.closed and len(seen) < 200: seen.add(open(sys.argv[1]).read())\n"
         "print(len({len(text) for text in seen if text != 'old'}))", str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    reader.stdout.readline()
    number = 0
    while reader.poll() is None:
        number += 1
        checkpoint.write_atomically(path, f"{number:09d}" * 5000)
    assert reader.communicate()[0].strip() == "1"  # every text read had its full length
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_nothing_is_executed_when_loading(tmp_path):
    """A pickle in place of a tensor file is no tensor file."""
    folder = save(tmp_path, 1, 1.0)
    torch.save({"x": torch.zeros(1)}, folder / "actor.safetensors")
    with pytest.raises(Exception, match=r"(?i)header"):
        checkpoint.load_tensors(folder, "actor")


@pytest.mark.parametrize("part", [1, 48, 1 << 20])
def test_a_large_tensor_is_read_in_parts_into_the_first_rows_of_what_is_there(tmp_path, monkeypatch, part):
    monkeypatch.setattr(checkpoint, "PART", part)
    stored = {"rows": torch.rand(7, 3), "head": torch.tensor([7])}
    checkpoint.save_tensors(tmp_path, "replay", stored)
    rows, head = torch.zeros(9, 3), torch.zeros(1, dtype=torch.int64)
    checkpoint.load_into(tmp_path, "replay", {"rows": rows, "head": head})
    assert torch.equal(rows[:7], stored["rows"]) and not rows[7:].any() and head == 7


def test_resuming_takes_the_memory_of_one_ring_and_beginning_that_of_what_is_in_it(tmp_path):
    """Peak MiB of a process above what it had before: a ring of 200 that is begun, shared, and read from a file."""
    stored = {"rows": torch.rand(200, 1 << 18), "offsets": torch.zeros(200, dtype=torch.int64)}
    stored.update({name: torch.zeros(1, dtype=torch.int64) for name in RING[2:]})
    checkpoint.save_tensors(tmp_path, "replay", stored)
    code = r"""
import re, sys, torch
from pathlib import Path
from pql.memory.replay import Layout
from pql.memory.shared import Shared
from pql.runtime import checkpoint
from tasks.base import Spaces

# not getrusage's, which begins with the memory of whoever started this process
peak = lambda: int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024
checkpoint.PART = 1 << 23
before = peak()
ring = Layout(Spaces((1 << 18) - 3, 1), 1, 192)
assert (ring.slots, ring.words) == (200, 1 << 18)
shared = Shared(ring, {}, 1, 1, 1, {}, {}, "cpu")
print(peak() - before)
shared.share()
print(peak() - before)
checkpoint.load_into(Path(sys.argv[1]), "replay", shared.ring)
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    begun, shared, read = map(int, done.stdout.split())
    assert begun < 40 and shared < 260 and read < 300, (begun, shared, read)
