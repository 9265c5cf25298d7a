"""All figures of an outcome as PNG and SVG bytes; training curves and example slices are drawn here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Bool, Float32

from lungshift.learn.history import EpochRecord, History
from lungshift.show.causes import draw_causes
from lungshift.show.curves import draw_curves
from lungshift.show.drawing import AFTER, INK, MUTED, WARNING, Drawing, finish, new_figure, rgb, slug, style
from lungshift.show.dumbbells import draw_patients
from lungshift.show.matrix import draw_matrices, matrices_of
from lungshift.show.tables import Row, number
from lungshift.show.words import LEAK_WARNING, RESEARCH_ONLY
from lungshift.transfer.outcome import Example, Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BOTH, PREDICTION_ONLY, REFERENCE_ONLY = "#009E73", "#8560FF", "#FFD92F"
"""Overlap in colours that red-green blind people can tell apart; a test simulates their eyes."""

REFERENCE, PREDICTION, LUNG = "#56B4E9", "#D97B00", "#22D3EE"

_WINDOW_HU: Final = (-1350.0, 150.0)
_PANELS: Final = ("CT, lung window", "lung outline", "reference", "prediction", "overlap")
_ORIENTATION: Final = "Front of the chest up, the patient's right on the left."
_WARNING_STYLE: Final[dict[str, Any]] = {"color": WARNING, "fontsize": 7.5, "fontweight": "bold"}
_OF_A_SEED: Final = re.compile(r"[\s,_-]*seed[\s_]*\d+.*$")


def draw_all(outcome: Outcome, table: Sequence[Row]) -> list[Drawing]:
    """Every figure of an outcome; none for what was not done.

    Args:
        outcome: What a study found.
        table: Its rows, from ``build_table``.
    """
    with style():
        return [
            *draw_matrices(outcome, matrices_of(outcome, table)),
            *draw_curves(outcome, table),
            *draw_patients(outcome),
            *draw_causes(outcome),
            *(_example(index, example, outcome.leaky) for index, example in enumerate(outcome.examples, 1)),
            *(_training(index, *group) for index, group in enumerate(group_histories(outcome.histories).items(), 1)),
        ]


def group_histories(histories: Sequence[History]) -> dict[str, list[History]]:
    """Trainings of one name over seeds and folds, together; those without an epoch are left out."""
    groups: dict[str, list[History]] = {}
    for history in histories:
        if history.epochs:
            groups.setdefault(_OF_A_SEED.sub("", history.name) or history.name, []).append(history)
    return groups


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
        picture[where] = (*rgb(colour), opacity)
    return picture


def crop(example: Example, margin: float = 0.08) -> tuple[slice, slice]:
    """Rows and columns around lung, reference and prediction; the whole slice if all are empty."""
    where = example.lung | example.reference | example.prediction
    if not where.any():
        return slice(None), slice(None)
    room = round(margin * max(where.shape))
    return _reach(where.any(axis=1), room), _reach(where.any(axis=0), room)


def _training(index: int, name: str, histories: Sequence[History]) -> Drawing:
    scored = any(not math.isnan(epoch.score) for history in histories for epoch in history.epochs)
    figure = new_figure(4.8, 4.0 if scored else 2.6)
    axes = figure.subplots(2 if scored else 1, 1, sharex=True, squeeze=False)[:, 0]
    title = name.replace("_", " ")
    axes[0].set_title(title, loc="left", fontweight="bold")
    for history in histories:
        _curve(axes[0], history, "training", lambda epoch: epoch.loss, AFTER, "-")
        _curve(axes[0], history, "validation", lambda epoch: epoch.validation_loss, PREDICTION, "--")
        if scored:
            _curve(axes[1], history, "validation", lambda epoch: epoch.score, PREDICTION, "--")
    axes[0].set_ylabel("loss")
    axes[-1].set(xlabel="epoch (dots: the weights that were kept)", **_score_axis(scored))
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    handles = {line.get_label(): line for line in axes[0].lines if not str(line.get_label()).startswith("_")}
    axes[0].legend(handles.values(), handles.keys(), loc="upper right", frameon=True, edgecolor="none", framealpha=0.85)
    caption = f"{title}: {_kept(histories)}."
    return finish(figure, f"training-{index:02d}-{slug(name)}", "training", caption, f"Training curves. {caption}")


def _score_axis(scored: bool) -> dict[str, Any]:
    return {"ylabel": "validation score", "ylim": (-0.02, 1.02)} if scored else {}


def _kept(histories: Sequence[History]) -> str:
    epochs, best = [len(h.epochs) for h in histories], [h.best_epoch for h in histories]
    many = f"{len(histories)} trainings (seeds and folds), " if len(histories) > 1 else ""
    return f"{many}{_range(epochs)} epochs, weights of epoch {_range(best)} kept"


def _range(values: Sequence[int]) -> str:
    return str(min(values)) if min(values) == max(values) else f"{min(values)} to {max(values)}"


def _curve(
    axis: Axes, history: History, label: str, value: Callable[[EpochRecord], float], colour: str, line: str
) -> None:
    epochs, values = [epoch.epoch for epoch in history.epochs], [value(epoch) for epoch in history.epochs]
    if all(math.isnan(number) for number in values):
        return
    axis.plot(epochs, values, line, color=colour, label=label, linewidth=1.3, alpha=0.8)
    best = [value for epoch, value in zip(epochs, values, strict=True) if epoch == history.best_epoch]
    axis.plot([history.best_epoch] * len(best), best, "o", color=colour, markersize=4)


def _example(index: int, example: Example, leaky: bool) -> Drawing:
    rows, columns = crop(example)
    hu, lung, reference, prediction = (
        array[rows, columns] for array in (example.hu, example.lung, example.reference, example.prediction)
    )
    figure = new_figure(11.0, 0.85 + 2.15 * min(hu.shape[0] / hu.shape[1], 1.5))
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
    return finish(
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
    picture[mask] = (*rgb(colour), 0.6)
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


def _reach(used: np.ndarray, room: int) -> slice:
    places = np.flatnonzero(used)
    return slice(max(int(places[0]) - room, 0), int(places[-1]) + 1 + room)
