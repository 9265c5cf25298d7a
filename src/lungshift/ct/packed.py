"""A mask slice by slice in a kilobyte or two each, for scans that need not be in memory whole."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int64

from lungshift.ct.case import CaseSlice
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask
from lungshift.errors import GeometryError


@dataclass(frozen=True, eq=False)
class PackedMask:
    """A mask on the grid of its scan, packed.

    Attributes:
        geometry: The scan's grid.
        packed: Each slice by its number, as ``pack`` makes it.

    Raises:
        GeometryError: Slices are missing.
    """

    geometry: Geometry
    packed: Mapping[int, bytes]

    def __post_init__(self) -> None:
        count = self.geometry.shape[0]
        if sorted(self.packed) != list(range(count)):
            raise GeometryError(f"The scan has {count} slices and {len(self.packed)} came; give all of them.")

    @classmethod
    def of(cls, mask: Mask) -> PackedMask:
        """A mask that is in memory, packed."""
        return cls(mask.geometry, {index: pack(plane) for index, plane in enumerate(mask.voxels)})

    def slice(self, index: int) -> Bool[np.ndarray, "row column"]:
        """One slice."""
        return unpack(self.packed[index], self.geometry.shape[1:])

    def mask(self) -> Mask:
        """The whole mask, in memory."""
        return Mask(np.stack([self.slice(index) for index in range(self.geometry.shape[0])]), self.geometry)

    def lay(self, slices: Iterable[CaseSlice]) -> Iterator[CaseSlice]:
        """The slices of a scan with this as their lung mask."""
        return (replace(piece, lung=self.slice(piece.index)) for piece in slices)

    @property
    def areas(self) -> Int64[np.ndarray, " slice"]:
        """How many pixels of each slice are marked."""
        return self._counted[0]

    def shadow(self, axis: int) -> Bool[np.ndarray, " along"]:
        """Which slices (axis 0), rows (1) or columns (2) have anything marked."""
        return self._counted[0] > 0 if axis == 0 else self._counted[axis]

    @property
    def volume_ml(self) -> float:
        """Volume of the structure in millilitres."""
        return int(self.areas.sum()) * self.geometry.voxel_ml

    @cached_property
    def _counted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        slices, rows, columns = self.geometry.shape
        areas, in_rows, in_columns = np.zeros(slices, np.int64), np.zeros(rows, bool), np.zeros(columns, bool)
        for index in range(slices):
            plane = self.slice(index)
            areas[index] = np.count_nonzero(plane)
            in_rows |= plane.any(axis=1)
            in_columns |= plane.any(axis=0)
        return areas, in_rows, in_columns


AnyMask = Mask | PackedMask
"""A mask, in memory whole or packed: both have ``geometry``, ``slice``, ``areas``, ``shadow`` and ``volume_ml``."""


def pack(mask: Bool[np.ndarray, "row column"]) -> bytes:
    """Eight pixels in a byte, compressed."""
    return zlib.compress(np.packbits(mask).tobytes(), 1)


def unpack(packed: bytes, shape: tuple[int, ...]) -> Bool[np.ndarray, "row column"]:
    """The mask that was packed."""
    bits = np.frombuffer(zlib.decompress(packed), dtype=np.uint8)
    return np.unpackbits(bits, count=shape[0] * shape[1]).view(bool).reshape(shape)
