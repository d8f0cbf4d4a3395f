"""Train a policy. `scripts/train.py task=Ant algo=pql num_envs=1024 seed=1 run_dir=runs/ant`; --help lists all keys."""

from __future__ import annotations

import sys

from pql import config
from pql.errors import RoleFailed, user_errors


def main(argv: list[str]) -> int:
    with user_errors():
        if "--help" in argv or "-h" in argv:
            print(config.overrides_help([word for word in argv if "=" in word]))
            return 0
        from pql.run.trainer import train

        cfg = config.load(argv)
        try:
            summary = train(cfg)
        except RoleFailed as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"error: stopped at once; continue from the last checkpoint with resume=true run_dir={cfg.run_dir}",
                  file=sys.stderr)  # fmt: skip
            return 130
    if summary["status"] == "completed":
        print_summary(cfg.run_dir, summary)
    return 0


def print_summary(run_dir: str, s: dict) -> None:
    low, high = s.get("eval_return_interval", (float("nan"),) * 2)
    print(
        f"\n{s['task']}: return {s['eval_return']:.1f} (95 % interval {low:.1f} to {high:.1f}),"
        f" a random policy's {s['random_return']:.1f}\n"
        f"{s['env_steps']} env steps, {s['critic_updates']} critic updates (utd {s['utd']:.4g},"
        f" asked {s['utd_requested']:.4g}) in {s['wall_time_s']:.0f} s\n"
        f"everything lies in {run_dir}: config.yaml, metrics.jsonl, tensorboard/, checkpoints/, summary.json"
        + (f"\nvideo: {s['video']}" if s.get("video") else "")
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
