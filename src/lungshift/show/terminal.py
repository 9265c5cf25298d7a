"""The end of a run on the terminal: the answer, the table, where to look. Plain text, at most 100 columns."""

from __future__ import annotations

import math
import textwrap
from pathlib import Path
from typing import Final

from lungshift.measure.overlap import Metric
from lungshift.show import words
from lungshift.show.paper import PAPER_SOURCE, is_paper
from lungshift.show.tables import SHOWN, Row, build_table, number, span, summary_rows, whole
from lungshift.transfer.outcome import Outcome

_WIDTH = 100
_LINE = "  {:<34} {:>9} {:>8} {:>9} {:>7} {:<19} {:>6}"
_METRICS: Final[tuple[Metric, ...]] = ("accuracy", "precision", "recall", "dice")


def summary(outcome: Outcome, folder: Path | None = None) -> str:
    """The answer in a sentence, a table by convention, and where to look.

    Args:
        outcome: What a study found.
        folder: Where ``write_report`` put its files; None if nowhere.
    """
    table = build_table(outcome)
    blocks = [
        f"{textwrap.fill(words.question(outcome), _WIDTH)}\n({outcome.protocol.name}; {words.RESEARCH_ONLY.lower()})",
        textwrap.fill(words.answer(outcome, table), _WIDTH),
        _table(table),
        _notes(outcome),
    ]
    if outcome.leaky:
        blocks.insert(2, textwrap.fill(f"WARNING: {words.LEAK_WARNING} {words.LEAK_INTERVALS}", _WIDTH))
    if folder:
        blocks.append(f"Look at   {folder / 'report.html'}\nNumbers   {folder / 'table.csv'}\nEverything in {folder}")
    return "\n\n".join(blocks) + "\n"


def _table(table: tuple[Row, ...]) -> str:
    lines = [_LINE.format("", "accuracy", "nothing", "precision", "recall", "F1 (95 % interval)", "slices").rstrip()]
    for convention in SHOWN:
        lines.append(f"{convention}: {words.CONVENTION_SHORT[convention]}")
        for row in summary_rows(table, convention):
            lines += _lines(row)
    return "\n".join(lines)


def _lines(row: Row) -> list[str]:
    accuracy, precision, recall, f1 = (row.cells[metric] for metric in _METRICS)
    score = number(f1.value) if math.isnan(f1.value) else f"{number(f1.value)} ({span(f1)})"
    ratios = (number(accuracy.value, 4), number(row.baseline, 4), number(precision.value), number(recall.value), score)
    lines = [_LINE.format(textwrap.shorten(row.label, 34, placeholder="…"), *ratios, whole(row.slices))]
    if row.paper:
        accuracy_, *others = (row.paper.ratios[metric] for metric in _METRICS)
        precision_, recall_, f1_ = map(number, others)
        ratios = (number(accuracy_, 4), "", precision_, recall_, f"{f1_:<19}")
        lines.append(_LINE.format("  the paper, convention not stated", *ratios, row.paper.slices))
    return lines


def _notes(outcome: Outcome) -> str:
    notes = "Intervals are 95 %, from patients drawn anew. Accuracy is mostly background: the column “nothing” is what predicting nothing at all scores."
    if is_paper(outcome):
        notes += f" The paper: {PAPER_SOURCE}."
    return textwrap.fill(notes, _WIDTH)
