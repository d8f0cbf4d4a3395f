"""What to run: the cheapest ratio, batch size and learning rate for a target or a budget, and what is not known."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from scaling.cli import boolean, demand_positive, option
from scaling.errors import InputError
from scaling.laws.frontier import minimise, search_range
from scaling.laws.model_size import ModelSizeLaw
from scaling.laws.uncertainty import interval, undetermined
from scaling.report.laws_json import SavedLaws
from scaling.sweep.plan_file import to_override

UNITS = {"flops": "flops", "flop": "flops", "s": "seconds", "sec": "seconds", "seconds": "seconds", "m": "minutes",
         "min": "minutes", "h": "hours", "hours": "hours", "d": "days", "steps": "steps", "env_steps": "steps",
         "envsteps": "steps"}  # fmt: skip
MONOTONE = {"flat": "any value of it does", "larger is better": "the upper end is taken, try beyond it",
            "smaller is better": "the lower end is taken, try beyond it"}  # fmt: skip
SECONDS = {"seconds": 1.0, "minutes": 60.0, "hours": 3600.0, "days": 86400.0}


@dataclass
class Options:
    """The keys of scripts/plan.py."""

    laws: str | None = option(None, "folder that scripts/fit.py wrote")
    target: float | None = option(None, "return to reach: of task=, or on the scaled returns where no task is named",
                                  float)  # fmt: skip
    task: str | None = option(None, "task of the laws to plan for; by default the typical one (or the only one)")
    budget: str | None = option(None, "what may be spent, with its unit: 1e15flops, 3600s, 2h or 5e6steps")
    currency: str | None = option(None, "what to minimise: flops or seconds; by default the budget's, else seconds "
                                        "where they were measured")  # fmt: skip
    utd: float | None = option(None, "predict at this ratio; by default at the cheapest", float)
    max_env_steps: float | None = option(None, "only ratios that need at most this many steps", float)
    max_compute: float | None = option(None, "only ratios whose updates cost at most this much of the currency", float)
    delta: float | None = option(None, "FLOPs one transition is worth; by default the laws' own", float)
    extrapolate: bool = option(False, "plan for targets above anything seen and ratios beyond the runs too", boolean)
    seeds: int = option(4, "seeds per proposed run", int)


@dataclass
class Plan:
    """The recommendation; each quantity is (R,) samples with the point estimate first."""

    target: float
    currency: str
    task: str | None
    utd: np.ndarray
    batch_size: np.ndarray
    learning_rate: np.ndarray
    env_steps: np.ndarray
    compute: np.ndarray
    budget: np.ndarray
    seconds: np.ndarray
    model_size: float | None
    others: dict[str, np.ndarray] = field(default_factory=dict)  # further hyperparameters
    words: list[str] = field(default_factory=list)  # of the command line that set them
    warnings: list[str] = field(default_factory=list)
    next_runs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def undetermined(self) -> bool:
        """Whether the laws do not tell D: then there is nothing to run for this target."""
        return undetermined(self.env_steps)


def parse_budget(text: str) -> tuple[float, str]:
    """`2h` to (7200, "seconds"); flops, seconds or steps."""
    match = re.fullmatch(r"\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z_]+)\s*", text)
    if not match or match.group(2).lower() not in UNITS:
        raise InputError(f"budget={text!r}: give a number and a unit, such as 1e15flops, 3600s, 2h or 5e6steps")
    unit, value = UNITS[match.group(2).lower()], float(match.group(1))
    if not 0 < value < math.inf:
        raise InputError(f"budget={text!r}: must be positive and finite")
    return (value * SECONDS[unit], "seconds") if unit in SECONDS else (value, unit)


class Planner:
    """Costs over a grid of ratios (and model sizes) for one task of a saved fit."""

    def __init__(
        self, laws: SavedLaws, task: str | None, currency: str, delta: float | None, utd: float | None = None
    ) -> None:
        self.laws, self.task, self.currency, self.utd = laws, task, currency, utd
        self.cost = replace(laws.cost, currency=currency, delta=laws.cost.delta if delta is None else delta)
        grid = search_range(np.array([*laws.json["range"]["utd"], *([utd] if utd else [])]), 2.0)
        self.warmup = laws.json.get("warmup") or 0.0
        if utd:  # moved, equally spaced as it is, onto the ratio asked for
            grid += np.log(utd) - grid[np.argmin(np.abs(grid - np.log(utd)))]
        self.grid = np.exp(grid)
        first, last = laws.json["range"]["utd"]
        self.ran = (self.grid >= first * 0.999) & (self.grid <= last * 1.001)
        self.batch = laws.best("batch_size", self.grid, task)
        self.rate = laws.best("learning_rate", self.grid, task)
        self.others = {name: laws.best(name, self.grid, task) for name in laws.others}
        if not np.isfinite(self.batch[0]).all():
            raise InputError("the laws know no batch size, so no cost: fit curves with a column batch_size")
        if currency == "flops" and not np.isfinite(self.cost.delta):
            raise InputError("delta is unknown, so every transition would be free: give delta=<FLOPs per transition>")
        self.sizes: list[float | None] = [None]
        if isinstance(laws.law, ModelSizeLaw):
            sizes = laws.arrays["points_size"]
            self.sizes = list(np.geomspace(sizes.min(), sizes.max(), 25))

    def curves(self, target: float, size: float | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(R, G) steps, compute and budget over the grid of ratios."""
        steps = self.laws.steps(self.grid, target, self.task, size)
        updates = steps * self.cost.updates(self.grid[None], self.batch, size)
        return steps, updates, steps * self.cost.per_transition(self.grid[None], self.batch, size)

    def allowed(self, steps: np.ndarray, compute: np.ndarray, options: Options) -> np.ndarray:
        """(G,) ratios whose point estimate keeps the limits."""
        keep = np.isclose(self.grid, self.utd) if self.utd else np.ones(len(self.grid), dtype=bool)
        if options.max_env_steps is not None:
            keep &= steps[0] <= options.max_env_steps
        if options.max_compute is not None:
            keep &= compute[0] <= options.max_compute
        return keep

    def best(self, target: float, options: Options) -> dict[str, Any]:
        """The cheapest allowed point; raises InputError where the limits leave none."""
        best: dict[str, Any] = {}
        least, short = [np.inf, np.inf], 0.0
        for size in self.sizes:
            steps, compute, budget = self.curves(target, size)
            least = [min(least[0], steps[0].min()), min(least[1], compute[0].min())]
            keep = self.allowed(steps, compute, options)
            short = max([short, *steps[0, keep]])
            keep &= steps[0] > self.warmup
            if (keep & self.ran).any() and not options.extrapolate:  # only limits drive a plan beyond what was run
                keep &= self.ran
            if not keep.any():
                continue
            at = int(np.flatnonzero(keep)[np.argmin(budget[0, keep])])
            if not best or budget[0, at] < best["budget"][0]:
                free, _, _ = minimise(np.where(keep[None], budget, np.inf), np.log(self.grid))
                bound = at in (np.flatnonzero(keep)[0], np.flatnonzero(keep)[-1])
                best = {"at": at, "size": size, "steps": steps[:, at], "compute": compute[:, at],
                        "budget": budget[:, at], "free": np.exp(free), "bound": bool(bound)}  # fmt: skip
        if not best and short:
            raise InputError(
                f"these laws ask for {short:.3g} steps, fewer than the {self.warmup:.3g} before a run's first update:"
                " they do not hold there; give a higher target, or fit runs whose evaluations start below it"
            )
        if not best:
            raise InputError(
                f"no ratio keeps the limits: the fewest steps are {least[0]:.3g}, the least compute {least[1]:.3g}"
                f" {self.currency}; raise max_env_steps or max_compute, or lower target"
            )
        return best


