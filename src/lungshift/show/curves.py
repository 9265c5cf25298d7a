"""What labels buy: the score over the budget, a line for each arm, with intervals over patients."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lungshift.measure.conventions import Convention
from lungshift.show.drawing import FAINT, INK, LEVEL, WIDTH, Drawing, finish, grid_lines, new_figure, slug, warn_of_leak
from lungshift.show.tables import Cell, Row, number, span, summary_rows
from lungshift.show.words import CONVENTION_SHORT, over_whom, unit
from lungshift.transfer.arms import ARMS
from lungshift.transfer.outcome import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES: Final = (
    ("#c44d00", "s", "--"),
    ("#0072b2", "o", "-"),
    ("#2aa198", "^", "-."),
    ("#7a1f5c", "D", ":"),
    ("#d39c00", "v", "--"),
)
"""Colour, marker and line of arms with labels; the colours are told apart by every eye, and nothing hangs on colour alone."""

DARK: Final = "#3d4854"
POINTS: Final = ("o", "P", "X", "*")
"""Markers of arms without labels."""

_NAMES_LEFT, _NAMES_RIGHT = 1.02, 1.12
_NAME: Final[dict[str, Any]] = {
    "va": "center",
    "fontsize": 8,
    "linespacing": 0.95,
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.4},
}

CONVENTIONS_DRAWN: Final[tuple[Convention, ...]] = ("lesion_slices", "per_case")
"""One panel each."""


@dataclass(frozen=True)
class Curve:
    """An arm over its budgets: labels rising, and the F1 at each."""

    arm: str
    labels: tuple[int, ...]
    cells: tuple[Cell, ...]


def curves_of(table: Sequence[Row], convention: Convention, role: str = "target") -> list[Curve]:
    """The arms that were tested in a role; those that start from the source model start at no labels."""
    rows = [row for row in summary_rows(table, convention) if row.role == role and (row.arm in ARMS)]
    start = _start(table, convention, role)
    found = []
    for arm in dict.fromkeys(row.arm for row in rows):
        points = {row.labels: row.cells["dice"] for row in rows if row.arm == arm}
        if start and ARMS[arm].labels and (ARMS[arm].from_source or ARMS[arm].with_source):
            points.setdefault(0, start.cells["dice"])
        found.append(Curve(arm, *zip(*sorted(points.items()), strict=True)))
    return found


def home_of(table: Sequence[Row], convention: Convention) -> Row | None:
    """The source model at home."""
    return next((row for row in summary_rows(table, convention) if row.arm == "source"), None)


def draw_curves(outcome: Outcome, table: Sequence[Row]) -> list[Drawing]:
    """A panel for each of ``CONVENTIONS_DRAWN`` on the target, and one of what is left on the source; none without budgets."""
    drawings = [_panel(outcome, table, convention, "target") for convention in CONVENTIONS_DRAWN]
    drawings.append(_panel(outcome, table, "lesion_slices", "source"))
    return [drawing for drawing in drawings if drawing]


def look_of(arm: str) -> tuple[str, str, str]:
    """Colour, marker and line of an arm, the same in every study."""
    place = [name for name in ARMS if ARMS[name].labels == ARMS[arm].labels].index(arm)
    return LINES[place % len(LINES)] if ARMS[arm].labels else (DARK, POINTS[place % len(POINTS)], "-")


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Heights for labels of these values: as near as can be, at least ``gap`` apart, between ``low`` and ``high``."""
    order = np.argsort(values, kind="stable")
    placed = np.clip(np.array(values, dtype=float)[order], low, high)
    for index in range(1, len(placed)):
        placed[index] = max(placed[index], placed[index - 1] + gap)
    for index, ceiling in enumerate(high - gap * np.arange(len(placed))):
        place = len(placed) - 1 - index
        placed[place] = min(placed[place], ceiling)
    result = np.empty(len(placed))
    result[order] = placed
    return result.tolist()


def _start(table: Sequence[Row], convention: Convention, role: str) -> Row | None:
    """What the source model scores there before any label."""
    arm = "zero_shot" if role == "target" else "source"
    return next((row for row in summary_rows(table, convention) if (row.arm, row.role) == (arm, role)), None)


def _panel(outcome: Outcome, table: Sequence[Row], convention: Convention, role: str) -> Drawing | None:
    curves, home = curves_of(table, convention, role), home_of(table, convention)
    lines = [curve for curve in curves if ARMS[curve.arm].labels]
    if not lines:
        return None
    budgets = sorted({0, *(labels for curve in lines for labels in curve.labels)})
    figure = new_figure(WIDTH, 3.9)
    axis = figure.subplots()
    points = _points(table, convention, role)
    _dress(axis, outcome, budgets, _reach([*lines, *points], home), named_left=role == "target" and bool(points))
    for place, curve in enumerate(lines):
        _draw_line(axis, curve, budgets, (place - (len(lines) - 1) / 2) * 0.07)
    for place, curve in enumerate(points):
        _draw_point(axis, curve, -0.13 * place)
    if home:
        _draw_level(axis, home.cells["dice"].value, len(budgets) - 1)
    _label_right(axis, _ends(lines, home, role), len(budgets) - 1)
    if role == "target":
        _label_left(axis, points)
    axis.set_title(f"{_cohort(outcome, role)}: {CONVENTION_SHORT[convention]}", loc="left", fontweight="bold")
    if outcome.leaky:
        warn_of_leak(figure)
    return _finished(figure, outcome, convention, role, curves)


def _points(table: Sequence[Row], convention: Convention, role: str) -> list[Curve]:
    """What takes no labels, each at 0: without retraining first."""
    start = _start(table, convention, role)
    adapted = [curve for curve in curves_of(table, convention, role) if not ARMS[curve.arm].labels]
    if role == "target" or start is None:
        return adapted
    return [Curve("zero_shot", (0,), (start.cells["dice"],))]


