"""Pilots, a law, more pilots where it is vague, and then the one run that the law calls cheapest.

All of its state lies in files that other scripts read too: each round of pilots is a sweep file, all pilots are one
sweep, each fit is a folder of laws, the run is a sweep of its own. So what was killed goes on by deciding again: a
round whose file exists was decided, a run that is done is not run again.
"""

from __future__ import annotations

import dataclasses
import shlex
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, Mapping, Sequence

import numpy as np

from scaling.autopilot import outcome, rounds
from scaling.autopilot.options import Options, claim, split
from scaling.cli import usage
from scaling.curves.read import read_curves
from scaling.curves.table import CELL
from scaling.curves.thresholds import end_levels
from scaling.errors import InputError, words_of
from scaling.laws.uncertainty import interval
from scaling.report import fit as fitting
from scaling.report import plan as planning
from scaling.report.html import write_report
from scaling.report.laws_json import write
from scaling.report.terminal import amount
from scaling.sweep import cli as sweeping
from scaling.sweep.plan_file import Resolver, load_plan, make_request, write_json

LEVELS = 5
SURE = 1.5  # the run may take this much more than the steps that 95 % of runs need: some seeds are stuck for long


class Stopped(Exception):
    """The loop ends before its run, with a reason that a user can act on."""


class Interrupted(Exception):
    """A signal has stopped the runs; starting again goes on."""

    def __init__(self, code: int):
        self.code = code


