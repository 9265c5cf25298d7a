"""The transfer matrix: trained there, tested here, as a table whose colours survive print and every eye."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from lungshift.measure.conventions import Convention
from lungshift.show.drawing import INK, MUTED, WIDTH, Drawing, contrast, finish, new_figure, rgb, slug, warn_of_leak
from lungshift.show.tables import Cell, Row, number, span, summary_rows
from lungshift.show.words import CONVENTION_SHORT, over_whom
from lungshift.transfer.arms import ARMS
from lungshift.transfer.outcome import Outcome

_LIGHT, _DARK = "#f3f8fb", "#083d5c"
MATRIX_CONVENTIONS: Final[tuple[Convention, ...]] = ("lesion_slices", "per_case")
"""One matrix each."""


@dataclass(frozen=True)
class Matrix:
    """F1 by what was trained on (rows, in words) and what was tested on (columns); None where nothing was tested."""

    convention: Convention
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]


def matrix_of(outcome: Outcome, table: Sequence[Row], convention: Convention) -> Matrix | None:
    """The matrix of a study; None if nothing was tested."""
    found: dict[str, dict[str, Cell]] = {}
    for row in summary_rows(table, convention):
        if _belongs(row, table):
            found.setdefault(_trained(outcome, row), {})[row.tested_on] = row.cells["dice"]
    columns = tuple(cohort.name for cohort in outcome.cohorts)
    rows = tuple((name, tuple(cells.get(column) for column in columns)) for name, cells in found.items())
    return Matrix(convention, columns, rows) if rows else None


def matrices_of(outcome: Outcome, table: Sequence[Row]) -> list[Matrix]:
    """A matrix for each of ``MATRIX_CONVENTIONS``."""
    return [matrix for name in MATRIX_CONVENTIONS if (matrix := matrix_of(outcome, table, name))]


def matrix_records(matrices: Sequence[Matrix]) -> list[dict[str, Any]]:
    """The cells as flat dictionaries."""
    return [
        {"convention": matrix.convention, "trained_on": name, "tested_on": column}
        | {"f1": cell.value, "f1_low": cell.low, "f1_high": cell.high}
        for matrix in matrices
        for name, cells in matrix.rows
        for column, cell in zip(matrix.columns, cells, strict=True)
        if cell
    ]


def shade(value: float) -> tuple[str, str]:
    """Background and letters of a cell: one hue from light to dark, so that it reads without colour too."""
    if math.isnan(value):
        return "#ffffff", INK
    mixed = [low + (high - low) * min(max(value, 0), 1) for low, high in zip(rgb(_LIGHT), rgb(_DARK), strict=True)]
    back = "#" + "".join(f"{round(255 * part):02x}" for part in mixed)
    return back, max(("#000000", "#ffffff"), key=lambda ink: contrast(back, ink))


def draw_matrices(outcome: Outcome, matrices: Sequence[Matrix]) -> list[Drawing]:
    """The matrices as figures, for slides; the page shows them as tables."""
    return [_draw(outcome, matrix) for matrix in matrices]


def _belongs(row: Row, table: Sequence[Row]) -> bool:
    """All-layer arms at their largest budget: a row of the matrix is a cohort that was trained on, not a way of training."""
    if row.arm not in ARMS:
        return True
    arm = ARMS[row.arm]
    largest = max(other.labels for other in table if other.arm == row.arm)
    return arm.trainable == "all" and arm.adaptation is None and row.labels == largest


def _trained(outcome: Outcome, row: Row) -> str:
    """What a row was trained on, in words."""
    source, target = outcome.source.name, outcome.target.name
    if outcome.kind == "leave_one_out":
        return "itself" if row.arm == "at_home" else "all others"
    if row.arm in ("source", "zero_shot"):
        return source
    if row.arm not in ARMS:
        return " → ".join(row.trained_on)
    arm, some = ARMS[row.arm], f"{target} ({row.labels})" if row.labels else target
    if arm.from_source:
        return f"{source} → {some}"
    return f"{source} + {some}" if arm.with_source else some


def _draw(outcome: Outcome, matrix: Matrix) -> Drawing:
    figure = new_figure(WIDTH, 1.1 + 0.55 * len(matrix.rows))
    axis = figure.subplots()
    for height, (_, cells) in enumerate(matrix.rows):
        for place, cell in enumerate(cells):
            _square(axis, place, height, cell)
    axis.set(xlim=(-0.5, len(matrix.columns) - 0.5), ylim=(len(matrix.rows) - 0.5, -0.5))
    axis.set_xticks(range(len(matrix.columns)), matrix.columns)
    axis.set_yticks(range(len(matrix.rows)), [name for name, _ in matrix.rows])
    axis.tick_params(length=0, labelcolor=INK, top=True, labeltop=True, bottom=False, labelbottom=False)
    axis.spines[:].set_visible(False)
    axis.set_title(
        f"trained on (down), tested on (across): {CONVENTION_SHORT[matrix.convention]}", fontsize=8, color=MUTED
    )
    if outcome.leaky:
        warn_of_leak(figure)
    caption = (
        f"F1 by what was trained on and tested on ({matrix.convention}), with 95 % intervals over {over_whom(outcome)}."
    )
    told = "; ".join(
        f"{name} on {column}: {number(cell.value)}"
        for name, cells in matrix.rows
        for column, cell in zip(matrix.columns, cells, strict=True)
        if cell
    )
    return finish(figure, f"matrix-{slug(matrix.convention)}", "matrix", caption, f"{caption} {told}.")


def _square(axis: Any, place: int, height: int, cell: Cell | None) -> None:
    from matplotlib.patches import Rectangle

    if cell is None:
        axis.text(place, height, "not tested", ha="center", va="center", color=MUTED, fontsize=8)
        return
    back, ink = shade(cell.value)
    axis.add_patch(
        Rectangle((place - 0.48, height - 0.46), 0.96, 0.92, facecolor=back, edgecolor="#c3ccd4", linewidth=0.6)
    )
    axis.text(place, height - 0.13, number(cell.value), ha="center", va="center", color=ink, fontweight="bold")
    axis.text(place, height + 0.22, span(cell), ha="center", va="center", color=ink, fontsize=7.5)
