"""Train a policy. `scripts/train.py task=Ant algo=pql num_envs=1024 seed=1 run_dir=runs/ant`; --help lists all keys.

With `seeds=[0,1,2,3] runtime=sync` several, side by side in this process.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pql.errors import RoleFailed, user_errors
from pql.signals import end_at_once, exit_code


def main(argv: list[str]) -> int:
    with user_errors():
        from pql import config

        if "--help" in argv or "-h" in argv:
            print(config.overrides_help([word for word in argv if "=" in word]))
            return 0
        from pql.run.trainer import train

        cfgs = config.load_each(argv)
        try:
            summaries = [train(cfgs[0])] if len(cfgs) == 1 else train_side_by_side(cfgs)
        except (RoleFailed, FloatingPointError) as error:  # learning or a simulation diverged in this process
            print(f"error: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            where = Path(cfgs[0].run_dir) if len(cfgs) == 1 else Path(cfgs[0].run_dir).parent
            print(f"error: stopped at once; continue from the last checkpoint with resume=true run_dir={where}",
                  file=sys.stderr)  # fmt: skip
            return 130
    for cfg, summary in zip(cfgs, summaries):
        if summary["status"] == "completed":
            print_summary(cfg.run_dir, summary)
    if len({Path(cfg.run_dir).parent for cfg in cfgs}) == 1 and any(word.startswith("seeds=") for word in argv):
        print_curve([Path(cfg.run_dir) for cfg, summary in zip(cfgs, summaries) if summary["status"] == "completed"])
    stopped = [summary["reason"] for summary in summaries if summary["status"] == "interrupted" and "reason" in summary]
    if stopped:
        return exit_code(stopped[0])
    return int(any(summary["status"] == "failed" for summary in summaries))


def train_side_by_side(cfgs: list) -> list[dict]:
    from pql.run.pack import train_together  # which a single run does without

    return train_together(cfgs)


def print_summary(run_dir: str, s: dict) -> None:
    from pql.run.evaluation import interval_text
    from pql.run.metrics import tell

    random = "diverges" if s["random_return"] is None else f"{s['random_return']:.1f}"
    steps = f"transitions of {s['data']}, {s['passes']:.4g} passes" if s.get("data") else "env steps"
    told = [f", {name} {m['mean']:.4g}" for name, m in s.get("metrics", {}).items() if m["episodes"]]
    tell(
        f"\n{s['task']}: return {s['eval_return']:.1f} ({interval_text(s['eval_return_interval'])}),"
        f" a random policy's {random}{''.join(told)}\n"
        f"{s['env_steps']} {steps}, {s['critic_updates']} critic updates (utd {s['utd']:.4g},"
        f" asked {s['utd_requested']:.4g}) in {s['wall_time_s']:.0f} s\n"
        f"everything lies in {run_dir}: config.yaml, metrics.jsonl, tensorboard/, checkpoints/, summary.json"
        + (f"\nvideo: {s['video']}" if s.get("video") else "")
        + (f"\nadvice: {s['advice']}" if s.get("advice") else "")
    )


def print_curve(run_dirs: list[Path]) -> None:
    """The mean curve of the completed runs of several seeds; curve.csv in the folder that holds them."""
    from pql.files import write_atomically
    from pql.run.curve import as_csv, as_text, mean_curve
    from pql.run.metrics import tell

    curve = mean_curve(run_dirs)
    if curve.points:
        path = run_dirs[0].parent / "curve.csv"
        write_atomically(path, as_csv(curve))
        tell(f"\nmean of {len(run_dirs)} runs ({path}):\n{as_text(curve)}")


if __name__ == "__main__":
    end_at_once()
    sys.exit(main(sys.argv[1:]))
