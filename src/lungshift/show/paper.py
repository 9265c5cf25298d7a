"""The source paper's own numbers, and when ours may stand beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lungshift.measure.overlap import Metric
from lungshift.transfer.outcome import CohortSummary, Outcome

PAPER_SOURCE: Final = "Maganaris, Protopapadakis et al., arXiv 2205.02152, Table 2"
"""Where ``PAPER_TABLE`` is from."""


@dataclass(frozen=True)
class PaperRow:
    """One row of the paper's Table 2: mean ratios per slice, by a convention that the paper does not state.

    Attributes:
        name: The row as the paper calls it.
        ratios: Accuracy, precision, recall and Dice (the paper's F1).
        slices: Tested slices.
    """

    name: str
    ratios: dict[Metric, float]
    slices: int


def _row(name: str, slices: int, accuracy: float, precision: float, recall: float, dice: float) -> PaperRow:
    return PaperRow(name, {"accuracy": accuracy, "precision": precision, "recall": recall, "dice": dice}, slices)


PAPER_TABLE: Final[dict[tuple[str, str], PaperRow]] = {
    ("source", "source"): _row("CT 1-9", 214, 0.997375, 0.751451, 0.833533, 0.783245),
    ("zero_shot", "target"): _row("CT 10, no retraining", 2156, 0.995027, 0.628606, 0.647012, 0.613689),
    ("fine_tuned", "target"): _row("CT 10, retrained", 1656, 0.997397, 0.813515, 0.863668, 0.827899),
}
"""Table 2 by arm and role. The second row was scored on all slices with lung, the third on those that were left."""

_NAMES: Final = ("medseg9", "coronacases10")
_SOURCE_COUNTS: Final = {(829, 713, 373)}
_TARGET_COUNTS: Final = {(2170, 1351), (2156, 1351)}


def is_paper(outcome: Outcome) -> bool:
    """Whether source and target are the paper's cohorts, by their names or by how many slices they have."""
    source, target = outcome.source, outcome.target
    if (source.name, target.name) == _NAMES:
        return True
    return _counts(source) in _SOURCE_COUNTS and target.slices == 2581 and _counts(target)[1:] in _TARGET_COUNTS


def paper_row(outcome: Outcome, arm: str, role: str) -> PaperRow | None:
    """The paper's row for an arm tested in a role; None if the cohorts are others or the paper has no such row."""
    return PAPER_TABLE.get((arm, role)) if is_paper(outcome) else None


def _counts(cohort: CohortSummary) -> tuple[int, int, int]:
    return cohort.slices, cohort.lung_slices, cohort.lesion_slices
