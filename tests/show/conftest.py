"""A study small enough to compute by hand: three patients in the source, four in the target, 8 x 8 pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lungshift.transfer.outcome import (
    CohortSummary,
    EpochRecord,
    Example,
    History,
    Outcome,
    Run,
    Scores,
    SplitSummary,
)
from lungshift.transfer.protocol import Protocol

NAN = float("nan")
# TP, FP, FN, TN per slice; two slices per case. Slices with lesion: every first one.
BEFORE = [(2, 2, 2, 58), (0, 0, 0, 64), (4, 0, 4, 56), (0, 1, 0, 63)]
AFTER = [(4, 0, 0, 60), (0, 0, 0, 64), (6, 0, 2, 56), (0, 0, 0, 64)]


def make_scores(rows: list[tuple[int, ...]], cases: list[str] | None = None, native: bool = False) -> Scores:
    counts = np.array(rows, dtype=np.int64).reshape(-1, 4)
    names = np.array(cases or [f"case-{index // 2}" for index in range(len(rows))])
    in_lung = counts - np.array([0, 0, 0, 40])
    return Scores(names, names, np.arange(len(rows)) % 2, counts, in_lung, counts * 4 if native else None)


def make_example(case_id: str = "case-0", dice: float = 0.5) -> Example:
    mask = np.zeros((8, 8), dtype=bool)
    mask[2:5, 2:5] = True
    return Example(
        "zero_shot",
        "bad",
        case_id,
        7,
        dice,
        np.full((8, 8), -800, dtype=np.int16),
        mask,
        mask,
        np.roll(mask, 1, axis=1),
    )


def make_outcome(*, leaky: bool = False, seeds: tuple[int, ...] = (0,), **changes: Any) -> Outcome:
    runs = tuple(
        Run(*arm, seed, make_scores(rows))
        for seed in seeds
        for arm, rows in (
            (("source", "alpha", "source", ""), AFTER),
            (("zero_shot", "beta", "target", "0 patients"), BEFORE),
            (("fine_tuned", "beta", "target", "2 patients"), AFTER),
        )
    )
    kind = "slice" if leaky else "patient"
    parts = {"train": ("p1", "p2"), "test": ("p3", "p4")}
    epochs = (EpochRecord(1, 0.9, 0.8, NAN, 1e-3, 2.0), EpochRecord(2, 0.5, 0.6, NAN, 1e-3, 2.0))
    settings: dict[str, Any] = {
        "protocol": Protocol("tiny"),
        "source": CohortSummary("alpha", 3, 3, 12, 10, 6, ("reader",)),
        "target": CohortSummary("beta", 4, 4, 16, 12, 8, ("threshold",), "CC0"),
        "splits": (SplitSummary("beta", kind, leaky, {"train": 8, "test": 4}, parts),),
        "runs": runs,
        "histories": (History("source, seed 0", epochs, 2),),
        "examples": (make_example(),),
        "manifest": {"versions": {"lungshift": "0.1.0"}, "device": "cpu"},
    }
    return Outcome(**(settings | changes))


@pytest.fixture
def outcome_of() -> Callable[..., Outcome]:
    return make_outcome


@pytest.fixture
def scores_of() -> Callable[..., Scores]:
    return make_scores


@pytest.fixture
def example_of() -> Callable[..., Example]:
    return make_example
