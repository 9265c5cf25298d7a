"""Figures as PNG and SVG bytes: training curves, cases before and after, example slices. The same input gives the same bytes.

Matplotlib is imported where it is used, drawn without pyplot, and text is never read as mathematics: ids may hold ``$``.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Bool, Float32

from lungshift.measure.overlap import dice, sum_by
from lungshift.show.tables import arm_on_target, number
from lungshift.show.words import LEAK_WARNING, RESEARCH_ONLY
from lungshift.transfer.outcome import EpochRecord, Example, History, Outcome, Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BOTH, PREDICTION_ONLY, REFERENCE_ONLY = "#009E73", "#8560FF", "#FFD92F"
"""Overlap in colours that red-green blind people can tell apart; a test simulates their eyes."""

REFERENCE, PREDICTION, LUNG = "#56B4E9", "#FF9F1C", "#22D3EE"
INK, MUTED, WARNING = "#1b2733", "#66727f", "#b3161b"
BEFORE, AFTER = "#8a96a3", "#0b6e99"

_WINDOW_HU: Final = (-1350.0, 150.0)
_PANELS: Final = ("CT, lung window", "lung outline", "reference", "prediction", "overlap")
_ORIENTATION: Final = "Front of the chest up, the patient's right on the left."
_WARNING_STYLE: Final[dict[str, Any]] = {"color": WARNING, "fontsize": 7.5, "fontweight": "bold"}
_STYLE: Final = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "svg.hashsalt": "lungshift",
    "text.parse_math": False,
}


@dataclass(frozen=True, eq=False)
class Drawing:
    """A finished figure.

    Attributes:
        name: File name without suffix, safe whatever the ids are.
        group: ``training``, ``cases`` or ``examples``.
        caption: One line for below it.
        alt: What it shows, for those who do not see it.
    """

    name: str
    group: str
    caption: str
    alt: str
    png: bytes
    svg: bytes


def draw_all(outcome: Outcome) -> list[Drawing]:
    """Every figure of an outcome; none for what was not done."""
    with _style():
        drawings = [_training(index, history) for index, history in enumerate(outcome.histories, 1) if history.epochs]
        drawings += _cases(outcome)
        drawings += [_example(index, example, outcome.leaky) for index, example in enumerate(outcome.examples, 1)]
    return drawings


def overlap_rgba(
    reference: Bool[np.ndarray, "row column"], prediction: Bool[np.ndarray, "row column"], opacity: float = 0.8
) -> Float32[np.ndarray, "row column 4"]:
    """Agreement as colours over a slice: both, prediction only, reference only; see-through elsewhere."""
    picture = np.zeros((*reference.shape, 4), dtype=np.float32)
    for colour, where in (
        (BOTH, reference & prediction),
        (PREDICTION_ONLY, prediction & ~reference),
        (REFERENCE_ONLY, reference & ~prediction),
    ):
        picture[where] = (*_rgb(colour), opacity)
    return picture


def case_scores(runs: Sequence[Run]) -> dict[str, float]:
    """Dice of each case in 3-D, as the mean over the seeds that tested it; NaN if undefined in one of them."""
    values: dict[str, list[float]] = {}
    for run in runs:
        names, sums = sum_by(run.scores.counts, [str(case) for case in run.scores.cases])
        for name, value in zip(names, dice(sums), strict=True):
            values.setdefault(name, []).append(float(value))
    return {name: sum(found) / len(found) for name, found in values.items()}


def crop(example: Example, margin: float = 0.08) -> tuple[slice, slice]:
    """Rows and columns around lung, reference and prediction; the whole slice if all are empty."""
    where = example.lung | example.reference | example.prediction
    if not where.any():
        return slice(None), slice(None)
    room = round(margin * max(where.shape))
    return _reach(where.any(axis=1), room), _reach(where.any(axis=0), room)


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)  # type: ignore[arg-type]  # its keys are a Literal of all settings
        yield


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _finish(figure: Figure, name: str, group: str, caption: str, alt: str) -> Drawing:
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=160, metadata={"Software": None})
    figure.savefig(svg, format="svg", metadata={"Date": None})
    return Drawing(name, group, caption, alt, png.getvalue(), svg.getvalue())


def _training(index: int, history: History) -> Drawing:
    scored = any(not math.isnan(epoch.score) for epoch in history.epochs)
    figure = _figure(4.8, 4.0 if scored else 2.6)
    axes = figure.subplots(2 if scored else 1, 1, sharex=True, squeeze=False)[:, 0]
    axes[0].set_title(history.name, loc="left", fontweight="bold")
    _curve(axes[0], history, "training", lambda epoch: epoch.loss, AFTER, "-")
    _curve(axes[0], history, "validation", lambda epoch: epoch.validation_loss, PREDICTION, "--")
    axes[0].set_ylabel("loss")
    if scored:
        _curve(axes[1], history, "validation", lambda epoch: epoch.score, PREDICTION, "--")
        axes[1].set(ylabel="validation score", ylim=(-0.02, 1.02))
    for axis in axes:
        axis.axvline(history.best_epoch, color=MUTED, linestyle=":", linewidth=1)
    axes[0].legend(loc="upper right", frameon=True, edgecolor="none", framealpha=0.85)
    axes[-1].set_xlabel(f"epoch (dotted: epoch {history.best_epoch}, whose weights were kept)")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    caption = f"{history.name}: {len(history.epochs)} epochs, weights of epoch {history.best_epoch} kept."
    return _finish(
        figure, f"training-{index:02d}-{slug(history.name)}", "training", caption, f"Training curves. {caption}"
    )


def _curve(
    axis: Axes, history: History, label: str, value: Callable[[EpochRecord], float], colour: str, line: str
) -> None:
    epochs, values = [epoch.epoch for epoch in history.epochs], [value(epoch) for epoch in history.epochs]
    if all(math.isnan(number) for number in values):
        return
    axis.plot(epochs, values, line, color=colour, label=label, linewidth=1.6)
    best = [value for epoch, value in zip(epochs, values, strict=True) if epoch == history.best_epoch]
    axis.plot([history.best_epoch] * len(best), best, "o", color=colour, markersize=5)


def _cases(outcome: Outcome) -> list[Drawing]:
    """A line per target case from its Dice without retraining to that after; nothing if the target was not tested."""
    arms = [arm_on_target(outcome, arm) for arm in ("zero_shot", "fine_tuned")]
    if not any(arms):
        return []
    before, after = (case_scores(runs) for runs in arms)
    cases = sorted({**before, **after}, key=lambda case: (_last(before.get(case)), _last(after.get(case)), case))
    figure = _figure(5.8, 1.5 + 0.28 * len(cases))
    axis = figure.subplots()
    for height, case in enumerate(cases):
        _dumbbell(axis, height, before.get(case, math.nan), after.get(case, math.nan))
    _label_cases(axis, cases, arms)
    if outcome.leaky:
        figure.supxlabel(LEAK_WARNING, x=0.006, ha="left", **_WARNING_STYLE)
    caption = f"Dice of each case of {outcome.target.name} in 3-D (each case on its own, no average)."
    alt = "; ".join(f"{c}: {number(before.get(c, math.nan))} to {number(after.get(c, math.nan))}" for c in cases)
    return [_finish(figure, "cases", "cases", caption, f"{caption} Without and with retraining: {alt}.")]


def _dumbbell(axis: Axes, height: int, before: float, after: float) -> None:
    axis.plot([before, after], [height, height], "-", color="#c9d0d7", linewidth=3, solid_capstyle="round", zorder=1)
    axis.plot(
        [before], [height], "o", markerfacecolor="white", markeredgecolor=BEFORE, markeredgewidth=2, markersize=10
    )
    axis.plot([after], [height], "o", color=AFTER, markersize=6)
    if math.isnan(before) and math.isnan(after):
        axis.text(0.01, height, "undefined: no lesion in reference or prediction", color=MUTED, va="center", fontsize=8)


def _label_cases(axis: Axes, cases: Sequence[str], arms: Sequence[Sequence[Run]]) -> None:
    axis.set_yticks(range(len(cases)), cases)
    axis.tick_params(axis="y", length=0, labelcolor=INK)
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.7, len(cases) - 0.3), xlabel="Dice of the case in 3-D")
    axis.grid(axis="x", color="#e4e8ec", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines["left"].set_visible(False)
    empty: dict[str, Any] = {"linestyle": "none", "marker": "o"}
    if arms[0]:
        axis.plot(
            [],
            [],
            **empty,
            markerfacecolor="white",
            markeredgecolor=BEFORE,
            markeredgewidth=2,
            label="without retraining",
        )
    if arms[1]:
        axis.plot([], [], **empty, color=AFTER, label=f"retrained on {arms[1][0].budget}")
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2, handletextpad=0.2)


def _example(index: int, example: Example, leaky: bool) -> Drawing:
    rows, columns = crop(example)
    hu, lung, reference, prediction = (
        array[rows, columns] for array in (example.hu, example.lung, example.reference, example.prediction)
    )
    figure = _figure(11.0, 0.85 + 2.15 * min(hu.shape[0] / hu.shape[1], 1.5))
    axes = figure.subplots(1, 5)
    for axis, title in zip(axes, _PANELS, strict=True):
        _slice_panel(axis, hu, title)
    _outline(axes[1], lung, LUNG)
    _fill(axes[2], reference, REFERENCE)
    _fill(axes[3], prediction, PREDICTION)
    axes[4].imshow(overlap_rgba(reference, prediction), interpolation="nearest")
    _legend(figure)
    score = "undefined, no lesion in either" if math.isnan(example.dice) else number(example.dice)
    title = f"{example.case_id}, slice {example.slice_index}: Dice of this one slice {score}"
    figure.suptitle(title, x=0.006, ha="left", fontsize=9.5, fontweight="bold")
    figure.text(0.994, 0.985, RESEARCH_ONLY, ha="right", va="top", color=MUTED, fontsize=7.5)
    if leaky:
        figure.text(0.006, 0.012, LEAK_WARNING, va="bottom", **_WARNING_STYLE)
    caption = f"{example.kind.capitalize()}: {example.run}."
    return _finish(
        figure, f"example-{index:02d}-{slug(example.kind)}", "examples", caption, f"{caption} {title}. {_ORIENTATION}"
    )


def _slice_panel(axis: Axes, hu: np.ndarray, title: str) -> None:
    low, high = _WINDOW_HU
    axis.imshow(hu, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axis.set_title(title, fontsize=8.5, color=INK)
    axis.set_axis_off()
    for x, y, letter in ((0.04, 0.5, "R"), (0.96, 0.5, "L"), (0.5, 0.95, "A")):
        _letter(axis, x, y, letter)


def _letter(axis: Axes, x: float, y: float, letter: str) -> None:
    """White with a dark edge: readable on air and on tissue."""
    from matplotlib.patheffects import withStroke

    text = axis.text(x, y, letter, transform=axis.transAxes, color="white", ha="center", va="center", fontsize=8.5)
    text.set(fontweight="bold", path_effects=[withStroke(linewidth=2.2, foreground="#10161c")])


def _fill(axis: Axes, mask: np.ndarray, colour: str) -> None:
    picture = np.zeros((*mask.shape, 4), dtype=np.float32)
    picture[mask] = (*_rgb(colour), 0.6)
    axis.imshow(picture, interpolation="nearest")
    _outline(axis, mask, colour)


def _outline(axis: Axes, mask: np.ndarray, colour: str) -> None:
    if mask.any() and not mask.all():
        axis.contour(mask, levels=[0.5], colors=[colour], linewidths=0.9)


def _legend(figure: Figure) -> None:
    from matplotlib.patches import Patch

    keys = (
        (BOTH, "both (TP)"),
        (PREDICTION_ONLY, "prediction only (FP)"),
        (REFERENCE_ONLY, "reference only (FN)"),
    )
    handles = [Patch(facecolor=colour, edgecolor=MUTED, linewidth=0.5, label=label) for colour, label in keys]
    figure.legend(handles=handles, loc="outside lower right", ncols=3, fontsize=8, handlelength=1.2, borderaxespad=0)


def slug(text: str) -> str:
    """Text as part of a file name: lower-case letters, digits and dashes, at most 40."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "x"


def _reach(used: np.ndarray, room: int) -> slice:
    places = np.flatnonzero(used)
    return slice(max(int(places[0]) - room, 0), int(places[-1]) + 1 + room)


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return red, green, blue


def _last(value: float | None) -> float:
    """A value to sort by, undefined last (drawn on top)."""
    return math.inf if value is None or math.isnan(value) else value
