"""Export a run's policy to ONNX and prove that it acts alike. `scripts/export.py run_dir=runs/ant`; --help."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from pql import cli
from pql.config import key
from pql.errors import user_errors


@dataclass
class Options(cli.OfRun):
    out: str = key("", "the file to write; empty: policy.onnx in run_dir, <run>-policy.onnx here if that is read-only")
    opset: int = key(0, "ONNX opset of the file, 9 or more, for a runtime that reads no newer; 0: the exporter's own")
    ir_version: int = key(0, "the file's IR version, 4 or more, likewise")
    steps: int = key(200, "control steps of 32 environments whose observations are compared, besides random ones")


def main(argv: list[str]) -> int:
    with user_errors():
        options = cli.parse(argv, Options, "scripts/export.py run_dir=... [key=value ...]")
        options.check()
        cli.require(options.steps >= 1, "steps", options.steps, "at least 1")
        for name, least in (("opset", 9), ("ir_version", 4)):
            value = getattr(options, name)
            cli.require(value == 0 or value >= least, name, value, f"at least {least}, or 0")
        out = cli.output_file("out", options.out, ".onnx") if options.out else options.beside("policy.onnx")
        from pql.run.export import TOLERANCE, export, reader

        trained = options.load(32)
        parity = export(trained, out, options.steps, options.opset, options.ir_version)
    print(f"onnxruntime against torch, {parity.observations} observations: ", end="")
    print(f"largest difference of an action {parity.largest_difference:.1e} (allowed: {TOLERANCE:.0e})")
    if not parity.holds:
        print(f"error: the exported policy does not act as the trained one: {out} was not written", file=sys.stderr)
        return 1
    opset, ir_version, oldest = reader(out)
    print(f"{out}: {out.stat().st_size / 1e3:.0f} kB, obs (batch, {trained.env.obs_dim}) -> action in [-1, 1];"
          f" opset {opset}, IR version {ir_version}: for onnxruntime {oldest} or newer")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
