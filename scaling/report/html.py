"""report.html: one self-contained page with the numbers, the figures, and what may and may not be concluded."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment

from scaling.curves.shares import KINDS
from scaling.report.figures import draw
from scaling.report.laws_json import write
from scaling.report.result import Result

CAPTIONS = {
    "curves": "Above: whether each kind of crossing can be stood behind: points seen, the factor that 90 % of the "
    "resampled seeds span, points that wait for their last seed. Below: seed-mean returns of the fastest settings "
    "at each σ; dots: where the isotonic curve crosses J.",
    "hyperparameters": "Best batch size and learning rate. Grey bars: the range swept. A red cross lies outside it: "
    "there the optimum is extrapolated.",
    "data_law": "Left: data until J against σ with the fitted law and its 90 % interval. Right: what the law misses.",
    "frontier": "Left: compute against data at equal return. Right: the cheapest ratio for each budget.",
    "delta": "How the cheapest ratio moves with δ, the FLOPs that one transition is worth.",
    "held_out": "Each ratio was left out, the chain refitted, and its data predicted.",
    "cost_model": "The cost model in seconds against stretches of the runs.",
}

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Scaling report</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1c1e21;background:#fff}
h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2.2rem;border-bottom:1px solid #ddd}
table{border-collapse:collapse;font-size:.87rem;margin:.6rem 0}
th,td{padding:.2rem .6rem;text-align:right;white-space:nowrap}
th{border-bottom:1px solid #999;font-weight:600}td:first-child,th:first-child{text-align:left}
tr:nth-child(even) td{background:#f6f7f8}img{max-width:100%}figcaption{color:#555;font-size:.87rem}
figure{margin:1rem 0}.flag{color:#b3261e}.meta{color:#555;margin-top:0}li{margin:.25rem 0}
</style></head><body>
<h1>From curves to laws</h1>
<p class="meta">{{ source }} · {{ samples }} bootstrap samples over seeds · intervals hold 90 %</p>
<h2>What may be concluded</h2><ul>{% for line in may %}<li>{{ line }}</li>{% endfor %}</ul>
<h2>What may not</h2><ul>{% for line in may_not %}<li>{{ line }}</li>{% endfor %}</ul>
{% for section in sections %}<h2>{{ section.title }}</h2>
{% if section.text %}<p>{{ section.text }}</p>{% endif %}
{% for t in section.tables %}<table><thead><tr>{% for h in t.head %}<th>{{ h }}</th>{% endfor %}</tr></thead><tbody>
{% for row in t.rows %}<tr>{% for cell in row %}<td{% if cell in flags %} class="flag"{% endif %}>{{ cell }}</td>
{%- endfor %}</tr>{% endfor %}</tbody></table>{% endfor %}
{% for f in section.figures %}<figure><img alt="{{ f.caption }}" src="data:image/png;base64,{{ f.data }}">
<figcaption>{{ f.caption }}</figcaption></figure>{% endfor %}
{% endfor %}</body></html>
"""
UNDETERMINED = "undetermined"
FLAGS = (UNDETERMINED, "at bound", "outside")


def number(value: float | None) -> str:
    """Three digits: 0.452, 12.3, 1.2e+06."""
    return "–" if value is None else f"{value:.3g}"


def with_interval(block: dict[str, Any], name: str, undetermined: bool = False) -> str:
    """`0.452 [0.361, 0.551]`, or the word undetermined. As many digits in each, so that rounding keeps their order."""
    if undetermined or name in (block.get("undetermined") or []):
        return UNDETERMINED
    low, high = block.get(f"{name}_interval", [None, None])
    if low is None or high is None:
        return number(block[name])
    return f"{number(block[name])} [{low:.3g}, {high:.3g}]"


def hyperparameters(laws: dict[str, Any]) -> list[tuple[str, dict[str, Any], float | None]]:
    """(symbol, block of laws.json, published exponent) of those that were swept."""
    named = {"B*": "batch_size", "η*": "learning_rate"}
    blocks = [(symbol, laws[name], laws["published"].get(name, {}).get("exponent")) for symbol, name in named.items()]
    blocks += [(f"best {name}", block, None) for name, block in laws["hyperparameters"].items()]
    return [entry for entry in blocks if entry[1] is not None]


