"""Train a policy. `scripts/train.py task=Ant algo=pql num_envs=1024 seed=1 run_dir=runs/ant`; --help lists all keys."""

from __future__ import annotations

import sys

from pql.errors import RoleFailed, user_errors
from pql.signals import end_at_once, exit_code


def main(argv: list[str]) -> int:
    with user_errors():
        from pql import config

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
    if summary["status"] == "interrupted":
        return exit_code(summary["reason"])
    print_summary(cfg.run_dir, summary)
    return 0


def print_summary(run_dir: str, s: dict) -> None:
    from pql.run.evaluation import interval_text

    random = "diverges" if s["random_return"] is None else f"{s['random_return']:.1f}"
    print(
        f"\n{s['task']}: return {s['eval_return']:.1f} ({interval_text(s['eval_return_interval'])}),"
        f" a random policy's {random}\n"
        f"{s['env_steps']} env steps, {s['critic_updates']} critic updates (utd {s['utd']:.4g},"
        f" asked {s['utd_requested']:.4g}) in {s['wall_time_s']:.0f} s\n"
        f"everything lies in {run_dir}: config.yaml, metrics.jsonl, tensorboard/, checkpoints/, summary.json"
        + (f"\nvideo: {s['video']}" if s.get("video") else "")
    )


if __name__ == "__main__":
    end_at_once()
    sys.exit(main(sys.argv[1:]))
