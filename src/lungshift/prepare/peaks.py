"""Where a scan has the middle of its lung and of its soft tissue, in its own numbers, which need not be HU."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

_FEWEST = 50


@dataclass(frozen=True)
class Peaks:
    """Where a scan has the middle of its lung and of its soft tissue; NaN where it shows too little of either."""

    lung: float
    tissue: float

    def contrast(self, hu: np.ndarray) -> Float32[np.ndarray, "*shape"]:
        """The same picture on a scale where lung is 0 and soft tissue 1, whatever the scanner's scale."""
        return np.asarray((hu - np.float32(self.lung)) / np.float32(self.tissue - self.lung), dtype=np.float32)


def find_peaks(slices: Iterable[tuple[np.ndarray, Bool[np.ndarray, "row column"]]]) -> Peaks:
    """Lung and soft tissue, each the middle of the narrowest range that holds half of its pixels.

    Soft tissue is looked for between the lungs, where heart and vessels are; lung well inside its mask.

    Args:
        slices: A few slices of a scan with their lung masks.
    """
    lung, tissue = [np.zeros(0)], [np.zeros(0)]
    for hu, mask in slices:
        lung.append(hu[ndimage.binary_erosion(mask)])
        tissue.append(hu[between(mask)])
    return Peaks(_middle(np.concatenate(lung)), _middle(np.concatenate(tissue)))


def between(lung: Bool[np.ndarray, "row column"]) -> Bool[np.ndarray, "row column"]:
    """What lies between the outer borders of the lungs in each row of pixels, and not near them: the mediastinum."""
    from_left = np.maximum.accumulate(lung, axis=1)
    from_right = np.maximum.accumulate(lung[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(from_left & from_right & ~ndimage.binary_dilation(lung, iterations=2))


def _middle(values: np.ndarray) -> float:
    """The middle of the narrowest range that holds half of the values."""
    ordered, half = np.sort(values), len(values) // 2
    if half < _FEWEST:
        return float("nan")
    first = int(np.argmin(ordered[half:] - ordered[: len(ordered) - half]))
    return float(ordered[first] + ordered[first + half]) / 2