def _cohort(outcome: Outcome, role: str) -> str:
    return outcome.target.name if role == "target" else outcome.source.name


def _finished(figure: Figure, outcome: Outcome, convention: Convention, role: str, curves: Sequence[Curve]) -> Drawing:
    told = "; ".join(f"{ARMS[curve.arm].words}: {_told(curve)}" for curve in curves)
    again = ", on which the model was trained first: what is left there" if role == "source" else ""
    caption = (
        f"F1 on held-out slices of {_cohort(outcome, role)}{again}, over the budget ({convention}: {CONVENTION_SHORT[convention]}). "
        f"Bars are 95 % intervals over {over_whom(outcome)}."
    )
    group = "curves" if role == "target" else "forgetting"
    return finish(figure, f"{group}-{slug(convention)}", group, caption, f"{caption} {told}.")


def _told(curve: Curve) -> str:
    points = zip(curve.labels, curve.cells, strict=True)
    return ", ".join(f"{number(cell.value)} ({span(cell)}) with {labels}" for labels, cell in points)


def _reach(curves: Sequence[Curve], home: Row | None) -> tuple[float, float]:
    """The values that the axis has to show."""
    cells = [cell for curve in curves for cell in curve.cells] + ([home.cells["dice"]] if home else [])
    values = [v for cell in cells for v in (cell.value, cell.low, cell.high) if not math.isnan(v)] or [0.0, 1.0]
    room = 0.06 * max(max(values) - min(values), 0.1)
    return max(min(values) - room, -0.02), min(max(values) + room, 1.02)


def _dress(
    axis: Axes, outcome: Outcome, budgets: Sequence[int], reach: tuple[float, float], *, named_left: bool
) -> None:
    """Axes with room for names: budgets are steps, not to scale."""
    noun, last = unit(outcome), len(budgets) - 1
    free = WIDTH - 0.6 - _NAMES_RIGHT - (_NAMES_LEFT if named_left else 0)
    inch = (last + 0.9) / free
    axis.set_xlim(-0.55 - (_NAMES_LEFT * inch if named_left else 0), last + 0.35 + _NAMES_RIGHT * inch)
    axis.set_xticks(range(last + 1), [str(n) for n in budgets])
    axis.set(ylim=reach, ylabel="F1", xlabel=f"labelled {noun}s of {outcome.target.name} trained on")
    axis.tick_params(length=0)
    grid_lines(axis, "y")


def _draw_line(axis: Axes, curve: Curve, budgets: Sequence[int], aside: float) -> None:
    colour, marker, line = look_of(curve.arm)
    x = np.array([budgets.index(n) + (aside if n else 0) for n in curve.labels])
    values = [cell.value for cell in curve.cells]
    axis.plot(
        x,
        values,
        line,
        marker=marker,
        markevery=[n > 0 for n in curve.labels],
        color=colour,
        linewidth=1.6,
        markersize=5,
    )
    for place, labels, cell in zip(x, curve.labels, curve.cells, strict=True):
        if labels:
            axis.plot([place, place], [cell.low, cell.high], "-", color=colour, linewidth=1, alpha=0.7)


def _draw_point(axis: Axes, curve: Curve, x: float) -> None:
    colour, marker, _ = look_of(curve.arm)
    axis.plot([x, x], [curve.cells[0].low, curve.cells[0].high], "-", color=colour, linewidth=1, alpha=0.7)
    axis.plot([x], [curve.cells[0].value], marker, color=colour, markersize=5, zorder=4)


def _draw_level(axis: Axes, value: float, last: int) -> None:
    axis.plot([-0.5, last + 0.2], [value, value], linestyle=(0, (6, 3)), color=LEVEL, linewidth=1.1, zorder=1)


def _ends(lines: Sequence[Curve], home: Row | None, role: str) -> list[tuple[float, str, str]]:
    """Value, name and colour of all that is named on the right."""
    ends = [(curve.cells[-1].value, ARMS[curve.arm].words, look_of(curve.arm)[0]) for curve in lines]
    if home:
        value = home.cells["dice"].value
        ends.append((value, f"{'source model at home' if role == 'target' else 'before'} {number(value)}", LEVEL))
    return [end for end in ends if not math.isnan(end[0])]


def _label_right(axis: Axes, ends: Sequence[tuple[float, str, str]], last: int) -> None:
    """Each line's name beside its end, moved apart where ends are near."""
    for (value, name, colour), height in zip(ends, _heights(axis, [end[0] for end in ends]), strict=True):
        axis.plot([last + 0.2, last + 0.36], [value, height], "-", color=colour, linewidth=0.7)
        axis.text(last + 0.4, height, _wrap(name), color=LEVEL if colour == LEVEL else INK, **_NAME)


def _label_left(axis: Axes, points: Sequence[Curve]) -> None:
    named = [(place, curve) for place, curve in enumerate(points) if not math.isnan(curve.cells[0].value)]
    for (place, curve), height in zip(named, _heights(axis, [c.cells[0].value for _, c in named]), strict=True):
        axis.plot(
            [-0.13 * place - 0.06, -0.55], [curve.cells[0].value, height], "-", color=FAINT, linewidth=0.7, zorder=1
        )
        axis.text(-0.58, height, _wrap(ARMS[curve.arm].words), ha="right", color=INK, **_NAME)


def _heights(axis: Axes, values: Sequence[float]) -> list[float]:
    low, high = axis.get_ylim()
    tall = high - low
    return spread(values, 0.1 * tall, low + 0.05 * tall, high - 0.05 * tall)


def _wrap(name: str) -> str:
    return "\n".join(textwrap.wrap(name, 16))
