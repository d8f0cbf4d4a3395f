"""How good is a run's policy? `scripts/evaluate.py run_dir=runs/ant episodes=100`; --help lists all keys."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from pql import cli
from pql.config import key
from pql.errors import user_errors


@dataclass
class Options(cli.OfRun):
    episodes: int = key(100, "episodes to play, side by side, without noise")
    seed: int = key(1, "of the environments")
    sim: str = key("", "another simulator than the run's; gymnasium, dm_control: the original of a port")
    json: str = key("", "a file for the JSON; -: nothing but JSON on stdout; empty: one line of it after the text")


def main(argv: list[str]) -> int:
    with user_errors():
        options = cli.parse(argv, Options, "scripts/evaluate.py run_dir=... [key=value ...]")
        options.check()
        cli.require(options.episodes >= 1, "episodes", options.episodes, "at least 1")
        out = None if options.json in ("", "-") else cli.output_file("json", options.json, ".json")
        from pql.files import write_atomically
        from pql.run import evaluation

        trained = options.load(options.episodes, options.seed, options.sim)
        values = {"seed": options.seed, **evaluation.report(trained, trained.evaluate())}
        if options.json != "-":
            print(evaluation.report_text(values))
        if out is None:
            print(json.dumps(values))
        else:
            write_atomically(out, json.dumps(values, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