def scale_of(laws: SavedLaws, task: str | None) -> float:
    """Multiply a scaled return by this to get the task's own."""
    if task is None:
        return 1.0
    sign = -1.0 if laws.json["options"].get("direction") == "lower" else 1.0
    return sign * laws.json["tasks"].get(task, {}).get("max_return", 1000.0) / 1000.0


def make_plan(options: Options) -> tuple[Plan, SavedLaws, Planner]:
    """The plan for a target, or for the highest return that a budget buys."""
    if options.laws is None:
        raise InputError("give laws=<folder that scripts/fit.py wrote>")
    if options.target is None and options.budget is None:
        raise InputError("give target=<return> or budget=<such as 2h>, or both")
    demand_positive(options, "delta", "utd", "max_env_steps", "max_compute", "seeds")
    laws = SavedLaws(options.laws)
    task = options.task or (laws.tasks[0] if len(laws.tasks) == 1 else None)
    if task is not None and task not in laws.tasks:
        raise InputError(f"task={task!r}: the laws know {', '.join(laws.tasks)}")
    amount, kind = parse_budget(options.budget) if options.budget else (None, None)
    currency = options.currency or (kind if kind in ("flops", "seconds") else None)
    currency = currency or ("seconds" if laws.cost.measured else "flops")
    if currency not in ("flops", "seconds"):
        raise InputError(f"currency={currency!r}: use flops or seconds")
    if currency == "seconds" and not laws.cost.measured:
        raise InputError("these runs measured no seconds (no wall_time_s in metrics.jsonl): use currency=flops")
    planner, scale = Planner(laws, task, currency, options.delta, options.utd), scale_of(laws, task)
    fitted = laws.law.thresholds_[laws.levels(task)]
    low, high, most = float(fitted[0]), float(fitted[-1]), laws.most(task)
    warnings = []
    if options.target is not None:
        target = options.target / scale
        if target > most + 1e-9 * abs(most) and not options.extrapolate:
            raise InputError(
                f"target={options.target:g} is beyond {most * scale:.4g}, the best mean return seen"
                f"{'' if task is None else f' of {task}'} (or its known ceiling): nothing says that it can be reached;"
                " give another target, or extrapolate=true"
            )
    else:
        high = max(low, min(high, most))
        target, reached = _affordable(planner, options, amount, kind, low, high)
        if reached:
            warnings.append(f"the budget buys more than J = {high * scale:.4g}, the highest return fitted; the plan "
                            "stops there")  # fmt: skip
    best = planner.best(target, options)
    at = best["at"]
    plan = Plan(
        target * scale, currency, task,
        np.concatenate([planner.grid[at : at + 1], *([] if options.utd else [best["free"][1:]])]),
        planner.batch[:, at], planner.rate[:, at], best["steps"], best["compute"], best["budget"],
        best["steps"] * planner.cost.seconds(planner.grid[at], planner.batch[:, at]), best["size"],
        {name: values[:, at] for name, values in planner.others.items()},
        [word for name, values in planner.others.items() for word in word_of(name, values[0, at], laws.block(name))],
        warnings,
    )  # fmt: skip
    if not low <= target <= high:
        warnings.append(f"target {plan.target:.4g} lies outside the returns fitted ({low * scale:.4g} to"
                        f" {high * scale:.4g}): D is extrapolated in J, its interval too narrow")  # fmt: skip
    first, last = laws.json["range"]["utd"]
    if not first * 0.999 <= plan.utd[0] <= last * 1.001:
        warnings.append(f"σ = {plan.utd[0]:.3g} lies outside the ratios that were run ({first:.3g} to {last:.3g})")
    if best["bound"] and not options.utd:
        warnings.append("the cheapest ratio is the end of the runs', or of the limits: beyond may be cheaper; "
                        "extrapolate=true looks up to 2 times beyond")  # fmt: skip
    for name in ("batch_size", "learning_rate", *laws.others):
        block = laws.block(name)
        if block is None:
            warnings.append(f"{name} was not swept: what the runs used is continued")
        elif not block["determined"] and laws.arrays["from_surface"] and block.get("shape") in MONOTONE:
            warnings.append(f"{name}: {block['shape']} over the range that was swept; {MONOTONE[block['shape']]}")
        elif not block["determined"]:
            taken = "the best within its grid" if laws.arrays["from_surface"] else "what the runs used"
            warnings.append(f"{name}: the sweep shows no clear interior optimum; {taken} is taken")
    if plan.undetermined:
        warnings.append("D is undetermined: its interval spans more than a factor of ten, so there is no command; more"
                        " seeds and ratios narrow it")  # fmt: skip
    if target > most:
        warnings.append(f"target {plan.target:.4g} is above anything seen ({most * scale:.4g}): it may be out of reach")
    if laws.json["data"][-1]["undetermined"]:
        names = ", ".join(laws.json["data"][-1]["undetermined"])
        warnings.append(f"the data law's {names} are undetermined: far from the runs it is a guess")
    if options.budget and options.target is not None:
        need = {"flops": plan.budget, "seconds": plan.seconds, "steps": plan.env_steps}[kind][0]
        if need > amount:
            warnings.append(f"the budget of {amount:.3g} {kind} does not suffice: {need:.3g} are needed")
    plan.next_runs = next_runs(planner, plan, target, options.seeds)
    return plan, laws, planner


