"""The command line of scripts/sweep.py: plan, say the cost, run, show; or the table of a sweep's cells."""

from __future__ import annotations

import difflib
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any, Mapping, Sequence

from rich.console import Console

from scaling.errors import InputError, nearest, words_of
from scaling.sweep import slurm
from scaling.sweep.cell import read_record, record_path
from scaling.sweep.cost import cell_size, describe, estimate
from scaling.sweep.launch import Interrupt, load_launcher, local_slots, run_local
from scaling.sweep.locks import has_flock
from scaling.sweep.packing import Packs, packing_of
from scaling.sweep.plan_file import (
    CFG,
    PLAN,
    Plan,
    Resolver,
    foreign_code,
    lay_out,
    load_group,
    load_plan,
    make_request,
    parse_values,
    resolve_request,
    save_plan,
    write_json,
)
from scaling.sweep.status import ROWS, Progress, survey, table, tally

USAGE = """usage: scripts/sweep.py sweep=<name> out=<folder> [key=value ...]  plan and run
       scripts/sweep.py out=<folder> [launcher=...]  continue
       scripts/sweep.py status out=<folder>  table of the cells

  sweep=        a file of cfg/sweep/ (or a path): axes, fixed overrides; without
                it the axes are those given here
  launcher=     local (default), slurm, or a file of your own in cfg/launcher/;
                launcher.<field>=value overrides it
  extend=true   adds cells to the plan in out
  retry_failed=true  runs failed cells again, also those with bad input
  dry_run=true  prints the plan's cost and stops
  trainer=      a command that trains a cell, in place of scripts/train.py
  pack=16       trains up to 16 cells side by side in one process, where they
                differ in seeds and step sizes alone; pack=auto (default): as
                many as pay; pack=1: each by itself
  trust=true    continues a plan that names a trainer, plugins or an interpreter
                of its own: it runs them
  key=1,2,4     makes an axis of any training key, key=3 fixes it:
                algo.utd=1,2 seed=0,1,2,3 max_env_steps=300000"""
OWN = ("sweep", "launcher", "out", "extend", "dry_run", "retry_failed", "trainer", "trust", "pack")
SETTINGS = ("runtime", "device", "num_envs", "algo.utd", "algo.critic_updates_per_step", "eval_interval", "compile",
            "max_env_steps")


def run(argv: Sequence[str], resolve: Resolver | None = None, packs: Packs | None = None) -> int:
    """Do what the command line says; 0: every cell done, 1: not all, 130 or 143: stopped by a signal.

    Args:
        argv: see `USAGE`.
        resolve: the trainer's own config, to refuse unknown keys before anything runs; see `resolve_request`.
        packs: what the trainer can train side by side; without it cells are trained one by one.
    Raises:
        InputError: bad input, with the remedy.
    """
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    verb, rest = ("status", argv[1:]) if argv[0] == "status" else ("run", argv)
    own, launcher_fields, overrides = _split(rest)
    if "out" not in own:
        raise InputError("out is missing: give out=<folder of the sweep>")
    out, console = Path(own["out"]), Console(highlight=False)
    if verb == "status":
        if len(own) > 1 or launcher_fields or overrides:
            raise InputError("status takes out=<folder> alone: leave the rest out")
        plan = load_plan(out)
        try:
            queue, note = slurm.queue(out), ""
        except InputError as error:  # the disk still tells most
            queue, note = {}, f"queued jobs are not shown: {error}"
        statuses = survey(out, plan, queue)
        console.print(table(statuses))
        if len(statuses) > ROWS:
            console.print(f"... and {len(statuses) - ROWS} more")
        if note:
            console.print(note)
        console.print(f"{len(statuses)} cells: {tally(statuses)}")
        return 0
    name = own.get("launcher", "local")
    options = load_launcher(name, launcher_fields)
    if options["kind"] == "slurm":
        slurm.check_slurm()
    plan = _plan(own, overrides, out, resolve, remote=options["kind"] == "slurm")
    return _launch(plan, out, own, options, console, packs)


