"""What an audit found: a table on the terminal, and every finding as JSON and CSV."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from lungshift.audit.finding import CODES, Finding, Severity, many, rank, runs
from lungshift.files import write_json, write_text
from lungshift.show.words import RESEARCH_ONLY

COLUMNS = (
    *("severity", "kind", "code", "cohort", "case", "slices", "voxels", "seat", "evidence", "remedy", "error"),
    *("other_cohort", "other_case"),
)
"""The columns of ``findings.csv``."""

_WIDTH, _MOST = 100, 12
_ROW = "  {:<8} {:<20} {:>8} {:>6}  {}"


def write_findings(findings: Sequence[Finding], folder: Path) -> None:
    """Write ``findings.json`` and ``findings.csv``, the gravest first."""
    ranked = rank(findings)
    write_json(folder / "findings.json", {"note": RESEARCH_ONLY, "findings": [one.as_dict() for one in ranked]})
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_row(one) for one in ranked)
    write_text(folder / "findings.csv", stream.getvalue())


def summary(findings: Sequence[Finding], cases: int, folder: Path | None = None) -> str:
    """How many findings of each kind there are, and the gravest of them in words.

    Args:
        findings: Of all cohorts.
        cases: How many cases were looked at.
        folder: Where ``write_findings`` put its files.
    """
    counts = {name: sum(one.severity == name for one in findings) for name in get_args(Severity)}
    clean = cases - len({(one.cohort, one.case) for one in findings if one.severity != "note"})
    head = (
        f"{many(cases, 'case')}: {', '.join(many(counts[name], name) for name in get_args(Severity))}; "
        f"no more than notes in {clean} of them."
    )
    blocks = [head, _table(findings)] if findings else [head]
    grave = [one for one in rank(findings) if one.severity == "error"]
    if grave:
        blocks.append("\n".join(["Errors", *(_line(one) for one in grave[:_MOST]), *_more(grave)]))
    if folder:
        blocks.append(f"Every finding with its evidence and remedy: {folder / 'findings.csv'} and findings.json")
    return "\n\n".join(blocks) + f"\n{RESEARCH_ONLY}"


def _table(findings: Sequence[Finding]) -> str:
    lines = [_ROW.format("", "code", "findings", "cases", "what it is")]
    for severity in get_args(Severity):
        for code, (_, title) in CODES.items():
            some = [one for one in findings if (one.severity, one.code) == (severity, code)]
            if some:
                cases = len({(one.cohort, one.case) for one in some})
                lines.append(_ROW.format(severity, code, len(some), cases, title))
    return "\n".join(lines)


def _line(finding: Finding) -> str:
    slices = f", slice {runs(finding.slices)}" if finding.slices else ""
    text = f"{finding.cohort}/{finding.case}{slices}: {finding.code}: {finding.evidence}"
    short = textwrap.shorten(text, 4 * _WIDTH, placeholder=" …")
    return textwrap.fill(short, _WIDTH, initial_indent="  ", subsequent_indent="    ")


def _more(grave: Sequence[Finding]) -> list[str]:
    return [f"  and {len(grave) - _MOST} more"] if len(grave) > _MOST else []


def _row(finding: Finding) -> list[object]:
    plain = finding.as_dict()
    seat = " ".join(map(str, finding.seat or ()))
    other = finding.other or ("", "")
    special = {"slices": runs(finding.slices), "seat": seat, "other_cohort": other[0], "other_case": other[1]}
    return [special[name] if name in special else plain[name] for name in COLUMNS]