def _affordable(planner: Planner, options: Options, amount: float, kind: str, low: float, high: float):
    """The highest target within [low, high] that the budget buys, by bisection; whether it buys the highest."""

    def need(target: float) -> float:
        best = planner.best(target, options)
        at = best["at"]
        if kind == "steps":
            return float(best["steps"][0])
        if kind == planner.currency:
            return float(best["budget"][0])
        return float(best["steps"][0] * planner.cost.seconds(planner.grid[at], planner.batch[0, at]))

    if need(high) <= amount:
        return high, True
    if need(low) > amount:
        least = f"{need(low):.3g} {kind}"
        raise InputError(f"budget={options.budget}: even J = {low:.4g}, the lowest fitted, needs {least}")
    a, b = low, high
    for _ in range(40):
        middle = (a + b) / 2
        a, b = (middle, b) if need(middle) <= amount else (a, middle)
    return a, False


def next_runs(planner: Planner, plan: Plan, target: float, seeds: int, count: int = 3,
              in_steps: bool = False) -> list[dict[str, Any]]:  # fmt: skip
    """The runs that narrow the predicted D most per cost: the variance removed over the run's budget, or its steps.

    The bootstrap samples are a cloud of laws that the data allow. A run at sigma' observes ln D(sigma') with the noise
    of `seeds` seeds; to first order it removes cov^2 / (var + noise) of the variance of ln D at the plan's ratio.
    Proposals are greedy; each conditions the cloud as an ensemble Kalman update with a deterministic square root does.
    """
    steps, _, budget = planner.curves(target, plan.model_size)
    price = steps[0] if in_steps else budget[0]
    if len(steps) < 100:
        return []
    goal = np.log(steps[1:, np.argmin(np.abs(np.log(planner.grid / plan.utd[0])))])
    cloud = np.log(steps[1:])
    have = float(planner.laws.arrays.get("seeds", 4))
    noise = max(float(np.median(planner.laws.arrays["variance"])) * have / seeds, 1e-6)
    out: list[dict[str, Any]] = []
    low, high = planner.laws.json["range"]["utd"]
    powers = np.exp(np.arange(np.log(low / 2), np.log(high * 2) + 1e-9, np.log(2)))
    candidates = [int(np.argmin(np.abs(np.log(planner.grid / u)))) for u in powers]
    before = goal.var()
    for _ in range(count):
        centred, other = goal - goal.mean(), cloud - cloud.mean(axis=0)
        covariance, variance = (centred[:, None] * other).mean(axis=0), other.var(axis=0)
        gain = covariance**2 / (variance + noise)
        if before <= 0 or not candidates or gain[candidates].max() < 0.02 * before:
            break
        worth = [g for g in candidates if gain[g] >= 0.02 * before]
        at = max(worth, key=lambda g: gain[g] / price[g])
        candidates.remove(at)
        total = variance[at] + noise
        shrink = 1 / (1 + np.sqrt(noise / total))  # square-root filter: the cloud's spread is that of the posterior
        shift = other[:, at].copy()
        goal = goal - shrink * covariance[at] / total * shift
        cloud = cloud - shrink * ((shift[:, None] * other).mean(axis=0) / total)[None] * shift[:, None]
        out.append({"utd": float(planner.grid[at]), "batch_size": float(planner.batch[0, at]),
                    "learning_rate": float(planner.rate[0, at]),
                    **{name: float(values[0, at]) for name, values in planner.others.items()},
                    "env_steps": float(steps[0, at]), "cost": float(budget[0, at] * seeds),
                    "sd_before": float(np.sqrt(before)), "sd_after": float(goal.std())})  # fmt: skip
        before = goal.var()
    return out


