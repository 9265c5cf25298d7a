"""The end of a run on the terminal: the answer, the table, where to look. Plain text, at most 100 columns."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Final

from lungshift.measure.overlap import Metric
from lungshift.show import words
from lungshift.show.findings import Findings
from lungshift.show.paper import PAPER_SOURCE, is_paper
from lungshift.show.tables import SHOWN, Row, number, span, summary_rows, whole
from lungshift.transfer.outcome import Outcome

_WIDTH = 100
_LINE = "  {:<34} {:>9} {:>8} {:>9} {:>7} {:<19} {:>6}"
_COMPACT = "{:<30} {:>6}  {:<20} {:<20} {:<19}"
_MOST_ROWS = 6
_METRICS: Final[tuple[Metric, ...]] = ("accuracy", "precision", "recall", "dice")


def summary(outcome: Outcome, folder: Path | None = None) -> str:
    """The answer in a sentence, a table by convention, and where to look.

    Args:
        outcome: What a study found.
        folder: Where ``write_report`` put its files; None if nowhere.
    """
    found = Findings.of(outcome)
    blocks = [
        f"{textwrap.fill(found.question, _WIDTH)}\n({outcome.protocol.name}; {words.RESEARCH_ONLY.lower()})",
        textwrap.fill(f"{found.answer} {found.on_all_slices}".strip(), _WIDTH),
        _table(found.table),
        _notes(outcome, found.table),
    ]
    if outcome.leaky:
        blocks.insert(2, textwrap.fill(f"WARNING: {words.LEAK_WARNING} {words.LEAK_INTERVALS}", _WIDTH))
    if folder:
        blocks.append(f"Look at   {folder / 'report.html'}\nNumbers   {folder / 'table.csv'}\nEverything in {folder}")
    return "\n\n".join(blocks) + "\n"


def _table(table: tuple[Row, ...]) -> str:
    """Every ratio by convention, or F1 alone with the conventions side by side where arms and budgets are many."""
    if _is_long(table):
        return _compact(table)
    lines = [_LINE.format("", "accuracy", "nothing", "precision", "recall", "F1 (95 % interval)", "slices").rstrip()]
    for convention in SHOWN:
        lines.append(f"{convention}: {words.CONVENTION_SHORT[convention]}")
        for row in summary_rows(table, convention):
            lines += _lines(row)
    return "\n".join(lines)


def _compact(table: tuple[Row, ...]) -> str:
    """A line for each arm and budget, under the cohort that it was tested on."""
    columns = [{row.key: row for row in summary_rows(table, name)} for name in SHOWN[:3]]
    lines, place = [_COMPACT.format("F1 (95 % interval)", "labels", *SHOWN[:3]).rstrip()], ""
    for key, row in columns[0].items():
        again = ", again" if row.role == "source" and row.labels else ""
        if (here := f"on {row.tested_on}{again}") != place:
            lines.append(place := here)
        scores = (_score(column[key]) for column in columns)
        name = textwrap.shorten(row.done, 28, placeholder="…")
        lines.append(_COMPACT.format(f"  {name}", row.labels or "", *scores).rstrip())
    return "\n".join(lines)


def _score(row: Row) -> str:
    f1 = row.cells["dice"]
    return number(f1.value) if math.isnan(f1.value) else f"{number(f1.value)} ({span(f1)})"


def _lines(row: Row) -> list[str]:
    accuracy, precision, recall, _ = (row.cells[metric] for metric in _METRICS)
    ratios = (
        number(accuracy.value, 4), number(row.baseline, 4), number(precision.value), number(recall.value), _score(row),
    )  # fmt: skip
    lines = [_LINE.format(textwrap.shorten(row.label, 34, placeholder="…"), *ratios, whole(row.slices))]
    if row.paper:
        accuracy_, *others = (row.paper.ratios[metric] for metric in _METRICS)
        precision_, recall_, f1_ = map(number, others)
        ratios = (number(accuracy_, 4), "", precision_, recall_, f"{f1_:<19}")
        lines.append(_LINE.format("  the paper, convention not stated", *ratios, row.paper.slices))
    return lines


def _notes(outcome: Outcome, table: tuple[Row, ...]) -> str:
    notes = f"Intervals are 95 %, over {words.over_whom(outcome)}."
    if not _is_long(table):
        notes += " Accuracy is mostly background: the column “nothing” is what predicting nothing at all scores."
        notes += f" The paper: {PAPER_SOURCE}." if is_paper(outcome) else ""
    return textwrap.fill(notes, _WIDTH)


def _is_long(table: tuple[Row, ...]) -> bool:
    return len(summary_rows(table, SHOWN[0])) > _MOST_ROWS
