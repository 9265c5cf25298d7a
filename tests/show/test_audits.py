"""What an audit found is one table on the terminal, and every finding in two files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from lungshift.audit.finding import Finding
from lungshift.show.audits import COLUMNS, summary, write_findings

FOUND = (
    Finding("speck", "a", "note", "2 specks", "erase", "home", (1,), 2),
    Finding("lesion-outside-lung", "b", "error", "8 voxels, far away", "erase", "home", (44, 45), 8, (44, 3, 4)),
    Finding("same-scan", "a", "error", "alike", "leave one out", "home", other=("away", "x")),
    Finding("gap", "b", "warning", "a gap", "mark it", "home", (3,), 9),
)


def test_the_summary_counts_by_severity_and_tells_the_errors(tmp_path: Path) -> None:
    text = summary(FOUND, 3, tmp_path)

    assert text.startswith("3 cases: 2 errors, 1 warning, 1 note; no more than notes in 1 of them.")
    assert "home/b, slice 44-45: lesion-outside-lung: 8 voxels, far away" in text
    assert text.index("lesion-outside-lung") < text.index("gap") < text.index("speck")
    assert "findings.csv" in text
    assert text.endswith("Research use only")
    assert max(map(len, text.splitlines()[:-3])) <= 100


def test_a_clean_cohort_has_one_line() -> None:
    assert (
        summary((), 2) == "2 cases: 0 errors, 0 warnings, 0 notes; no more than notes in 2 of them.\nResearch use only"
    )


def test_many_errors_are_counted_and_not_all_told() -> None:
    many = [Finding("gap", str(number), "error", "x", "y", "home") for number in range(15)]

    assert "and 3 more" in summary(many, 15)


def test_both_files_hold_every_finding_the_gravest_first(tmp_path: Path) -> None:
    write_findings(FOUND, tmp_path)

    told = json.loads((tmp_path / "findings.json").read_text())
    assert told["note"] == "Research use only"
    assert next(Finding.from_dict(one) for one in told["findings"]) == FOUND[2]
    with open(tmp_path / "findings.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    assert [row["code"] for row in rows] == ["same-scan", "lesion-outside-lung", "gap", "speck"]
    assert (rows[0]["other_cohort"], rows[0]["other_case"]) == ("away", "x")
    assert (rows[1]["slices"], rows[1]["seat"], rows[1]["kind"]) == ("44-45", "44 3 4", "label")
