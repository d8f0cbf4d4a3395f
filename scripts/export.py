"""Export a run's policy to ONNX and prove that it acts alike. `scripts/export.py run_dir=runs/ant`; --help."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from pql import cli
from pql.config import key
from pql.errors import user_errors


@dataclass
class Options:
    run_dir: str = key(cli.REQUIRED, "the run: the folder that training wrote")
    out: str = key("", "the file to write; empty: policy.onnx in run_dir")
    steps: int = key(200, "control steps of 32 environments whose observations are compared, besides random ones")


def main(argv: list[str]) -> int:
    with user_errors():
        options = cli.parse(argv, Options, "scripts/export.py run_dir=... [key=value ...]")
        cli.require(options.steps >= 1, "steps", options.steps, "at least 1")
        out = cli.output_file("out", options.out, ".onnx") if options.out else Path(options.run_dir) / "policy.onnx"
        from pql.run import evaluation
        from pql.run.export import TOLERANCE, export

        trained = evaluation.load_run(options.run_dir, 32)
        parity = export(trained, out, options.steps)
    print(f"onnxruntime against torch, {parity.observations} observations: ", end="")
    print(f"largest difference of an action {parity.largest_difference:.1e} (allowed: {TOLERANCE:.0e})")
    if not parity.holds:
        print(f"error: the exported policy does not act as the trained one: {out} was not written", file=sys.stderr)
        return 1
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB, obs (batch, {trained.env.obs_dim}) -> action in [-1, 1]")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
