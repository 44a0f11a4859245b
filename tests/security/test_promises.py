"""S37: every promise of docs/security.rst names its tests, and these tests exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
NAMED = re.compile(r"``(tests/[\w/]+\.py)::(test_\w+)``")


def named_tests() -> list[tuple[str, str]]:
    return NAMED.findall((ROOT / "docs" / "security.rst").read_text(encoding="utf-8"))


def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_the_tests_named_exist() -> None:
    named = named_tests()
    assert len(named) > 40
    missing = [f"{file}::{name}" for file, name in named if name not in names_in(ROOT / file)]
    assert not missing


def test_every_promise_names_a_test() -> None:
    text = (ROOT / "docs" / "security.rst").read_text(encoding="utf-8")
    table = text.partition("Promises and their tests")[2]
    rows = re.split(r"\n   \* - ", table)[2:]
    assert len(rows) > 20
    assert not [row.splitlines()[0] for row in rows if not NAMED.search(row)]


def test_every_attack_of_the_list_has_a_row() -> None:
    """S1 to S37, each with a test, or why it is not run here."""
    text = (ROOT / "docs" / "security.rst").read_text(encoding="utf-8")
    table = text.partition("Attacks that were tried")[2].partition("Promises and their tests")[0]
    rows = dict(re.findall(r"^   \* - (S\d+)\n((?:     .*\n)+)", table, re.MULTILINE))
    assert list(rows) == [f"S{number}" for number in range(1, 38)]
    assert not [name for name, row in rows.items() if not NAMED.search(row) and "Not run" not in row]


def test_every_test_of_this_folder_is_named() -> None:
    """A test that attacks something stands for a promise; twins that show that a test can fail need no line."""
    files = {file for file, _ in named_tests()}
    here = {f"tests/security/{path.name}" for path in Path(__file__).parent.glob("test_*.py")}
    assert here - files <= {"tests/security/test_promises.py"}