def conclusions(laws: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Sentences that the numbers bear, and sentences that they do not."""
    may, may_not = [], []
    for symbol, block, _ in hyperparameters(laws):
        low, high = block["exponent_interval"]
        line = f"{symbol} goes as σ^k with k = {with_interval(block, 'slope')}."
        if not block["determined"]:
            may_not.append(f"How {symbol} goes with σ: the sweep shows no clear interior optimum"
                           f"{'' if block['shape'] in ('bowl', 'unclear') else ', it is: ' + block['shape']}.")
        elif low is not None and low <= 0 <= high:
            may_not.append(f"That {symbol} changes with σ: the interval of its exponent contains 0.")
        else:
            may.append(line)
        if block["at_edge"]:
            places = ", ".join(f"{e['task']} at σ={e['utd']:g}" for e in block["at_edge"][:4])
            more = f" and {len(block['at_edge']) - 4} more" if len(block["at_edge"]) > 4 else ""
            may_not.append(f"{symbol} for {places}{more}: at or outside the grid's edge; widen the sweep.")
    if laws["data"]:
        last = laws["data"][-1]
        if last["undetermined"]:
            names = ", ".join(last["undetermined"])
            at = number(last["threshold"])
            may_not.append(f"Coefficients {names} at J = {at}: undetermined; use predictions only.")
        else:
            may.append(f"Data until J = {number(last['threshold'])} is {number(last['d_min'])} + "
                       f"({number(last['beta'])}/σ)^{number(last['alpha'])} steps for the typical task.")  # fmt: skip
    if laws["held_out"]:
        for split in dict.fromkeys(row["split"] for row in laws["held_out"]):
            rows = [r for r in laws["held_out"] if r["split"] == split]
            error = sum(abs(r["relative_error"]) for r in rows) / len(rows)
            text = f"Left out and predicted, {split}: mean error {error:.0%}"
            theirs = [r["published_relative_error"] for r in rows if r["published_relative_error"] is not None]
            if len(theirs) == len(rows):
                text += f" (published procedure {sum(map(abs, theirs)) / len(theirs):.0%})"
            (may if error < 0.25 else may_not).append(text + ".")
    for currency, block in laws["frontier"].items():
        bounded = [p for p in block["points"] if p["at_bound"]]
        low, high = laws["range"]["utd"]
        outside = [p for p in block["points"] if p["utd"] is not None and not low <= p["utd"] <= high]
        unknown = [p for p in block["points"] if "utd" in p["undetermined"] and not p["at_bound"]]
        top = block["points"][-1]
        if bounded:
            share = f"{len(bounded)} of {len(block['points'])}"
            may_not.append(f"σ* in {currency} at {share} thresholds: the cheapest ratio lies at the end of the search "
                           "range, 4 times beyond the runs.")  # fmt: skip
        elif not unknown and top not in outside and top["utd_interval"][0] is not None:
            at = number(top["threshold"])
            may.append(f"The cheapest σ in {currency} at J = {at} is {with_interval(top, 'utd')}.")
        if unknown:
            may_not.append(f"σ* in {currency} at {len(unknown)} of {len(block['points'])} thresholds: undetermined, its"
                           " interval spans more than a factor of ten.")  # fmt: skip
        if outside and not bounded:
            may_not.append(f"σ* in {currency} at {len(outside)} thresholds lies outside the ratios that were run "
                           f"({number(low)} to {number(high)}): run there before relying on it.")  # fmt: skip
        if block["exponent"] is not None and block["exponent_interval"][0] is not None:
            low, high = block["exponent_interval"]
            if low <= 0 <= high:
                may_not.append(f"That σ* moves with the budget in {currency}: its exponent is "
                               f"{with_interval(block, 'exponent')}.")  # fmt: skip
    return may, may_not + laws["notes"]


def pooled(laws: dict[str, Any]) -> str:
    """How much tasks share, in a sentence."""
    if laws["options"]["pooling"] != "partial":
        return " All tasks share its shape."
    weight = laws["options"]["prior"]
    return f" Tasks share its shape as far as they tell; public sweeps' prior on it has the weight {weight:g} (prior=)."


def crossing_tables(laws: dict[str, Any]) -> list[dict[str, Any]]:
    """How well each kind of crossing is known, threshold by threshold; none of a table of crossings."""
    rows: dict[float, list] = {}
    for entry in laws["crossing"]["support"]:
        row = rows.setdefault(entry["threshold"], [number(entry["threshold"])])
        spread = f", ×{number(entry['factor'])}" if entry["factor"] else ""
        waits = f", {entry['waits']} wait" if entry["waits"] else ""
        row.append(f"{'stands' if entry['stands'] else 'no'}: {entry['seen']} of {entry['points']}{spread}{waits}")
    head = ["J", *KINDS]
    return [{"head": head, "rows": list(rows.values())}] if rows else []


def sections(laws: dict[str, Any], images: dict[str, Path]) -> list[dict[str, Any]]:
    """Tables and figures in the order of the chain."""

    def figures(*names: str) -> list[dict[str, str]]:
        return [{"data": base64.b64encode(images[n].read_bytes()).decode(), "caption": CAPTIONS[n]}
                for n in names if n in images]  # fmt: skip

    out = [{"title": "Curves and crossings", "tables": crossing_tables(laws), "figures": figures("curves")}]
    rows = []
    for symbol, block, theirs in hyperparameters(laws):
        rows.append([symbol, with_interval(block, "exponent", not block["determined"]), number(theirs),
                     block["shape"], len(block["at_edge"])])  # fmt: skip
    head = ["best value", "exponent (σ^-x)", "published estimator", "shape over the sweep", "cells at edge"]
    tables = [{"head": head, "rows": rows}] if rows else []
    out.append({"title": "Best hyperparameters", "tables": tables, "figures": figures("hyperparameters")})
    rows = [[number(d["threshold"]), *(with_interval(d, n, n in d["undetermined"]) for n in ("d_min", "alpha", "beta")),
             number(d["residual_sd"])] for d in laws["data"]]  # fmt: skip
    tables = [{"head": ["J", "D_min", "α", "β", "residual sd of ln D"], "rows": rows}] if rows else []
    out.append({"title": "Data law", "tables": tables, "figures": figures("data_law"),
                "text": "D_J(σ) = D_min + (β/σ)^α for the typical task (geometric mean of tasks)."
                + pooled(laws)})  # fmt: skip
    counts = laws["model_size"]["counts"]
    if counts:
        rows = [[c["count"], f"{number(c['lowest'])} to {number(c['highest'])}", with_interval(c, "beta_exponent"),
                 number(c["residual_sd"])] for c in counts]  # fmt: skip
        head = ["N counts", "N", "exponent of N", "residual sd of ln D"]
        out.append({"title": "What N counts", "tables": [{"head": head, "rows": rows}], "figures": [],
                    "text": f"+ (b/N)^exponent; the laws above count {laws['model_size']['counted']}."})  # fmt: skip
    for currency, block in laws["frontier"].items():
        low, high = laws["range"]["utd"]
        rows = [[number(p["threshold"]), *(with_interval(p, n) for n in ("utd", "env_steps", "compute", "budget")),
                 "at bound" if p["at_bound"] else UNDETERMINED if p["utd"] is None
                 else "inside" if low <= p["utd"] <= high else "outside"]
                for p in block["points"]]  # fmt: skip
        head = ["J", "σ*", "D: steps", f"C: {currency}", f"F: {currency}", "range of runs"]
        text = "σ*(F): undetermined." if block["undetermined"] else (
            f"σ*(F) = {number(block['scale'])} · F^{with_interval(block, 'exponent')}, top two budgets left out.")
        if currency == "flops":
            cost = laws["cost"]
            text += (f" δ = {number(cost['delta'])} FLOPs per transition, N = {number(cost['model_size'])} parameters"
                     f" ({laws['model_size']['counted']}).")  # fmt: skip
        out.append({"title": f"Frontier in {currency}", "tables": [{"head": head, "rows": rows}], "text": text,
                    "figures": figures("frontier") if currency == next(iter(laws["frontier"])) else []})  # fmt: skip
    out.append({"title": "What a transition is worth", "tables": [], "figures": figures("delta", "cost_model")})
    groups: dict[tuple, list] = {}
    for row in laws["held_out"]:
        groups.setdefault((row["split"], row["utd"]), []).append(row)
    rows = []
    for (split, utd), members in groups.items():
        inside = [m for m in members if m["predicted_interval"][0] is not None
                  and m["predicted_interval"][0] <= m["observed"] <= m["predicted_interval"][1]]  # fmt: skip
        theirs = [abs(m["published_relative_error"]) for m in members if m["published_relative_error"] is not None]
        ours = [abs(m["relative_error"]) for m in members]
        published = f"{sum(theirs) / len(theirs):.1%}" if theirs else "–"
        rows.append([split, number(utd), f"{sum(ours) / len(ours):.1%}", published,
                     f"{len(inside)} of {len(members)}"])  # fmt: skip
    head = ["left out", "σ", "mean error of D", "published", "inside the interval"]
    tables = [{"head": head, "rows": rows}] if rows else []
    for currency, block in laws["frontier"].items():
        if block["held_out"]:
            rows = [[number(h["threshold"]), with_interval(h, "predicted"), number(h["found"]),
                     f"{h['relative_error']:+.0%}"] for h in block["held_out"]]  # fmt: skip
            tables.append({"head": [f"top budgets ({currency}): J", "σ* predicted", "σ* found", "error"], "rows": rows})
    out.append({"title": "Held out", "tables": tables, "figures": figures("held_out")})
    return [s for s in out if s["tables"] or s["figures"]]


def write_report(result: Result, out: Path) -> dict[str, Any]:
    """laws.json, tables, figures and report.html in `out`. Returns the content of laws.json."""
    laws = write(result, out)
    images = draw(result, out / "figures")
    may, may_not = conclusions(laws)
    page = Environment(autoescape=True, trim_blocks=True).from_string(PAGE).render(
        source=result.options.curves or result.options.crossings, samples=laws["samples"], may=may, may_not=may_not,
        sections=sections(laws, images), flags=FLAGS,
    )  # fmt: skip
    (out / "report.html").write_text(page)
    return laws
