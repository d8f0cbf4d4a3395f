"""What `pql.bench.gpu_check` found, as tables: on a terminal of 80 columns and as Markdown. All from the JSON."""

from __future__ import annotations

import re
import sys
from typing import Any, Iterator, NamedTuple


class Table(NamedTuple):
    title: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""


def results(parts: dict[str, Any], part: str) -> dict[str, Any]:
    """Step -> result of those that have one, whole or not."""
    return {name: step["result"] for name, step in parts.get(part, {}).items() if step.get("result")}


def updates(parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for result in results(parts, "learner").values() for row in result["rows"]]


def goals(parts: dict[str, Any]) -> list[dict[str, Any]]:
    """What a data-centre GPU is asked for, and what was measured; None where it was not."""
    exact = [row for row in updates(parts) if row["batch_size"] == 8192 and "+" not in row["mode"]]

    def best(algo: str, what: str) -> float | None:
        return max((row[what] for row in exact if row["algo"] == algo and row["update"] == "critic"), default=None)

    alone = [row for row in results(parts, "sim").get("Ant", []) if row["num_envs"] == 4096]
    pipeline = results(parts, "pipeline").get("Ant", {})
    runs = results(parts, "ant").values()
    times = [(run["curve"]["reached"]["3000"] or [None])[0] for run in runs]
    asked = (
        ("critic update, float32, batch 8192, times the textbook's: PQL", 5, best("pql", "speed_up")),
        ("the same: PQL-D", 8, best("pql_d", "speed_up")),
        ("share of the roofline: PQL", 0.5, best("pql", "share_of_roofline")),
        ("share of the roofline: PQL-D", 0.5, best("pql_d", "share_of_roofline")),
        ("Ant alone, 4096 environments: env steps/s", 1e6, alone[0]["env_steps_per_s"] if alone else None),
        ("actor beside both learners, share of alone", 0.6, pipeline.get("actor_share_beside_learners")),
        ("parallel, times sync's transitions/s", 1.4, pipeline.get("overlap_gain")),
    )
    found = [{"goal": goal, "at_least": least, "measured": value} for goal, least, value in asked]
    packs = _packs(parts)
    share = packs[16] / packs[1] if {1, 16} <= packs.keys() else None
    found.append({"goal": "16 runs side by side, times one", "at_most": 2, "measured": share})
    slowest = max(times) if times and None not in times else None
    found.append({"goal": "Ant over 3000, slowest seed: s", "at_most": 180, "measured": slowest})
    return found


def met(goal: dict[str, Any]) -> bool | None:
    value = goal["measured"]
    if value is None:
        return None
    return value >= goal["at_least"] if "at_least" in goal else value <= goal["at_most"]


def tables(report: dict[str, Any]) -> Iterator[Table]:
    parts = report["parts"]
    yield Table("Parts", ["part", "step", "s", "result"], list(_steps(parts)))
    sim = results(parts, "sim")
    if sim:
        sizes = sorted({row["num_envs"] for rows in sim.values() for row in rows})
        rows = []
        for task, found in sim.items():
            by_size = {row["num_envs"]: row for row in found}
            rates = [f"{by_size[n]['env_steps_per_s']:,.0f}" if n in by_size else "-" for n in sizes]
            last = found[-1]
            rows.append([task, *rates, f"{last['ratio']:.2f}", _gib(last.get("device_memory_bytes"))])
        head = ["task", *(f"{n} envs" for n in sizes), "of physics", "GiB"]
        yield Table("Env steps/s", head, rows, "of physics: against the bare physics, and memory, at the largest size")
    rows = [_update(row) for row in updates(parts)]
    if rows:
        head = ["algo", "batch", "mode", "update", "per s", "textbook", "ratio", "roof", "GiB"]
        note = "ratio: to the textbook's update (float32, eager); roof: share of the roofline that was measured beside"
        yield Table("Updates", head, rows, note)
    rows = list(_rings(results(parts, "learner").get("pql ring on host", {"rows": []})["rows"]))
    if rows:
        head = ["batch", "update", "device: per s", "MiB", "host: per s", "MiB", "ratio"]
        yield Table("Replay ring in either memory", head, rows, "MiB: of the ring, on the device")
    for name, found in results(parts, "pipeline").items():
        rows = [
            [side, f"{x['transitions_per_s']:,.0f}", f"{x['critic_updates_per_s']:,.1f}",
             f"{x['policy_updates_per_s']:,.1f}", f"{x['utd']:.6f}", _gib(x.get("device_memory_bytes"))]
            for side, x in found["sides"].items()
        ]  # fmt: skip
        gain, share = found.get("overlap_gain"), found.get("actor_share_beside_learners")
        note = f"asked utd {found['utd_requested']:.6f}"
        note += f"; parallel {gain:.2f} times sync" if gain else ""
        note += f"; actor beside the learners {share:.0%} of alone" if share else ""
        head = ["side", "transitions/s", "critic/s", "policy/s", "utd", "GiB"]
        yield Table(f"Pipeline: {name}, {found['num_envs']} environments", head, rows, note)
    packs = _packs(parts)
    rows = [
        [str(k), f"{seconds:.1f}", f"{3600 * k / seconds:,.0f}", f"{k * packs[1] / seconds:.2f}" if 1 in packs else "-"]
        for k, seconds in packs.items()
    ]
    if rows:
        note = "ratio: to one after the other; whole commands, with their starts"
        yield Table("Runs side by side", ["runs", "s", "cells/h", "ratio"], rows, note)
    rows = []
    for name, run in results(parts, "ant").items():
        times = ["-" if at is None else f"{at[0]:.0f}" for at in run["curve"]["reached"].values()]
        rows.append([name, f"{run['env_steps'] / 1e6:.2f}M", f"{run['wall_time_s']:.0f}", f"{run['eval_return']:.0f}",
                     *times])  # fmt: skip
    if rows:
        head = ["seed", "env steps", "s", "return", "s to 1000", "3000", "5000"]
        yield Table("From scratch", head, rows)
    if not report["quick"]:
        rows = [
            [goal["goal"], f"{goal.get('at_least', goal.get('at_most')):,g}", _number(goal["measured"]),
             {True: "yes", False: "no", None: "not measured"}[met(goal)]]
            for goal in report["goals"]
        ]  # fmt: skip
        yield Table("Goals", ["goal", "asked", "found", "met"], rows)


