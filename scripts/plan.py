"""What to run for a target or a budget: scripts/plan.py laws=<folder> target=<return> [budget=<2h>]."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from scaling.cli import main
from scaling.report.plan import Options, command, make_plan, with_interval
from scaling.report.terminal import bullet, shell, table


def run(options: Options) -> None:
    """Print the plan in 80 columns."""
    plan, laws, _ = make_plan(options)
    choice = f"at σ = {options.utd:g}" if options.utd else f"least {plan.currency}"
    kind = laws.json.get("crossing", {"kind": "mean"})
    who = {"mean": "", "median_seed": "the median seed at "}.get(kind["kind"]) if kind["kind"] != "probability" else (
        f"{kind['probability']:.0%} of the seeds at ")  # fmt: skip
    whose = f"{who}return {plan.target:.4g} of {plan.task or 'the typical task'}"
    print(f"Plan for {whose}, {choice}; intervals hold 90 %\n")
    counted = "agent" if laws.json.get("model_size", {}).get("counted") == "agent" else "critic"
    rows = [
        ("σ: updates per transition", with_interval(plan.utd)),
        ("batch size", with_interval(plan.batch_size, ".4g")),
        *([("learning rate", with_interval(plan.learning_rate))] if np.isfinite(plan.learning_rate[0]) else []),
        *[(name.replace("_", " "), with_interval(values)) for name, values in plan.others.items()],
        *([(f"{counted} parameters", f"{plan.model_size:.3g}")] if plan.model_size else []),
        ("D: environment steps", with_interval(plan.env_steps)),
        (f"C: {plan.currency} of updates", with_interval(plan.compute)),
        (f"F: {plan.currency} with transitions", with_interval(plan.budget)),
    ]
    if np.isfinite(plan.seconds[0]):
        rows.append(("wall-clock seconds", with_interval(plan.seconds)))
    for name, value in rows:
        print(f"  {name:<30}{value}")
    if not plan.undetermined:
        print(f"\n{shell(command(plan, laws.json.get('settings')))}")
    if plan.warnings:
        print("\nBeyond what the runs tell")
        print("\n".join(bullet(line) for line in plan.warnings))
    if plan.next_runs:
        print(f"\nNext runs that narrow D most ({options.seeds} seeds each)")
        head = ["  σ", "batch", "rate", "steps", plan.currency, "interval of D"]
        lines = [
            (f"  {r['utd']:.3g}", f"{r['batch_size']:.0f}", f"{r['learning_rate']:.2g}", f"{r['env_steps']:.2g}",
             f"{r['cost']:.2g}", f"±{1.645 * r['sd_before']:.0%} -> ±{1.645 * r['sd_after']:.0%}")
            for r in plan.next_runs
        ]  # fmt: skip
        print(table(head, lines))


if __name__ == "__main__":
    sys.exit(main(Options, "scripts/plan.py", __doc__, run))
