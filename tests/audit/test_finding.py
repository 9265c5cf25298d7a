"""A finding says what is wrong, where and what to do, and comes back from disk as it was."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungshift.audit.finding import CODES, Finding, rank, runs
from lungshift.errors import ProtocolError

FOUND = Finding(
    "slice-doubled",
    "7",
    "error",
    "seen",
    "remove it",
    "home",
    (3, 4, 9),
    12,
    (3, 1, 2),
    {"a": 0.5},
    ("away", "8"),
    "E_DUP",
)


def test_a_finding_comes_back_from_json_as_it_was() -> None:
    assert Finding.from_dict(json.loads(json.dumps(FOUND.as_dict()))) == FOUND


def test_a_finding_is_told_in_one_line_with_its_place() -> None:
    assert str(FOUND) == "error slice-doubled home/7 slice 3-4, 9: seen"
    assert (FOUND.kind, FOUND.title) == ("completeness", "A slice is there twice")


@pytest.mark.parametrize(("code", "severity"), [("nonsense", "error"), ("speck", "grave")])
def test_a_code_or_severity_that_does_not_exist_is_refused(code: str, severity: str) -> None:
    with pytest.raises(ProtocolError, match=r"codes are unreadable, .*severities error, warning, note"):
        Finding(code, "7", severity, "", "")  # type: ignore[arg-type]


def test_errors_come_first_and_the_larger_of_a_kind() -> None:
    some = [
        Finding("speck", "a", "note", "", "", voxels=99),
        Finding("gap", "b", "warning", "", "", voxels=1),
        Finding("gap", "c", "warning", "", "", voxels=5),
        Finding("lesion-outside-lung", "d", "error", "", ""),
        Finding("not-hu", "e", "error", "", ""),
    ]

    assert [one.case for one in rank(some)] == ["e", "d", "c", "b", "a"]


@given(st.sets(st.integers(0, 30)))
def test_runs_name_every_slice_once(slices: set[int]) -> None:
    named: list[int] = []
    for part in filter(None, runs(slices).split(", ")):
        low, _, high = part.partition("-")
        named += range(int(low), int(high or low) + 1)

    assert named == sorted(slices)


def test_every_code_has_words() -> None:
    assert all(title for _, title in CODES.values())


def test_the_page_explains_every_code_in_a_table_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "audit.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("|")]
    looked_for = page.partition("## What it looks for")[2].partition("\n## ")[0].splitlines()

    named = {word for row in rows for word in re.findall(r"`([a-z0-9-]+)`", row)}
    listed = {
        word for row in looked_for if row.startswith("|") for word in re.findall(r"`([a-z0-9-]+)`", row.split("|")[2])
    }

    assert named >= set(CODES)
    assert listed <= set(CODES)