class Autopilot:
    """One loop in one folder.

    Args:
        training: `key=value` words of all runs.
        sweep: words for scripts/sweep.py: launcher, trainer.
        resolve: the trainer's own configuration of some words, flat; None for another trainer.
    """

    def __init__(self, options: Options, training: Sequence[str], sweep: Sequence[str], resolve: Resolver | None):
        self.options, self.training, self.sweep, self.resolve = options, list(training), list(sweep), resolve
        self.out = Path(options.out)
        self.pilot = self.out / "pilot"
        self.fitted: tuple[Any, Path] | None = None  # the last round's fit and the folder of its laws
        self.scatter = (0.0, 0)  # of ln D between seeds, as that fit has it

    def say(self, text: str) -> None:
        """A line of the log, once: what is decided again after a kill is in it already."""
        path = self.out / "log.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        if not any(line.partition("  ")[2] == text for line in lines):
            with path.open("a") as file:
                file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}\n")
        print(text, flush=True)

    # ---- pilots

    def fly(self, first: rounds.Round) -> int:
        """The whole loop; 0: the run reached the target, 1: it did not, or there was none."""
        try:
            plan, laws = self.pilots(first)
            self.show()
            return self.conclude(plan, laws)
        except Stopped as why:
            self.say(f"stopped: {why}")
            self.show()
            return 1

    def show(self) -> None:
        """report.html of the last round's laws, to be looked at while the run goes on; its figures take seconds."""
        if self.fitted is not None:
            write_report(*self.fitted)

    def pilots(self, decided: rounds.Round) -> tuple[planning.Plan, Path]:
        """Rounds of pilots until the law is sharp enough or their share is spent; the plan, the folder of its laws."""
        unit, limit = self.options.unit, self.options.share * self.options.amount
        files = [self.pilot / f"round-{number}.yaml" for number in range(1, self.options.rounds + 1)]
        ended = f"rounds={self.options.rounds} are flown"
        known = sum(path.exists() for path in files)  # the last of these may have been cut short, those before were not
        for number, path in list(enumerate(files, 1))[max(0, known - 1) :]:
            if not path.exists():
                decided.write(path)
                self.say(f"round {number}: {decided.why}: {len(decided)} runs")
            failed = self.run_sweep(self.pilot, path, extend=True)
            spent = rounds.spent(self.pilot, unit)
            if failed and not spent:
                raise Stopped(f"no pilot has taken a step: scripts/sweep.py status out={self.pilot} shows why; mend it"
                              " and give the same command again")  # fmt: skip
            laws = self.out / "laws" / f"round-{number}"
            self.say(f"round {number}: pilots have taken {amount(spent)} of {amount(limit)} {unit}; laws in {laws}")
            cells, left = load_plan(self.pilot).cells, limit - spent
            ratios, plan, planner, trouble = self.learn(laws)
            if plan is None:
                more = rounds.longer(cells, self.pilot, ratios, self.options, left)
                if more is None:
                    raise Stopped(f"{trouble}, and longer pilots would take more than their share: raise budget= or"
                                  " share=, or lower target=")  # fmt: skip
                decided = more
                continue
            span = rounds.width(plan)
            self.say(f"round {number}: the law asks for {within(plan.env_steps)} steps to {self.options.target:g} at"
                     f" ratio {plan.utd[0]:.3g}, the cheapest in {plan.currency}; seeds scatter by a"
                     f" factor of {np.exp(np.sqrt(self.scatter[0])):.2f}")  # fmt: skip
            if span <= self.options.precision:
                self.say(f"the steps to {self.options.target:g} are known to a factor of {span:.2f}: pilots are done")
                return plan, laws
            more = rounds.narrowing(plan, planner, cells, self.options, left, float(np.sqrt(self.scatter[0])))
            if more is None:
                ended = "no pilots that would narrow it further fit into their share"
                break
            decided = more
        if plan is None:
            raise Stopped(f"{trouble} after {self.options.rounds} rounds: raise rounds=, or lower target=")
        if plan.undetermined:
            raise Stopped("the pilots do not tell the steps within a factor of ten: raise budget= or share=")
        self.say(f"{ended}: pilots end with the steps known to a factor of {span:.2f}")
        return plan, laws

    def first(self) -> rounds.Round:
        """The first round; bad words are refused here, before anything is written."""
        defaults: Mapping[str, Any] = {}
        if self.options.sweep is None and self.resolve is not None:
            defaults = self.resolve(self.training)
        elif self.options.sweep is None and (self.options.utd is None or self.options.unit != "steps"):
            raise InputError("another trainer's defaults are not known: give utd=<ratios> and a budget in steps")
        return rounds.first_round(self.options, self.training, defaults)

    def run_sweep(self, out: Path, path: Path, extend: bool = False) -> bool:
        """Run what is missing of a sweep file's cells; whether some failed. Raises Interrupted."""
        words = [f"sweep={path}", f"out={out}", *(["extend=true"] if extend else []), *self.sweep]
        self.say(f"scripts/sweep.py {shlex.join(words)}")
        code = sweeping.run(words, self.resolve)
        if code >= 128:
            raise Interrupted(code)
        if code:
            self.say(f"some runs of {out} failed; what there is decides (scripts/sweep.py status out={out})")
        return code != 0

    # ---- laws

    def learn(self, out: Path) -> tuple[set[float], planning.Plan | None, planning.Planner | None, str]:
        """(ratios that reached the target, the plan and its planner or None, why there is none).

        Crossings are those of the median seed: what is predicted is one run, and runs of any length count as far as
        they went, where a mean over seeds ends with its shortest.
        """
        target = self.options.target
        table = read_curves(self.pilot).table
        low = float(end_levels(table, CELL)["lowest"].min())
        if low >= target:
            raise Stopped(f"target={target:g}: runs return {low:.4g} at their start already; give a higher target=,"
                          " which these pilots serve as well")  # fmt: skip
        levels = low + (target - low) * np.linspace(0.5, 1.0, LEVELS)
        try:
            result = fitting.fit(fitting.Options(str(self.pilot), out=str(out), thresholds=list(levels),
                                                 published=False, samples=500, crossing="median_seed"))  # fmt: skip
        except InputError as error:
            return set(), None, None, str(error)
        write(result, out)
        self.fitted = result, out
        crossings = result.crossings
        at = np.flatnonzero(np.isclose(crossings.thresholds_, target))
        if len(at):
            self.scatter = outcome.scatter(crossings, int(at[0]))
        got = np.isfinite(crossings.steps_[0][:, at]).any(axis=1)
        ratios = set(crossings.cells_["utd"].to_numpy(dtype=float)[got].tolist())
        if len(ratios) < rounds.LEAST_RATIOS or result.law is None:
            return ratios, None, None, f"{len(ratios)} ratios reach {target:g}, and a law needs {rounds.LEAST_RATIOS}"
        options = planning.Options(laws=str(out), target=target, seeds=self.options.seeds)
        try:
            plan, _, planner = planning.make_plan(options)
            sure = outcome.proven(crossings, int(at[0])) or sorted(ratios)
            held = float(np.clip(plan.utd[0], sure[0], sure[-1]))
            if not np.isclose(held, plan.utd[0], rtol=0.02):
                self.say(f"the law would go to ratio {plan.utd[0]:.3g}, where pilots have yet to arrive: it is held at"
                         f" {held:.3g}")  # fmt: skip
                plan, _, planner = planning.make_plan(dataclasses.replace(options, utd=held))
        except InputError as error:
            raise Stopped(str(error)) from None
        return ratios, plan, planner, ""

    # ---- the run

    def conclude(self, plan: planning.Plan, laws: Path) -> int:
        """Train at the recommended settings, compare with what was predicted."""
        saved = planning.SavedLaws(laws)
        steps = self.of_one_run(plan)
        words = dict(word.split("=", 1) for word in planning.overrides(plan, saved.json.get("settings")))
        high = interval(steps)[1]
        words.pop("max_time", None)
        words["seed"] = str(1 + max(int(cell.overrides["seed"]) for cell in load_plan(self.pilot).cells))
        words["max_env_steps"] = str(int(SURE * high))
        words["eval_interval"] = str(max(1, int(steps[0] / 25)))
        left = self.options.amount - rounds.spent(self.pilot, self.options.unit)
        if self.options.unit == "seconds":
            words["max_time"] = f"{left:.6g}"
        elif float(words["max_env_steps"]) > left:
            words["max_env_steps"] = str(int(left))
        self.say(f"the run: ratio {plan.utd[0]:.4g}, batch size {plan.batch_size[0]:.4g}, learning rate"
                 f" {plan.learning_rate[0]:.3g}: {within(steps)} steps to {self.options.target:g}, 90 % of runs")
        end = next((name for name, ratio in zip(("lowest", "highest"), saved.json["range"]["utd"])
                    if np.isclose(plan.utd[0], ratio, rtol=0.05)), None)  # fmt: skip
        if end is not None:
            self.say(f"that is the {end} ratio that was run: beyond it may be cheaper still, which utd= would tell")
        own = self.as_they_are(laws)
        if own is not None:
            self.say(f"by the same law the settings as they are, ratio {own.utd[0]:.4g}, ask for"
                     f" {amount(own.env_steps[0])} steps and {amount(own.seconds[0])} seconds, the run for"
                     f" {amount(plan.seconds[0])} seconds")  # fmt: skip
        if left <= (steps[0] if self.options.unit == "steps" else plan.seconds[0]):
            self.say(f"the {amount(left)} {self.options.unit} left of the budget are less than it needs: it ends there")
        runs = {"the run": self.train("run", words)}
        if self.options.defaults:
            chosen = {"algo.utd", "algo.batch_size", "algo.critic_lr",
                      *saved.json.get("settings", {}).get("learning_rate_keys", [])}  # fmt: skip
            given = {word.partition("=")[0] for word in self.training}
            plain = {key: value for key, value in words.items() if key in given or key not in chosen}
            far = interval(self.of_one_run(own))[1] if own else 2 * high
            plain["max_env_steps"] = str(int(SURE * max(high, far)))
            runs["defaults"] = self.train("defaults", plain)
        report = {
            "target": self.options.target, "budget": self.options.amount, "unit": self.options.unit,
            "utd": float(plan.utd[0]), "batch_size": float(plan.batch_size[0]),
            "learning_rate": float(plan.learning_rate[0]), "predicted": outcome.predicted(plan, steps),
            "predicted_defaults": own and outcome.predicted(own, self.of_one_run(own)),
            "runs": {name: dataclasses.asdict(found) for name, found in runs.items()},
            "spent": {"pilots": rounds.spent(self.pilot, self.options.unit),
                      **{name: rounds.spent(self.out / name, self.options.unit)
                         for name in ("run", "defaults") if (self.out / name).exists()}},
        }  # fmt: skip
        write_json(self.out / "report.json", report)
        found = runs["the run"]
        self.say(f"the run reached {self.options.target:g} after {amount(found.env_steps)} steps"
                 if found.env_steps is not None else
                 f"the run did not reach {self.options.target:g} in {words['max_env_steps']} steps; its best evaluation"
                 f" returned {found.best:.4g}" + self.how_to_go_on(int(words["max_env_steps"])))  # fmt: skip
        print(f"\n{outcome.show(report)}\n\n{self.out / 'report.json'}\n{laws / 'report.html'}")
        return 0 if found.env_steps is not None else 1

    def how_to_go_on(self, steps: int) -> str:
        """The words that train the run for as long again; none where it is not ours to train."""
        if self.resolve is None:
            return ""
        run = self.out / "run" / load_plan(self.out / "run").cells[0].run_dir
        return f"; to go on: scripts/train.py {shlex.quote(f'run_dir={run}')} resume=true max_env_steps={2 * steps}"

    def of_one_run(self, plan: planning.Plan) -> np.ndarray:
        """(R,) samples of the steps that one run of a plan needs."""
        return outcome.of_one_run(plan, self.scatter, np.random.default_rng(0))

    def as_they_are(self, laws: Path) -> planning.Plan | None:
        """What the law says of the settings as they are; None where they are not known, or not ratio alone varied."""
        if self.resolve is None or rounds.varied(load_plan(self.pilot).cells) != [rounds.UTD]:
            return None
        own = float(self.resolve(self.training)[rounds.UTD])
        try:
            return planning.make_plan(planning.Options(laws=str(laws), target=self.options.target, utd=own))[0]
        except InputError:
            return None

    def train(self, name: str, words: Mapping[str, str]) -> outcome.Reached:
        """One run, as a sweep of one cell: launched, resumed and requeued as any."""
        path, out = self.out / f"{name}.yaml", self.out / name
        if not path.exists():
            request = make_request({}, [f"{key}={value}" for key, value in words.items()])
            write_json(path, {"axes": {}, "fixed": request.fixed})
        self.run_sweep(out, path)
        return outcome.reached(out / load_plan(out).cells[0].run_dir, self.options.target)


