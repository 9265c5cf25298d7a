"""Which slices take part: a table of what each prepared slice holds, and rules that select from it."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Bool, Int64

from lungshift.errors import CohortError, ProtocolError

SliceRule = Literal["lung", "lung_or_lesion", "all"]
"""``lung``: slices with lung. ``lung_or_lesion``: the source paper's, whose 714th slice has lesion but no lung."""

SLICE_DTYPE = np.dtype(
    [
        ("case", np.int32),  # index into the cohort's cases
        ("index", np.int32),  # slice of the scan, from the foot
        ("lung", np.int32),  # pixels of the prepared picture
        ("lesion", np.int32),
        ("box", np.int16, (4,)),  # of the lung: first row, end row, first column, end column
    ]
)
"""One prepared slice: where it is from and what it holds."""


def describe_slice(case: int, index: int, lung: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """The table's row for a prepared slice with masks of (size, size)."""
    row = np.zeros((), dtype=SLICE_DTYPE)
    row["case"], row["index"] = case, index
    row["lung"], row["lesion"] = np.count_nonzero(lung), np.count_nonzero(lesion)
    if row["lung"]:
        row["box"] = bounding_box(lung)
    return row


def select_slices(table: np.ndarray, rule: SliceRule) -> Int64[np.ndarray, " row"]:
    """Rows of the table that take part by ``rule``, in order.

    Raises:
        CohortError: No slice is left.
    """
    keep: Bool[np.ndarray, " slice"] = np.ones(len(table), dtype=bool)
    if rule == "lung":
        keep = table["lung"] > 0
    elif rule == "lung_or_lesion":
        keep = (table["lung"] > 0) | (table["lesion"] > 0)
    rows = np.flatnonzero(keep)
    if not len(rows):
        raise CohortError(
            f"None of {len(table)} slices has what the rule {rule!r} asks for; are the lung masks empty?",
            code="E_NO_SLICES",
        )
    return rows


def draw_balanced(
    table: np.ndarray, rows: Int64[np.ndarray, " row"], count: int, generator: np.random.Generator
) -> Int64[np.ndarray, " drawn"]:
    """Draw ``count`` of ``rows``, half with lesion and half without, in random order.

    Raises:
        ProtocolError: There are fewer slices of a kind than half of ``count``.
    """
    lesion = table["lesion"][rows] > 0
    wanted = {"with lesion": (rows[lesion], count - count // 2), "without lesion": (rows[~lesion], count // 2)}
    for kind, (there, n) in wanted.items():
        if len(there) < n:
            raise ProtocolError(
                f"{n} slices {kind} were to be drawn, but only {len(there)} are left; lower the number of slices."
            )
    return generator.permutation(
        np.concatenate([generator.choice(there, n, replace=False) for there, n in wanted.values()])
    )


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """First row, end row, first column, end column of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
