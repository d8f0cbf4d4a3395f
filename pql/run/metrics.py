"""metrics.jsonl, TensorBoard, and the progress line."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import shutil
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Iterable

from pql.config import dumps
from pql.errors import say_no_more
from pql.files import FULL, append_line, write_atomically

# Of metrics.jsonl's names, in TensorBoard: what comes before "/", where the name does not say so itself.
GROUPS = {"wall_time_s": "time", "runs_side_by_side": "time", "time_alone_s": "time"}
GROUPS.update(dict.fromkeys(("policy_age", "invalid_transitions", "diverged_episodes", "contact_overflows",
                             "replay_conflicts", "td_error_ratio"), "diagnostics"))  # fmt: skip
ROOM = 1 << 20  # bytes that a disk must have free for TensorBoard's thread, which a full one would end


class MetricsWriter:
    """Appends one JSON object per line to metrics.jsonl and the same numbers to TensorBoard (and W&B if asked).

    Where the disk is full, what finds no room is lost and one line says so; with room again it goes on.

    Args:
        keep_until: of a run that is resumed: its checkpoint's count. What came after, it repeats.
        diagnostics: names of what is measured besides, for TensorBoard's groups.
        say: takes a line for people.
        axis: which of a line's counts grows: env_steps, or critic_updates on a fixed dataset.
    """

    def __init__(
        self,
        run_dir: Path,
        cfg: Any = None,
        use_wandb: bool = False,
        keep_until: int | None = None,
        say: Callable[[str], None] = print,
        diagnostics: Iterable[str] = (),
        axis: str = "env_steps",
    ):
        self.axis = axis
        self.run_dir, self.path, self.say, self.cfg = run_dir, run_dir / "metrics.jsonl", say, cfg
        self.groups = {**dict.fromkeys(diagnostics, "diagnostics"), **GROUPS}
        self.lost = 0  # lines since the disk was found full
        self.purge = None if keep_until is None else keep_until + 1
        if keep_until is not None:
            self._drop_after(keep_until)
        self.tensorboard: Any = None
        self.wandb = _wandb(run_dir, cfg, keep_until is not None, axis) if use_wandb else None

    def _drop_after(self, count: int) -> None:
        if self.path.exists():
            lines = read_metrics(self.path, self.say)
            kept = [line for line in lines if line[self.axis] <= count]
            write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def write(self, values: dict[str, Any]) -> None:
        """One line. NaN and infinity are left out: JSON has none."""
        values = {k: v for k, v in values.items() if not (isinstance(v, float) and not math.isfinite(v))}
        try:
            append_line(self.path, json.dumps(values))
            self._to_tensorboard(values)
        except OSError as error:
            if error.errno not in FULL:
                raise
            if not self.lost:
                self.say(f"warning: {error.strerror}; training goes on, but metrics may be lost until there is room")
            self.lost += 1
        else:
            if self.lost:
                self.say(f"note: there is room again; {self.lost} lines were not written, or not to TensorBoard")
            self.lost = 0
        if self.wandb:
            self.wandb.log(values)

    def _to_tensorboard(self, values: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        if shutil.disk_usage(self.run_dir).free < ROOM:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        try:
            if self.tensorboard is None:
                self.tensorboard = SummaryWriter(str(self.run_dir / "tensorboard"), purge_step=self.purge)
                if self.cfg is not None:
                    text = "\n".join(f"    {line}" for line in dumps(self.cfg).splitlines())  # as Markdown: verbatim
                    self.tensorboard.add_text("config", text, values[self.axis])
            for name, value in values.items():
                if name != self.axis and isinstance(value, (int, float)):
                    self.tensorboard.add_scalar(self.tag(name), value, values[self.axis])
        except OSError:  # its thread has ended
            self.tensorboard, self.purge = None, values[self.axis]
            raise

    def tag(self, name: str) -> str:
        """A metric's name in TensorBoard: group/name, in the groups eval, train, time, diagnostics, task."""
        if "/" in name:
            return name
        first, _, rest = name.partition("_")
        if first in ("eval", "train"):
            return f"{first}/{rest}"
        group = "time" if first == "wait" else "diagnostics" if name.endswith("_grad_norm") else "train"
        return f"{self.groups.get(name, group)}/{name}"

    def close(self) -> None:
        if self.tensorboard is not None:
            with suppress(OSError):
                self.tensorboard.close()
        if self.wandb:
            self.wandb.finish()


