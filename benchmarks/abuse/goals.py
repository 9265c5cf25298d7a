"""A figure that must be reached, and whether it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Goal:
    """One figure with its goal.

    Attributes:
        what: Is measured.
        value: Was measured.
        goal: To be reached.
        sense: Which side of the goal is good.
    """

    what: str
    value: float
    goal: float
    sense: Literal["at most", "at least"] = "at most"

    @property
    def reached(self) -> bool:
        """Whether it was; NaN never is."""
        return self.value <= self.goal if self.sense == "at most" else self.value >= self.goal

    def as_row(self) -> str:
        """As a row of ``table``."""
        return f"| {self.what} | {self.sense} {self.goal:g} | {_number(self.value, self.sense)} | {'yes' if self.reached else '**no**'} |"


def table(goals: Sequence[Goal]) -> str:
    """The goals as a markdown table."""
    return "\n".join(["| what | goal | measured | reached |", "|---|---|---|---|", *(goal.as_row() for goal in goals)])


def _number(value: float, sense: str) -> str:
    if sense == "at least" and 0.99 < value < 1:
        return f"{value:.6f}"
    return f"{value:.3g}" if value % 1 else f"{value:g}"