def main(argv: Sequence[str], resolve: Resolver | None = None) -> int:
    """scripts/autopilot.py: 0, 1 (see `Autopilot.fly`), 2 for a user's mistake in one line, 128 + a signal's number."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage(Options, "scripts/autopilot.py", __doc__.splitlines()[0]))
        return 0
    try:
        options, training, sweep = split(argv)
        foreign = any(word.startswith("trainer=") for word in sweep)
        autopilot = Autopilot(options, training, sweep, None if foreign else resolve)
        first = autopilot.first()
        if options.dry_run:
            _describe(options, first)
            return 0
        claim(options, [*training, *sweep])
        autopilot.pilot.mkdir(exist_ok=True)
        return autopilot.fly(first)
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {words_of(error)}", file=sys.stderr)
        return 2
    except Interrupted as error:
        print("start the same command again to go on")
        return error.code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def within(samples: np.ndarray) -> str:
    """`16,500 [11,600, 26,400]`."""
    low, high = interval(samples)
    return f"{amount(samples[0])} [{amount(low)}, {amount(high)}]"


def _describe(options: Options, first: rounds.Round) -> None:
    """What a flight would do."""
    print(f"round 1: {first.why}: {len(first)} runs")
    for keys, values in first.axes.items():
        print(f"  {keys}: {', '.join(map(str, values))}")
    cost = first.cost(options.unit)
    if cost is not None:
        print(f"  {amount(cost)} {options.unit} at most, of {amount(options.amount)}")
    print(f"then up to {options.rounds - 1} rounds more, until the steps to {options.target:g} are known to a factor of"
          f" {options.precision:g} or {amount(options.share * options.amount)} {options.unit} are spent;")  # fmt: skip
    print("then one run at the cheapest ratio, with what is left")
