"""Why it dropped, as bars: what the source model gains on the target with one difference removed at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from lungshift.show.drawing import (
    AFTER,
    BEFORE,
    INK,
    LEVEL,
    WIDTH,
    Drawing,
    finish,
    grid_lines,
    new_figure,
    warn_of_leak,
)
from lungshift.show.tables import number, signed, span
from lungshift.transfer.outcome import Cause, CauseName, Explanation, Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CAUSE_WORDS: Final[dict[CauseName, str]] = {
    "hu": "CT values",
    "sharpness": "sharpness",
    "pixel_size": "pixel size",
    "slice_thickness": "slice thickness",
    "orientation": "orientation",
    "lung_mask": "lung masks",
    "lesion_sizes": "lesion sizes",
    "annotation": "annotation style",
}
"""What differs between two cohorts, in words."""


def cause_records(explanation: Explanation) -> list[dict[str, Any]]:
    """A flat dictionary for each difference."""
    names = ("name", "found", "score", "gained", "low", "high", "share", "note")
    return [{name: getattr(cause, name) for name in names} for cause in explanation.causes]


def draw_causes(outcome: Outcome) -> list[Drawing]:
    """One figure; none without an explanation in which something was tried."""
    explanation = outcome.explanation
    tried = [cause for cause in explanation.causes if not math.isnan(cause.gained)] if explanation else []
    if not explanation or not tried:
        return []
    figure = new_figure(WIDTH, 1.35 + 0.34 * len(tried))
    axis = figure.subplots()
    for height, cause in enumerate(tried):
        _bar(axis, height, cause)
    _dress(axis, tried, explanation)
    if outcome.leaky:
        warn_of_leak(figure)
    caption = (
        f"Gain in F1 of the model from {outcome.source.name} on {outcome.target.name} with one difference removed at a time "
        f"({explanation.convention}), with 95 % intervals over patients. Dashed: the whole drop, {number(explanation.drop)} "
        f"({span(explanation)}). Filled bars have their whole interval above 0."
    )
    told = "; ".join(f"{CAUSE_WORDS[cause.name]}: {signed(cause.gained)} ({span(cause)})" for cause in tried)
    return [finish(figure, "drop", "drop", caption, f"{caption} {told}.")]


def _bar(axis: Axes, height: int, cause: Cause) -> None:
    sure = cause.low > 0
    axis.barh(
        height,
        cause.gained,
        height=0.62,
        color=AFTER if sure else "white",
        edgecolor=AFTER if sure else BEFORE,
        linewidth=1.1,
    )
    axis.plot([cause.low, cause.high], [height, height], "-", color=INK, linewidth=1.3, solid_capstyle="butt")
    for end in (cause.low, cause.high):
        axis.plot([end, end], [height - 0.13, height + 0.13], "-", color=INK, linewidth=1.3)
    share = "" if math.isnan(cause.share) else f" ({100 * cause.share:.0f} %)".replace("-", "−")
    axis.annotate(
        f"{signed(cause.gained)}{share}",
        (1, height),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="center",
        fontsize=8,
    )


def _dress(axis: Axes, tried: list[Cause], explanation: Explanation) -> None:
    axis.set_yticks(range(len(tried)), [CAUSE_WORDS[cause.name] for cause in tried])
    axis.tick_params(axis="y", length=0, labelcolor=INK)
    axis.axvline(0, color=INK, linewidth=0.9)
    ends = [v for cause in tried for v in (cause.low, cause.high, cause.gained) if not math.isnan(v)]
    if not math.isnan(explanation.drop):
        axis.axvline(explanation.drop, color=LEVEL, linewidth=1.2, linestyle=(0, (6, 3)))
        ends.append(explanation.drop)
    low, high = min(0.0, *ends), max(0.0, *ends)
    low, high = (low, high) if low < high else (low, low + 0.01)  # nothing changed anything: an axis all the same
    axis.set(
        xlim=(low - 0.04 * (high - low), high + 0.42 * (high - low)),
        ylim=(len(tried) - 0.4, -0.6),
        xlabel="F1 gained with the difference removed (share of the drop)",
    )
    grid_lines(axis, "x")
