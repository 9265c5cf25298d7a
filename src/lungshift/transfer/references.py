"""What differs between source and target in their labels: how large the lesions are, and how their borders are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from scipy import ndimage

_MOST_BINS, _PER_BIN = 8, 10
_MATCHED_MM = 10.0


@dataclass(frozen=True)
class Borders:
    """How far the borders of references lie from those of predictions, where both show the same lesion.

    Attributes:
        outside_mm: Mean distance by which the reference lies outside the prediction; below 0 inside.
        apart_mm: Mean distance either way.
    """

    outside_mm: float
    apart_mm: float


def borders_of(
    pairs: Sequence[tuple[Bool[np.ndarray, "row column"], Bool[np.ndarray, "row column"]]],
    pixel_mm: Sequence[float] | Float64[np.ndarray, " pair"],
) -> Borders:
    """Measure the borders of references (first) against those of predictions (second), slice by slice."""
    found = [_distances(*pair) * mm for pair, mm in zip(pairs, pixel_mm, strict=True)]
    far = np.concatenate([np.zeros(0), *found])
    near = far[np.abs(far) <= _MATCHED_MM]
    if not len(near):
        return Borders(float("nan"), float("nan"))
    return Borders(float(near.mean()), float(np.abs(near).mean()))


def _distances(reference: np.ndarray, prediction: np.ndarray) -> Float64[np.ndarray, " pixel"]:
    """Signed distances in pixels from the prediction's border to pixels on both sides of the border of lesions it found."""
    labels, _ = ndimage.label(reference)
    seen = np.unique(labels[prediction & reference])
    lesion = np.isin(labels, seen[seen > 0])
    if not lesion.any():
        return np.zeros(0)
    border = (lesion & ~ndimage.binary_erosion(lesion)) | (ndimage.binary_dilation(lesion) & ~reference)
    return np.asarray(signed_distance(prediction)[border])


def signed_distance(mask: Bool[np.ndarray, "row column"]) -> Float64[np.ndarray, "row column"]:
    """Distance of each pixel from the mask's border, in pixels; below 0 inside."""
    outside, inside = (ndimage.distance_transform_edt(side) for side in (~mask, mask))
    return np.where(mask, 0.5 - inside, outside - 0.5)


@dataclass(frozen=True)
class Tolerance:
    """How far from the reference's border a prediction that differs from it still agrees.

    Attributes:
        inside_mm: Reference that was not predicted, within this of the border.
        outside_mm: Prediction beyond the reference, within this of the border.
    """

    inside_mm: float = 0.0
    outside_mm: float = 0.0

    @classmethod
    def between(cls, home: Borders, here: Borders, least_mm: float) -> Tolerance:
        """What is needed here beyond what was at home: to one side if lesions are drawn wider or narrower, else to both."""
        shift, spread = here.outside_mm - home.outside_mm, here.apart_mm - home.apart_mm
        if abs(shift) >= least_mm:
            return cls(max(0.0, shift), max(0.0, -shift))
        return cls(spread, spread) if spread >= least_mm else cls()

    def forgive(
        self, reference: Bool[np.ndarray, "row column"], prediction: Bool[np.ndarray, "row column"], pixel_mm: float
    ) -> Bool[np.ndarray, "row column"]:
        """The prediction as the reference has it where it is near enough to the border."""
        if not reference.any():
            return prediction
        far_mm = signed_distance(reference) * pixel_mm
        near = (far_mm >= -self.inside_mm) & (far_mm <= self.outside_mm)
        return np.asarray(np.where(near, reference, prediction))


def size_weights(
    home: Float64[np.ndarray, " unit"], here: Float64[np.ndarray, " unit"]
) -> tuple[Float64[np.ndarray, " unit"], float]:
    """Weights that give the target's slices (or cases) the source's mix of lesion sizes.

    The standardisation of Kitagawa, Components of a difference between two rates, JASA 50, 1955. Bins are quantiles of the
    target's sizes, so that each holds enough of the target to be weighted; without lesion is a bin of its own.

    Args:
        home: Lesion size of each of the source's.
        here: The same of the target's.

    Returns:
        A weight for each of the target's, and which part of the two mixes differs, from 0 to 1.
    """
    lesion = here[here > 0]
    bins = int(np.clip(len(lesion) // _PER_BIN, 1, _MOST_BINS))
    edges = np.quantile(lesion, np.arange(1, bins) / bins) if len(lesion) else np.zeros(0)
    at_home, own = (np.where(sizes > 0, 1 + np.searchsorted(edges, sizes), 0) for sizes in (home, here))
    source, target = (np.bincount(numbers, minlength=bins + 1) / len(numbers) for numbers in (at_home, own))
    weights = np.divide(source, target, out=np.zeros_like(source), where=target > 0)
    return weights[own], float(np.abs(source - target).sum() / 2)
