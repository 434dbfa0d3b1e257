"""`docs/reliability.md` names tests that exist, every fault test, and every promise."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs/reliability.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`((?:\w+/)+test_\w+\.py)::(test_\w+)`")


def declared_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_every_test_that_the_page_names_exists() -> None:
    named = NAMED.findall(PAGE)
    assert len(named) > 40
    there = {file: declared_in(TESTS / file) if (TESTS / file).exists() else set() for file, _ in named}
    assert [f"{file}::{test}" for file, test in named if test not in there[file]] == []


def test_every_fault_test_is_in_the_page() -> None:
    named = set(NAMED.findall(PAGE))
    there = {
        (f"faults/{path.name}", test)
        for path in (TESTS / "faults").glob("test_*.py")
        if path.name != Path(__file__).name
        for test in declared_in(path)
    }
    assert sorted(there - named) == []


def test_every_row_names_a_test_and_every_promise_has_one_that_tries_to_break_it() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| fault", "| hole"))]
    assert [row for row in rows if not NAMED.search(row)] == []
    promises = {promise for row in rows for promise in re.findall(r"\bP[1-9]\b", row)}
    assert promises == {f"P{number}" for number in range(1, 10)}
