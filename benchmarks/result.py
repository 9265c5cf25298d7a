"""One measured value beside its goal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Result:
    """A value of one run, and what it should be.

    Attributes:
        what: What was measured.
        value: The measured value, or None if it was skipped.
        unit: Of value and goal; ``x`` for a ratio, nothing where ``what`` says it.
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

    @property
    def reached(self) -> bool:
        """Whether it was measured and met its goal; NaN never does."""
        return self.verdict == "met"

    def as_row(self) -> str:
        """The result as a row of a markdown table: what, goal, measured, verdict, note."""
        goal = "" if self.goal is None else f"{self.sense} {self.goal:g} {self.unit}"
        value = "" if self.value is None else f"{_short(self.value)} {self.unit}"
        return f"| {self.what} | {goal} | {value} | {self.verdict} | {self.note} |"

    def as_short_row(self) -> str:
        """The result as a row of ``short_table``; a share just below 1 keeps its digits."""
        value = math.nan if self.value is None else self.value
        near = self.sense == "at least" and 0.99 < value < 1
        measured = f"{value:.6f}" if near else f"{value:.3g}" if value % 1 else f"{value:g}"
        return f"| {self.what} | {self.sense} {self.goal:g} | {measured} | {'yes' if self.reached else '**no**'} |"


def short_table(results: Sequence[Result]) -> str:
    """Results with goals as a markdown table, without units and notes."""
    return "\n".join(
        ["| what | goal | measured | reached |", "|---|---|---|---|", *(one.as_short_row() for one in results)]
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