def _packs(parts: dict[str, Any]) -> dict[int, float]:
    """Runs trained side by side -> seconds."""
    found = results(parts, "packs")
    return {x["side_by_side"]: parts["packs"][name]["seconds"] for name, x in found.items()}


def _steps(parts: dict[str, Any]) -> Iterator[list[str]]:
    for part, found in parts.items():
        for name, step in found.items():
            said = "ok"
            if part == "tests" and step["result"]:
                counts = ("passed", "failures", "errors", "skipped")
                said = ", ".join(f"{step['result'][what]} {what}" for what in counts)
            if "error" in step:
                said = f"FAILED: {step['error'].splitlines()[0]}"
            yield [part, name, f"{step.get('seconds', 0):.0f}", said]


def _update(row: dict[str, Any]) -> list[str]:
    return [
        row["algo"], str(row["batch_size"]), row["mode"], row["update"], f"{row['updates_per_s']:,.1f}",
        f"{row['textbook_updates_per_s']:,.1f}", f"{row['speed_up']:.2f}", f"{row['share_of_roofline']:.0%}",
        _gib(row.get("peak_memory_bytes")),
    ]  # fmt: skip


def _rings(rows: list[dict[str, Any]]) -> Iterator[list[str]]:
    by_mode = {(row["batch_size"], row["update"], row["mode"]): row for row in rows}
    for size, update, mode in by_mode:
        if mode == "host":
            here, there = by_mode[size, update, "graph"], by_mode[size, update, mode]
            told = []
            for row in (here, there):
                told += [f"{row['updates_per_s']:,.1f}", f"{row['ring_bytes_on_device'] / 2**20:.1f}"]
            yield [str(size), update, *told, f"{there['updates_per_s'] / here['updates_per_s']:.2f}"]


def _gib(value: float | None) -> str:
    return "-" if value is None else f"{value / 2**30:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def title(report: dict[str, Any]) -> str:
    device = report["device"]
    about = [device["name"], f"torch {device['torch']}", f"CUDA {device['cuda']}", f"{device['cores']} cores"]
    if "mps" in device:
        about.append("MPS" if device["mps"] else "no MPS")
    return ", ".join(about) + (" (quick: sizes too small to say how fast)" if report["quick"] else "")


def markdown(report: dict[str, Any]) -> str:
    lines = [f"# {title(report)}"]
    for table in tables(report):
        lines += ["", f"## {table.title}", "", *_markdown_rows([table.head, ["---"] * len(table.head), *table.rows])]
        lines += ["", table.note] if table.note else []
    return "\n".join(lines) + "\n"


def _markdown_rows(rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def show(report: dict[str, Any], file: Any = None) -> None:
    """Print the tables, 80 columns wide; what is wider is folded."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Drawn

    console = Console(width=80, file=file or sys.stdout)
    console.print(title(report), style="bold", highlight=False)
    for table in tables(report):
        drawn = Drawn(title=table.title, box=box.SIMPLE, caption=table.note or None, title_justify="left")
        drawn.caption_justify = "left"
        for i, name in enumerate(table.head):
            numbers = all(re.fullmatch(r"[\d.,%M]+|-", row[i]) for row in table.rows)
            drawn.add_column(name, justify="right" if numbers else "left", overflow="fold")
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn)
