"""A trainer that keeps scripts/train.py's contract and learns nothing: steps are ticks of a clock.

Writes `config.yaml`, `metrics.jsonl`, `checkpoints/`, `summary.json`, and for the tests `starts.jsonl` (from where each
session began) and `completions` (one line each time the run was completed). `fake.*` keys make it misbehave.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

KNOWN = {"task", "device", "runtime", "num_envs", "seed", "run_dir", "resume", "max_env_steps", "checkpoint_interval",
         "algo.utd", "algo.batch_size", "algo.critic_lr", "algo.actor_lr",
         "fake.tick_s",  # seconds per 100 steps
         "fake.crash_at",  # crash once on the way to this step
         "fake.crash_always", "fake.deaf", "fake.child"}
stopping = []


def write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


def main() -> int:
    config = dict(item.split("=", 1) for item in sys.argv[1:])
    config = {key: value.strip("'") for key, value in config.items()}
    unknown = set(config) - KNOWN
    if unknown:
        print(f"error: unknown key {unknown.pop()}", file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN if "fake.deaf" in config else lambda n, _: stopping.append(n))
    run_dir, total = Path(config["run_dir"]), int(config["max_env_steps"])
    interval, tick_s = int(config.get("checkpoint_interval", 1000)), float(config.get("fake.tick_s", 0))
    summary, checkpoint = run_dir / "summary.json", run_dir / "checkpoints" / "last.json"
    if run_dir.exists() and config["resume"] != "true":
        print(f"error: run_dir={run_dir} exists", file=sys.stderr)
        return 2
    if summary.exists() and json.loads(summary.read_text())["status"] == "completed":
        return 0
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    write(run_dir / "config.yaml", "\n".join(f"{k}: {v}" for k, v in config.items()))
    steps = json.loads(checkpoint.read_text())["env_steps"] if checkpoint.exists() else 0
    with open(run_dir / "starts.jsonl", "a") as log:
        log.write(json.dumps({"pid": os.getpid(), "from": steps}) + "\n")
    if "fake.child" in config:
        child = subprocess.Popen([sys.executable, "-c", "import signal, time\n"
                                  "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"])
        (run_dir / "child").write_text(str(child.pid))
    start = time.monotonic()
    with open(run_dir / "metrics.jsonl", "a") as metrics:
        while steps < total and not stopping:
            steps += 100
            time.sleep(tick_s)
            metrics.write(json.dumps({"env_steps": steps, "eval_return": steps / total,
                                      "wall_time_s": time.monotonic() - start}) + "\n")
            metrics.flush()
            if steps % interval == 0:
                write(checkpoint, json.dumps({"env_steps": steps}))
            if "fake.crash_always" in config or steps == int(config.get("fake.crash_at", -1)):
                crashed = run_dir / "crashed"
                if "fake.crash_always" in config or not crashed.exists():
                    crashed.touch()
                    raise RuntimeError(f"lost the simulator at {steps}")
    write(checkpoint, json.dumps({"env_steps": steps}))
    write(summary, json.dumps({"status": "interrupted" if steps < total else "completed"}))
    if steps >= total:
        with open(run_dir / "completions", "a") as log:
            log.write("x\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