def overrides(plan: Plan, settings: dict[str, Any] | None = None) -> list[str]:
    """The `key=value` words of a training as recommended.

    settings: as in laws.json, how the runs behind the laws were made.
    """
    fixed, tied = ((settings or {}).get(name) for name in ("fixed", "learning_rate_keys"))
    words = []
    if plan.task and plan.task != "all":
        words.append(f"task={to_override(plan.task)}")
    words += [f"algo.utd={plan.utd[0]:.6g}", f"algo.batch_size={max(1, round(plan.batch_size[0]))}"]
    if np.isfinite(plan.learning_rate[0]):
        words += [f"{key}={plan.learning_rate[0]:.3g}" for key in ["algo.critic_lr", *(tied or [])]]
    words += plan.words
    words.append(f"max_env_steps={round(plan.env_steps[0])}")
    return words + [f"{key}={to_override(value)}" for key, value in (fixed or {}).items()]


def word_of(name: str, value: float, block: dict[str, Any] | None) -> list[str]:
    """The `key=value` of one further hyperparameter, as its block in laws.json tells; none where it has no value."""
    block = block or {}
    if not np.isfinite(value):
        return []
    text = str(max(1, round(value))) if block.get("integer") else f"{value:.3g}"
    if block.get("repeat"):
        text = f"[{','.join([text] * block['repeat'])}]"
    return [f"{block.get('key', f'algo.{name}')}={text}"]


def command(plan: Plan, settings: dict[str, Any] | None = None) -> list[str]:
    """The words of a ready scripts/train.py command line, quoted for a shell: names in a fit may be anybody's."""
    return ["python scripts/train.py", *map(shlex.quote, overrides(plan, settings))]


def with_interval(samples: np.ndarray, form: str = ".3g") -> str:
    """`1.2e+06  [1.0e+06, 1.5e+06]`, or the word undetermined."""
    low, high = interval(samples)
    if undetermined(samples):
        return "undetermined"
    return f"{samples[0]:{form}}" + ("" if low is None else f"  [{low:{form}}, {high:{form}}]")
