"""metrics.jsonl, TensorBoard, and the progress line."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any


class MetricsWriter:
    """Appends one JSON object per line to metrics.jsonl and the same numbers to TensorBoard (and W&B if asked)."""

    def __init__(self, run_dir: Path, cfg: Any = None, use_wandb: bool = False, keep_until: int | None = None):
        from torch.utils.tensorboard import SummaryWriter

        self.path = run_dir / "metrics.jsonl"
        if keep_until is not None:
            self._drop_after(keep_until)
        self.file = open(self.path, "a", buffering=1)  # noqa: SIM115 - lives as long as the run
        purge = None if keep_until is None else keep_until + 1
        self.tensorboard = SummaryWriter(str(run_dir / "tensorboard"), purge_step=purge)
        self.wandb = None
        if use_wandb:
            import wandb

            self.wandb = wandb.init(dir=str(run_dir), name=run_dir.name, config=cfg, resume="allow")

    def _drop_after(self, env_steps: int) -> None:
        """A resumed run repeats what came after its checkpoint: those lines go."""
        from pql.files import write_atomically

        if self.path.exists():
            kept = [line for line in read_metrics(self.path) if line["env_steps"] <= env_steps]
            write_atomically(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def write(self, values: dict[str, Any]) -> None:
        """One line. NaN and infinity are left out: JSON has none."""
        values = {k: v for k, v in values.items() if not (isinstance(v, float) and not math.isfinite(v))}
        self.file.write(json.dumps(values) + "\n")
        step = values["env_steps"]
        for name, value in values.items():
            if name != "env_steps" and isinstance(value, (int, float)):
                self.tensorboard.add_scalar(name, value, step)
        if self.wandb:
            self.wandb.log(values, step=step)

    def close(self) -> None:
        self.file.close()
        self.tensorboard.close()
        if self.wandb:
            self.wandb.finish()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last line cut short by a crash is dropped."""
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


class Progress:
    """One line that says how far, how well, how fast; rewritten in place on a terminal, printed now and then else."""

    def __init__(self, max_env_steps: int, max_time: float | None, every: float = 1.0):
        self.max_env_steps, self.max_time = max_env_steps, max_time
        self.terminal = sys.stdout.isatty()
        self.every = every if self.terminal else 10.0
        self.last = -math.inf
        self.rates: tuple[float, int, int] | None = None
        self.shown = {"steps": math.nan, "updates": math.nan}

    def show(self, env_steps: int, updates: int, wall: float, train: float, evaluated: float | None) -> None:
        now = time.monotonic()
        if now - self.last < self.every:
            return
        if self.rates is not None and now > self.rates[0]:
            seconds = now - self.rates[0]
            self.shown["steps"] = (env_steps - self.rates[1]) / seconds
            self.shown["updates"] = (updates - self.rates[2]) / seconds
        self.rates, self.last = (now, env_steps, updates), now
        left = (self.max_env_steps - env_steps) / self.shown["steps"] if self.shown["steps"] > 0 else math.inf
        if self.max_time is not None:
            left = min(left, self.max_time - wall)
        line = (
            f"{_short(env_steps):>6} steps | return {_number(train):>6}"
            f" eval {_number(evaluated):>6} | {_short(self.shown['steps']):>5} steps/s"
            f" {_number(self.shown['updates']):>4} updates/s | utd {updates / max(1, env_steps):.2e}"
            f" | left {_clock(left)}"
        )
        line = line[:110]
        if self.terminal:
            print(f"\r{line}\x1b[K", end="", flush=True)
        else:
            print(line, flush=True)

    def message(self, text: str) -> None:
        """A line of its own, above the progress line."""
        print(f"\r{text}\x1b[K" if self.terminal else text, flush=True)


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