def _split(argv: Sequence[str]) -> tuple[dict[str, str], dict[str, Any], list[str]]:
    own: dict[str, str] = {}
    launcher: dict[str, Any] = {}
    overrides = []
    for item in argv:
        key, equals, value = item.partition("=")
        if not equals:
            raise InputError(f"{item!r} is not key=value; {nearest(item, ('status', *OWN))}")
        if key in own:
            raise InputError(f"{key} is given twice: give it once")
        if key in ("extend", "dry_run", "retry_failed", "trust") and value not in ("true", "false"):
            raise InputError(f"{item}: give {key}=true or {key}=false")
        if key in OWN:
            if not value:
                raise InputError(f"{key}= is empty: give it a value, or leave it out")
            own[key] = value
        elif key.startswith("launcher."):
            values = parse_values(key, value)
            if len(values) > 1:
                raise InputError(f"{item}: the launcher takes one value")
            launcher[key[len("launcher."):]] = values[0]
        else:
            overrides.append(item)
    return own, launcher, overrides


def _plan(own: Mapping[str, str], overrides: Sequence[str], out: Path, resolve: Resolver | None,
          remote: bool) -> Plan:
    if "sweep" not in own and not overrides:
        if "extend" in own or "trainer" in own or not (out / PLAN).exists():
            known = sorted(path.stem for path in (CFG / "sweep").glob("*.yaml"))
            raise InputError(f"{out} holds no plan to continue and no sweep is named: give sweep=<{'|'.join(known)}>, "
                             "or axes such as seed=0,1,2")
        return confirm(load_plan(out), out, own)
    trainer = shlex.split(own.get("trainer", ""))
    sweep = load_group("sweep", own["sweep"]) if "sweep" in own else {}
    request = make_request(sweep, overrides, f"sweep file {own.get('sweep', '')}".strip())
    settings: Mapping[str, Any] = {}
    if resolve and not trainer:
        settings = resolve_request(request, resolve, ("device",) if remote else (), lambda s: print(s, file=sys.stderr))
        if "runtime" in settings and not any("runtime" in keys for keys in (request.fixed, *request.axes)):
            request.fixed["runtime"] = settings["runtime"]  # one for all cells, as their seconds are compared
    else:
        for key in (item.partition("=")[0] for item in overrides):
            close = difflib.get_close_matches(key, OWN, n=1, cutoff=0.8)
            if close:
                raise InputError(f"unknown key {key}: did you mean {close[0]}=?")
    cells = lay_out(request)
    settings = {**request.fixed, **cells[0].overrides, **settings}
    plan = Plan(cells, trainer, request.assume, {key: settings[key] for key in SETTINGS if key in settings})
    estimate(plan, cells, out, 1)  # refuses a wrong `assume` before the plan is written
    if own.get("dry_run") == "true" and not (out / PLAN).exists():
        return plan
    if own.get("extend") == "true" and (out / PLAN).exists():
        confirm(load_plan(out), out, own, named=foreign_code(plan))
    return save_plan(out, plan, extend=own.get("extend") == "true")


def confirm(plan: Plan, out: Path, own: Mapping[str, str], named: Sequence[str] = ()) -> Plan:
    """The plan, if all that it runs was named on the command line or is confirmed: it may come from someone else."""
    runs = [code for code in foreign_code(plan) if code not in named]
    if runs and own.get("trust") != "true":
        raise InputError(f"{out / PLAN} would run {'; '.join(runs)}: if you know it, confirm with trust=true")
    return plan


