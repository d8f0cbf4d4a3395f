"""How the house is laid out: who may import whom, no rings, no file too long to read."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pql", "tasks", "scaling", "scripts")
ALLOWED = {"pql": {"pql", "tasks"}, "tasks": {"tasks"}, "scaling": {"scaling"}, "scripts": set(PACKAGES)}
# the rooms of pql/, each of which imports only those before it
ROOMS = ("memory", "algorithms", "config", "roles", "runtime", "run", "bench")


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of ours that a file imports, at its top or in a function; a package stands for its __init__."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in known}
        elif isinstance(node, ast.ImportFrom):
            folder = path.relative_to(ROOT).parts[: -node.level] if node.level else ()  # of a relative import
            module = ".".join([*folder, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{module}.{alias.name}"
                found |= {whole} if whole in known else {module} & known.keys()
    return found - {name}


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    known = modules()
    assert len(known) > 100
    return {name: imports(name, path, known) for name, path in known.items()}


def test_no_two_files_import_each_other_around_any_corner(graph):
    finished: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " -> ".join((*way[way.index(name) :], name))
        if name not in finished:
            for other in sorted(graph[name]):
                visit(other, (*way, name))
            finished.add(name)

    for name in graph:
        visit(name, ())


def test_imports_run_one_way(graph):
    for name, others in graph.items():
        for other in others:
            assert other.split(".")[0] in ALLOWED[name.split(".")[0]], f"{name} imports {other}"


def test_science_knows_no_torch():
    for name, path in modules().items():
        if name.startswith("scaling"):
            tree = ast.walk(ast.parse(path.read_text()))
            names = {alias.name.split(".")[0] for node in tree if isinstance(node, ast.Import) for alias in node.names}
            assert "torch" not in names, f"{name} imports torch"


def test_rooms_of_pql_import_only_those_before_them(graph):
    for name, others in graph.items():
        room = [*name.split("."), ""][1]
        if not name.startswith("pql.") or room not in ROOMS:
            continue
        for other in others:
            theirs = [*other.split("."), ""][1]
            if other.startswith("pql.") and theirs in ROOMS:
                assert ROOMS.index(theirs) <= ROOMS.index(room), f"{name} imports {other}"


def test_no_file_is_longer_than_four_hundred_lines():
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules().values()}
    assert {name: n for name, n in lines.items() if n > 400} == {}


def test_tests_mirror_the_rooms():
    for package in ("pql", "tasks", "scaling"):
        rooms = {path.name for path in (ROOT / package).iterdir() if path.is_dir() and not path.name.startswith("__")}
        folders = {path.name for path in (ROOT / "tests" / package).iterdir() if path.is_dir()} - {"__pycache__"}
        assert folders <= rooms, f"tests/{package}: {folders - rooms} mirrors nothing"
