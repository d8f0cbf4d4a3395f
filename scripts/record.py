"""Record a dataset of a run's policy, in Minari's format. `scripts/record.py run_dir=runs/ant out=data/ant-v0`."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from pql import cli
from pql.config import key
from pql.errors import user_errors


@dataclass
class Options(cli.OfRun):
    out: str = key(cli.REQUIRED, "the dataset's folder, which must not exist")
    steps: int = key(100_000, "transitions, over all environments")
    num_envs: int = key(64, "environments stepped together")
    explore: bool = key(True, "act with the run's exploration noise; false: as in evaluations")
    seed: int = key(1, "of the environments and the noise")


def main(argv: list[str]) -> int:
    with user_errors():
        options = cli.parse(argv, Options, "scripts/record.py run_dir=... out=... [key=value ...]")
        options.check()
        for name in ("steps", "num_envs"):
            cli.require(getattr(options, name) >= 1, name, getattr(options, name), "at least 1")
        from pql.run.record import record

        o = options
        print(record(o.run_dir, o.out, o.steps, o.num_envs, o.explore, o.seed, o.checkpoint, o.plugins, o.trust))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
