"""Between a scan's own slices and the square pictures that a network sees."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Shaped

Interpolation = Literal["nearest", "linear"]
"""How CT values are resized. ``nearest`` is the source paper's; ``linear`` averages where it shrinks. Masks: nearest."""

AIR_HU = -1024


@dataclass(frozen=True)
class SliceGrid:
    """The square picture of ``size`` x ``size`` pixels that stands for a slice of ``rows`` x ``columns``.

    A slice that is not square is first set in the middle of a square of air, so nothing is stretched.
    """

    rows: int
    columns: int
    size: int

    @cached_property
    def _side(self) -> int:
        return max(self.rows, self.columns)

    @cached_property
    def _offsets(self) -> tuple[int, int]:
        return (self._side - self.rows) // 2, (self._side - self.columns) // 2

    @property
    def is_identity(self) -> bool:
        """Whether picture and slice are the same pixels."""
        return self.rows == self.columns == self.size

    def image(self, hu: Shaped[np.ndarray, "row column"], interpolation: Interpolation) -> np.ndarray:
        """The picture of a slice in HU: its own type for ``nearest``, float32 for ``linear``."""
        if self.is_identity:
            return hu
        if interpolation == "nearest":
            return self._nearest(hu, AIR_HU)
        return _resize_linear(self._square(hu.astype(np.float32), AIR_HU), self.size)

    def mask(self, mask: Bool[np.ndarray, "row column"]) -> Bool[np.ndarray, "size size"]:
        """The picture of a mask: each pixel takes the nearest of the slice, as in the source paper."""
        return mask if self.is_identity else self._nearest(mask, False)

    def back(self, probability: Float32[np.ndarray, "size size"]) -> Float32[np.ndarray, "row column"]:
        """A probability on the slice's own pixels, by linear interpolation."""
        if self.is_identity:
            return probability
        top, left = self._offsets
        return _resize_linear(probability, self._side)[top : top + self.rows, left : left + self.columns]

    def _square(self, array: np.ndarray, fill: float) -> np.ndarray:
        if self.rows == self.columns:
            return array
        square = np.full((self._side, self._side), fill, dtype=array.dtype)
        top, left = self._offsets
        square[top : top + self.rows, left : left + self.columns] = array
        return square

    @cached_property
    def _index(self) -> np.ndarray:
        return ((np.arange(self.size) + 0.5) * (self._side / self.size)).astype(np.intp)

    def _nearest(self, array: np.ndarray, fill: float) -> np.ndarray:
        return self._square(array, fill).take(self._index, axis=0).take(self._index, axis=1)


def _resize_linear(array: Float32[np.ndarray, "side side"], size: int) -> Float32[np.ndarray, "size size"]:
    """Pillow's bilinear filter, which widens its support when it shrinks and so does not alias."""
    from PIL import Image

    return np.asarray(Image.fromarray(array).resize((size, size), Image.Resampling.BILINEAR))