def _launch(plan: Plan, out: Path, own: Mapping[str, str], options: Mapping[str, Any], console: Console,
            packs: Packs | None) -> int:
    is_slurm = options["kind"] == "slurm"
    if own.get("retry_failed") == "true" and own.get("dry_run") != "true":
        _forgive(out, plan)
    slots = None if is_slurm else local_slots(options, plan.settings)
    parallel = options["parallel"] if slots is None else slots.workers
    queue = slurm.queue(out) if is_slurm else {}
    statuses = survey(out, plan, queue)
    todo = [s.cell for s in statuses if s.state != "done" and not s.final]
    packing = packing_of(own.get("pack", "auto"), plan, options, packs, parallel, len(todo),
                         lambda line: console.print(line, soft_wrap=True))
    sizes = {cell.hash: len(group) for group in packing.groups(todo) for cell in group}
    most = max(sizes.values(), default=1)
    for line in describe(estimate(plan, todo, out, parallel, packs=sizes), len(plan.cells), parallel, str(out)):
        console.print(line, soft_wrap=True)
    if not todo:
        return 0
    if slots is not None:
        console.print(f"local: {slots.workers} workers, {slots.threads} threads per process"
                      + (f", GPUs {','.join(slots.gpus)}" if slots.gpus else "")
                      + (f", up to {most} cells side by side" if most > 1 else ""))
    if own.get("dry_run") == "true":
        return 0
    if not has_flock(out):
        console.print(f"note: the file system of {out} has no flock: cells are held by lock files and time stamps",
                      soft_wrap=True)
    interrupt, known_done = Interrupt(), {}
    totals = {cell.hash: cell_size(cell, plan.settings)["env_steps"] for cell in plan.cells}
    ends: dict[int, float] = {}  # by the number of cells left; anew each minute, as running cells tell more
    asked, measured = [0.0], {}
    with interrupt.catch(), Progress(console, totals) as progress:

        def tick(queue: Mapping[str, str] | None = None) -> None:
            if progress.due():
                now = survey(out, plan, queue, known_done)
                left = [s.cell for s in now if s.state in ("running", "queued", "missing")]
                if len(left) not in ends or time.monotonic() - asked[0] > 60:
                    asked[0] = time.monotonic()
                    ends[len(left)] = asked[0] + estimate(plan, left, out, parallel, measured, sizes).seconds
                progress.show(now, max(0.0, ends[len(left)] - time.monotonic()))

        if slots is not None:
            run_local(out, plan, options, slots, interrupt, tick, console.print, packing)
        else:
            runnable = [s.cell for s in statuses if s.state in ("missing", "failed") and not s.final]
            jobs, waiting = slurm.submit(out, runnable, options, packing) if runnable else ([], 0)
            console.print(f"slurm: {len(jobs)} jobs submitted, {len(queue)} were in the queue")
            if waiting:
                then = "they follow as jobs end" if options["wait"] else "start the sweep again to submit more"
                console.print(f"slurm: {waiting} cells wait for room (launcher.parallel={options['parallel']}, the"
                              f" site's limits): {then}", soft_wrap=True)

            def more() -> int:
                nonlocal waiting
                if waiting:
                    left = [s.cell for s in survey(out, plan, slurm.queue(out), known_done) if s.state == "missing"]
                    waiting = slurm.submit(out, left, options, packing)[1] if left else 0
                return waiting

            if options["wait"]:
                slurm.wait(out, plan, interrupt, tick, more)
    return _conclude(plan, out, own, interrupt, is_slurm, console)


def _conclude(plan: Plan, out: Path, own: Mapping[str, str], interrupt: Interrupt, is_slurm: bool,
              console: Console) -> int:
    statuses = survey(out, plan, slurm.queue(out) if is_slurm else {})
    console.print(f"{len(statuses)} cells: {tally(statuses)}")
    for status in statuses:
        if status.state == "failed":
            console.print(f"  failed: {status.cell.name}: {status.detail}")
    launcher = [f"launcher={own['launcher']}"] if "launcher" in own else []
    words = [f"out={out}", *launcher, *(["trust=true"] if foreign_code(plan) else [])]
    words += [f"pack={own['pack']}"] if "pack" in own else []
    again = " ".join(["scripts/sweep.py", *map(shlex.quote, words)])
    if is_slurm and any(s.state in ("queued", "running") for s in statuses):
        ids = " ".join(map(shlex.quote, slurm.job_ids(out)))
        console.print(f"the jobs go on; end them with: scancel {ids}", soft_wrap=True)
        console.print(f"watch them with: {again}", soft_wrap=True)
    elif any(s.state in ("missing", "running") or (s.state == "failed" and not s.final) for s in statuses):
        console.print(f"continue with: {again}", soft_wrap=True)
    if any(s.final for s in statuses):
        console.print(f"after mending what failed for good: {again} retry_failed=true", soft_wrap=True)
    if interrupt.count:
        return 128 + interrupt.signal
    return 0 if all(s.state == "done" for s in statuses) else 1


def _forgive(out: Path, plan: Plan) -> None:
    """Drop the verdicts, keep the history."""
    for cell in plan.cells:
        record = read_record(out, cell.hash)
        if record.pop("final", None) is not None:
            record.pop("reason", None)
            write_json(record_path(out, cell.hash), record)


def main(argv: Sequence[str], resolve: Resolver | None = None, packs: Packs | None = None) -> int:
    """`run`, with a user's mistake as one line on stderr and exit code 2."""
    try:
        return run(argv, resolve, packs)
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a name too long, no permission: nothing that a traceback tells better
        print(f"error: {words_of(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # before the cells run, after they ended
        return 128 + signal.SIGINT
