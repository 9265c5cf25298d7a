"""What differs between source and target in their labels: how large the lesions are, and how their borders are drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64
from scipy import ndimage

LEAST_WEIGHTED = 20
"""With fewer slices (or cases) with lesion, a mix of sizes cannot be weighted."""

_MOST_BINS = 8
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
    pairs: Iterable[tuple[Bool[np.ndarray, "row column"], Bool[np.ndarray, "row column"], float]],
) -> Borders:
    """Measure the borders of references (first) against those of predictions (second) on slices with pixels of so many mm."""
    found = [_distances(reference, prediction) * pixel_mm for reference, prediction, pixel_mm in pairs]
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
class Style:
    """How lesions are drawn here, beyond how they are drawn at home.

    Attributes:
        wider_mm: How much wider; below 0 narrower.
        tolerance_mm: How much less exactly either way, where they are drawn neither wider nor narrower.
    """

    wider_mm: float = 0.0
    tolerance_mm: float = 0.0

    @classmethod
    def between(cls, home: Borders, here: Borders, least_mm: float) -> Style:
        """What differs by at least ``least_mm``; borders that are not known do not differ."""
        wider, apart = here.outside_mm - home.outside_mm, here.apart_mm - home.apart_mm
        if abs(wider) >= least_mm:
            return cls(wider_mm=wider)
        return cls(tolerance_mm=apart) if apart >= least_mm else cls()

    @property
    def words(self) -> str:
        """The difference in words."""
        if self.wider_mm:
            return f"drawn {abs(self.wider_mm):.1f} mm {'wider' if self.wider_mm > 0 else 'narrower'} here"
        return f"drawn {self.tolerance_mm:.1f} mm less exactly here" if self.tolerance_mm else "drawn alike"

    def drawn(
        self, reference: Bool[np.ndarray, "row column"], prediction: Bool[np.ndarray, "row column"], pixel_mm: float
    ) -> Bool[np.ndarray, "row column"]:
        """The prediction as it would be drawn here: its border moved, or the reference's where that is near enough."""
        if self.wider_mm and prediction.any():
            return np.asarray(signed_distance(prediction) * pixel_mm <= self.wider_mm)
        if self.tolerance_mm and reference.any():
            near = np.abs(signed_distance(reference)) * pixel_mm <= self.tolerance_mm
            return np.where(near, reference, prediction)
        return prediction


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
    bins = int(np.clip(2 * len(lesion) // LEAST_WEIGHTED, 1, _MOST_BINS))
    edges = np.quantile(lesion, np.arange(1, bins) / bins) if len(lesion) else np.zeros(0)
    at_home, own = (np.where(sizes > 0, 1 + np.searchsorted(edges, sizes), 0) for sizes in (home, here))
    source, target = (np.bincount(numbers, minlength=bins + 1) / len(numbers) for numbers in (at_home, own))
    weights = np.divide(source, target, out=np.zeros_like(source), where=target > 0)
    return weights[own], float(np.abs(source - target).sum() / 2)
