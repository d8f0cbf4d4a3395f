"""Learning curves to laws, frontier and report: scripts/fit.py curves=<table, sweep folder or logs> out=<folder>."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scaling.cli import main
from scaling.curves.read import read_curves, write_table
from scaling.curves.readers.registry import import_plugins
from scaling.report.fit import Options, check_options, fit
from scaling.report.html import conclusions, write_report
from scaling.report.laws_json import write
from scaling.report.terminal import bullet


def run(options: Options) -> None:
    """Fit, write, and say what came out; or write the table of curves and stop."""
    import_plugins(options.plugins)
    if options.table is not None:
        check_options(options)
        curves = read_curves(options.curves, options.where, options.meta, options.resumed)
        line = write_table(curves, Path(options.table))
        print("\n".join([*(bullet(note) for note in curves.notes), line]))
        return
    result = fit(options)
    out = Path(options.out)
    laws = write_report(result, out) if options.report else write(result, out)
    may, may_not = conclusions(laws)
    for title, lines in (("What may be concluded", may), ("What may not", may_not)):
        print(f"\n{title}")
        print("\n".join(bullet(line) for line in lines) or "  nothing")
    print(f"\n{out / ('report.html' if options.report else 'laws.json')}")


if __name__ == "__main__":
    sys.exit(main(Options, "scripts/fit.py", __doc__, run))
