"""A trainer of a known law, instantly: a return of 80 takes 20000 * (1 + (1 / utd)^.8) steps, times a seed's luck.

A transition takes a millisecond, an update half of one. Batches of 128 and rates of 1e-3 are best: each factor of two
away from them costs a quarter more steps.
"""

import json
import math
import os
import random
import sys
from pathlib import Path

config = dict(word.split("=", 1) for word in sys.argv[1:])
run_dir, utd = Path(config["run_dir"]), float(config["algo.utd"]) if "algo.utd" in config else 1.0
with open(run_dir.parents[2] / "started", "a") as log:
    log.write(f"{run_dir.parent.parent.name} {' '.join(sys.argv[1:])}\n")
run_dir.mkdir(parents=True, exist_ok=True)
config.pop("task", None)
config.update({"algo.utd": utd, "algo.batch_size": config.get("algo.batch_size", 128),
               "algo.critic_lr": config.get("algo.critic_lr", 1e-3), "runtime": "sync"})
(run_dir / "config.yaml").write_text("task: {name: Known}\n" + "\n".join(
    f"{key}: {value}" for key, value in config.items() if "." not in key) + "\nalgo: {" + ", ".join(
    f"{key[5:]}: {value}" for key, value in config.items() if key.startswith("algo.")) + "}\n")
luck = math.exp(random.Random(f"{config['seed']} {utd}").gauss(0, 0.05))
away = [math.log2(float(config[f"algo.{key}"]) / best) for key, best in (("batch_size", 128), ("critic_lr", 1e-3))]
needed = 20000 * (1 + utd**-0.8) * luck * 1.25 ** (away[0] ** 2 + away[1] ** 2)
steps, total, interval = 0, int(config["max_env_steps"]), int(config.get("eval_interval", 2000))
limit = float(config.get("max_time", math.inf))
with open(run_dir / "metrics.jsonl", "w") as metrics:
    while steps < total and steps * (1e-3 + utd * 5e-4) < limit:
        steps += interval
        line = {"env_steps": steps, "critic_updates": int(utd * steps), "wall_time_s": steps * (1e-3 + utd * 5e-4),
                "eval_return": 100 * steps / (steps + needed / 4)}
        metrics.write(json.dumps(line) + "\n")
(run_dir / ".summary").write_text(json.dumps({"status": "completed", "utd": utd, "critic_parameters": 1000,
                                             "critic_flops_per_update": 1e6}))
os.replace(run_dir / ".summary", run_dir / "summary.json")
