"""How validation slices are judged, and how they choose the rule that turns probabilities into masks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32, Int64

from lungshift.learn.checkpoint import Decision
from lungshift.measure.conventions import average
from lungshift.measure.overlap import count_slices

_THRESHOLDS = tuple(np.arange(0.05, 0.91, 0.05).round(2).tolist())
_MIN_PIXELS = (0, 5, 10, 20, 40, 80, 120, 160, 240, 320)


def mean_dice(counts: Int64[np.ndarray, "slice 4"]) -> float:
    """The mean of the two per-slice conventions' Dice that the source paper's table allows; undefined ones left out.

    ``lesion_slices`` alone would reward painting, ``empty_is_one`` alone would reward silence.
    """
    every_slice = [str(n) for n in range(len(counts))]
    values = [
        average(counts, every_slice, convention)["dice"].value for convention in ("lesion_slices", "empty_is_one")
    ]
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def validation_score(
    batches: Iterable[tuple[Float32[np.ndarray, "n row column"], Bool[np.ndarray, "n row column"]]],
) -> float:
    """``mean_dice`` of probabilities at 0.5 against references, batch after batch."""
    return mean_dice(
        np.concatenate([count_slices(reference, probability >= 0.5) for probability, reference in batches])
    )


def choose_decision(
    batches: Iterable[tuple[Float32[np.ndarray, "n row column"], Bool[np.ndarray, "n row column"]]],
    plain: Decision,
) -> Decision:
    """``plain`` with the threshold and smallest area of the best ``mean_dice`` on validation slices; on a tie, the nearest to 0.5 and 0."""
    tables: dict[float, list[np.ndarray]] = {threshold: [] for threshold in _THRESHOLDS}
    for probability, reference in batches:
        for threshold, counts in tables.items():
            counts.append(count_slices(reference, probability >= threshold))
    scores = {
        (threshold, pixels): mean_dice(silence_small(np.concatenate(counts), pixels))
        for threshold, counts in tables.items()
        for pixels in _MIN_PIXELS
    }
    threshold, pixels = max(scores, key=lambda rule: (round(scores[rule], 6), -abs(rule[0] - 0.5), -rule[1]))
    return replace(plain, threshold=threshold, min_pixels=pixels)


def silence_small(counts: Int64[np.ndarray, "slice 4"], pixels: int) -> Int64[np.ndarray, "slice 4"]:
    """The counts as they would be if slices with fewer predicted pixels than ``pixels`` had none."""
    tp, fp, fn, tn = counts.T
    small = tp + fp < pixels
    silent = np.stack([0 * tp, 0 * fp, fn + tp, tn + fp], axis=1)
    return np.where(small[:, None], silent, counts)
