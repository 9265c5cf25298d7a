"""The table of faults has every number, and everything that it names exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "benchmarks" / "abuse" / "faults.md"
WAITING_FOR_A_SERVER = {84, 85, 86}
NUMBERS = sorted(set(range(1, 89)) - WAITING_FOR_A_SERVER)
ROWS = re.findall(r"^\| F(\d\d) [^|]+\|[^|]+\|([^|]*)\|$", TABLE.read_text(), flags=re.M)


@cache
def names_in(file: Path) -> set[str]:
    """Names of the tests of a file, those of its classes as ``Class::test``."""
    names = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{part.name}" for part in node.body if isinstance(part, ast.FunctionDef)}
        elif isinstance(node, ast.FunctionDef):
            names.add(node.name)
    return {name for name in names if name.split("::")[-1].startswith("test_")}


def test_every_number_that_needs_no_server_has_one_row_in_order() -> None:
    assert [int(number) for number, _ in ROWS] == NUMBERS
    assert TABLE.read_text().count("\n| F") == len(ROWS), "a row whose columns cannot be read"


@pytest.mark.parametrize(("number", "shown"), ROWS, ids=[f"F{number}" for number, _ in ROWS])
def test_what_shows_it_exists(number: str, shown: str) -> None:
    named = re.findall(r"`([^`]+)`", shown)
    for name in named:
        file, _, test = name.partition("::")
        assert (ROOT / file).is_file(), name
        assert file.startswith("benchmarks/") or test in names_in(ROOT / file), name
    assert named or "not there yet" in TABLE.read_text().partition(f"\n| F{number} ")[2].partition("\n")[0]
