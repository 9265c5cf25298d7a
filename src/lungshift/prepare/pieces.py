"""Pieces of a mask in space, put together while its slices pass: connected as ``scipy.ndimage.label`` has it, by shared faces."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int64, Shaped
from scipy import ndimage


class Pieces:
    """Pieces of each slice, joined with those of the slice before that they touch; no more than two slices are held."""

    def __init__(self) -> None:
        self._joined: list[int] = []
        self._voxels: list[int] = []
        self._places: dict[int, slice] = {}
        self._last: tuple[int, np.ndarray] | None = None

    def add(self, index: int, mask: Bool[np.ndarray, "row column"]) -> None:
        """Add a slice; they come in order, from either end."""
        labels, count = ndimage.label(mask)
        first = len(self._joined)
        self._places[index] = slice(first, first + count)
        self._joined += range(first, first + count)
        self._voxels += np.bincount(labels.ravel(), minlength=count + 1)[1:].tolist()
        if self._last and abs(self._last[0] - index) == 1:
            before = self._places[self._last[0]].start
            for one, other in _touching(labels, self._last[1]):
                self._joined[self._root(first + one - 1)] = self._root(before + other - 1)
        self._last = index, labels

    def sizes(self) -> Int64[np.ndarray, " piece"]:
        """For each piece of each slice, how many voxels the piece in space has that it belongs to."""
        return self.whole()[self.roots()]

    def roots(self) -> Int64[np.ndarray, " piece"]:
        """For each piece of each slice, the number of the piece in space that it belongs to."""
        return np.array([self._root(number) for number in range(len(self._joined))], dtype=np.int64)

    def whole(self) -> Int64[np.ndarray, " number"]:
        """Voxels of each piece in space, by number; 0 where a number is none's."""
        voxels = np.zeros(len(self._joined), np.int64)
        np.add.at(voxels, self.roots(), self._voxels)
        return voxels

    def slices(self) -> Iterator[tuple[int, slice]]:
        """Each slice's number, and where its pieces stand among all."""
        yield from self._places.items()

    def spread(
        self, index: int, values: Shaped[np.ndarray, " piece"], mask: Bool[np.ndarray, "row column"]
    ) -> Shaped[np.ndarray, "row column"]:
        """A value of each piece on its pixels of a slice that was added before; 0 elsewhere."""
        labels, _ = ndimage.label(mask)
        return np.concatenate([np.zeros(1, values.dtype), values[self._places[index]]])[labels]

    def _root(self, number: int) -> int:
        while self._joined[number] != number:
            self._joined[number] = self._joined[self._joined[number]]
            number = self._joined[number]
        return number


def _touching(labels: np.ndarray, others: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of pieces of two slices that share a pixel."""
    step = int(others.max()) + 1
    pairs = np.where((labels > 0) & (others > 0), labels.astype(np.int64) * step + others, 0).ravel()
    starts = pairs[np.flatnonzero(np.diff(pairs, prepend=0))]  # a run of one pair is looked at once
    return [divmod(int(pair), step) for pair in np.unique(starts[starts > 0])]