def _wandb(run_dir: Path, cfg: Any, resumed: bool, axis: str) -> Any:
    """A run of Weights & Biases, the same one when this run is resumed, plotted over `axis`.

    Its own step only ever rises, where an evaluation is written after lines of later steps.
    """
    import wandb

    known = run_dir / "wandb_id"
    if not resumed or not known.exists():
        write_atomically(known, f"{uuid.uuid4().hex[:16]}\n")
    cfg = dataclasses.asdict(cfg) if dataclasses.is_dataclass(cfg) else cfg
    name = known.read_text().strip()
    run = wandb.init(dir=str(run_dir), name=run_dir.name, id=name, config=cfg, resume="allow")
    run.define_metric(axis)
    run.define_metric("*", step_metric=axis)
    return run


def read_metrics(path: Path, say: Callable[[str], None] = lambda text: None) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl that are whole: a crash may leave half a line, or bytes that are none of ours."""
    lines, others = [], 0
    for text in path.read_bytes().split(b"\n"):
        try:
            line = json.loads(text.decode())
            ours = isinstance(line, dict) and isinstance(line.get("env_steps"), int)
        except ValueError:
            ours = False
        if ours:
            lines.append(line)
        elif text:
            others += 1
    if others:
        say(f"note: {others} lines of {path} are none of a run's (cut short, damaged) and are left out")
    return lines


class Progress:
    """One line that says how far, how well, how fast; rewritten in place on a terminal, printed now and then else."""

    def __init__(self, limit: int, max_time: float | None, every: float = 1.0, unit: str = "steps"):
        self.limit, self.max_time, self.unit = limit, max_time, unit
        self.terminal = sys.stdout.isatty()
        self.every = every if self.terminal else 10.0
        self.last = -math.inf
        self.rates: tuple[float, int, int] | None = None
        self.shown = {"steps": math.nan, "updates": math.nan}

    def show(self, count: int, updates: int, wall: float, train: float, evaluated: float | None) -> None:
        now = time.monotonic()
        if now - self.last < self.every:
            return
        if self.rates is not None and now > self.rates[0]:
            seconds = now - self.rates[0]
            self.shown["steps"] = (count - self.rates[1]) / seconds
            self.shown["updates"] = (updates - self.rates[2]) / seconds
        self.rates, self.last = (now, count, updates), now
        left = (self.limit - count) / self.shown["steps"] if self.shown["steps"] > 0 else math.inf
        if self.max_time is not None:
            left = min(left, self.max_time - wall)
        line = (
            f"{_short(count):>6} {self.unit} | return {_number(train):>6}"
            f" eval {_number(evaluated):>6} | {_short(self.shown['steps']):>5} {self.unit}/s"
            + (f" {_number(self.shown['updates']):>4} updates/s | utd {updates / max(1, count):.2e}"
               if self.unit == "steps" else "")
            + f" | left {_clock(left)}"
        )  # fmt: skip
        line = line[:110]
        tell(*((f"\r{line}\x1b[K", "") if self.terminal else (line,)))

    def message(self, text: str) -> None:
        """A line of its own, above the progress line."""
        tell(f"\r{text}\x1b[K" if self.terminal else text)


def tell(text: str, end: str = "\n") -> None:
    """A full disk under a log file ends no run, nor does a reader who has gone (`| head`)."""
    try:
        print(text, end=end, flush=True)
    except OSError as error:
        if error.errno == errno.EPIPE:
            say_no_more()
        elif error.errno not in FULL:
            raise


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _short(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _clock(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "-"
    seconds = max(0, int(seconds))
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
