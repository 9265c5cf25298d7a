"""One measured value beside its goal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Result:
    """A value of one run, and what it should be.

    Attributes:
        what: What was measured.
        value: The measured value, or None if it was skipped.
        unit: Of value and goal; ``x`` for a ratio.
        goal: What it should at least or at most be, or None for a value without a goal.
        sense: Whether the goal is the most or the least.
        note: How it was measured, or why it was skipped.
    """

    what: str
    value: float | None
    unit: str = "x"
    goal: float | None = None
    sense: Literal["at most", "at least"] = "at most"
    note: str = ""

    @property
    def verdict(self) -> str:
        """``met``, by how much it was missed, ``skipped``, or nothing where there is no goal."""
        if self.value is None:
            return "skipped"
        if self.goal is None:
            return ""
        low, high = (self.value, self.goal) if self.sense == "at most" else (self.goal, self.value)
        if low <= high:
            return "met"
        return f"missed by a factor of {low / high:.2f}" if high else f"missed by {low:g}"

    def as_row(self) -> str:
        """The result as a row of a markdown table: what, goal, measured, verdict, note."""
        goal = "" if self.goal is None else f"{self.sense} {self.goal:g} {self.unit}"
        value = "" if self.value is None else f"{_short(self.value)} {self.unit}"
        return f"| {self.what} | {goal} | {value} | {self.verdict} | {self.note} |"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
