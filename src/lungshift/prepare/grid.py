"""Between a scan's own slices and the square pictures that a network sees."""

from __future__ import annotations

import math
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

    def back_reaching(
        self, probability: Float32[np.ndarray, "size size"], threshold: float
    ) -> Bool[np.ndarray, "row column"]:
        """Where ``back(probability)`` reaches a threshold.

        What is interpolated reaches it only near a pixel that does, so the rest, as a rule most of the slice, is left alone.
        """
        reaching = probability >= threshold
        if self.is_identity or not reaching.any():
            return reaching if self.is_identity else np.zeros((self.rows, self.columns), dtype=bool)
        scale = self.size / self._side
        (r0, r1, rows), (c0, c1, columns) = (
            self._enlarged(np.asarray(reaching.any(axis=axis)), scale) for axis in (1, 0)
        )
        part = probability[slice(*rows), slice(*columns)]
        box = (c0 * scale - columns[0], r0 * scale - rows[0], c1 * scale - columns[0], r1 * scale - rows[0])
        square = np.zeros((self._side, self._side), dtype=bool)
        square[r0:r1, c0:c1] = _resize_part(part, (r1 - r0, c1 - c0), box) >= threshold
        top, left = self._offsets
        return square[top : top + self.rows, left : left + self.columns]

    def _enlarged(self, line: Bool[np.ndarray, " size"], scale: float) -> tuple[int, int, tuple[int, int]]:
        """Of pixels of the picture that are meant: those of the slice that they reach, and those of the picture that these want."""
        reach = max(scale, 1.0)
        first, last = np.flatnonzero(line)[[0, -1]]
        low = max(0, math.floor((first + 0.5 - reach) / scale - 0.5))
        high = min(self._side, math.ceil((last + 0.5 + reach) / scale + 0.5))
        margin = math.ceil(reach) + 1
        wanted = max(0, math.floor(low * scale) - margin), min(self.size, math.ceil(high * scale) + margin)
        return low, high, wanted

    def own_pixel(self, row: int, column: int) -> tuple[int, int]:
        """The slice's own pixel under the middle of a picture's pixel, the nearest one where the picture reaches beyond the slice."""
        top, left = self._offsets
        scale = self._side / self.size
        own = int((row + 0.5) * scale) - top, int((column + 0.5) * scale) - left
        return min(max(own[0], 0), self.rows - 1), min(max(own[1], 0), self.columns - 1)

    def pixel(self, row: int, column: int) -> tuple[int, int]:
        """The picture's pixel that has the middle of one of the slice's own."""
        top, left = self._offsets
        scale = self.size / self._side
        return int((row + top + 0.5) * scale), int((column + left + 0.5) * scale)

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


def _resize_part(
    array: Float32[np.ndarray, "r c"], shape: tuple[int, int], box: tuple[float, float, float, float]
) -> Float32[np.ndarray, "row column"]:
    """A part of what ``_resize_linear`` makes: of the pixels in the box (left, top, right, bottom)."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(array))
    return np.asarray(image.resize(shape[::-1], Image.Resampling.BILINEAR, box=box))


def _resize_linear(array: Float32[np.ndarray, "side side"], size: int) -> Float32[np.ndarray, "size size"]:
    """Pillow's bilinear filter, which widens its support when it shrinks and so does not alias."""
    from PIL import Image

    return np.asarray(Image.fromarray(array).resize((size, size), Image.Resampling.BILINEAR))
