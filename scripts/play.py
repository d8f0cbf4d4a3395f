"""Watch a run: evaluate its newest good checkpoint and write a video. `scripts/play.py run_dir=runs/ant`; --help."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

from pql import cli
from pql.config import key
from pql.errors import user_errors


@dataclass
class Options(cli.OfRun):
    episodes: int = key(32, "episodes to evaluate, side by side, without noise")
    seconds: float = key(10.0, "length of the video")
    out: str = key("", "the video's file; empty: video.mp4 in run_dir, <run>-video.mp4 here if that is read-only")
    seed: int = key(1, "of the environments")


def main(argv: list[str]) -> int:
    with user_errors():
        options = cli.parse(argv, Options, "scripts/play.py run_dir=... [key=value ...]")
        options.check()
        cli.require(options.episodes >= 1, "episodes", options.episodes, "at least 1")
        cli.require(0 < options.seconds < math.inf, "seconds", options.seconds, "finite and greater than 0")
        out = cli.output_file("out", options.out, ".mp4") if options.out else options.beside("video.mp4")
        from pql.run import evaluation
        from pql.run.video import record

        trained = options.load(options.episodes, options.seed)
        print(evaluation.report_text(evaluation.report(trained, trained.evaluate())))
        video = record(trained.cfg, out, options.seconds, seed=options.seed, which=options.checkpoint)
        if video:
            print(f"video: {video} ({Path(video).stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
