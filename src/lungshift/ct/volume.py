"""The two kinds of voxels: Hounsfield units, and yes or no."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int16, Int64

from lungshift.ct.geometry import Geometry
from lungshift.errors import AnnotationError, GeometryError, IntensityError


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT scan in Hounsfield units on its grid.

    Raises:
        GeometryError: The array has another shape than the grid.
        IntensityError: Not int16 or float32, not finite, or one value everywhere.
    """

    hu: Int16[np.ndarray, "slice row column"] | Float32[np.ndarray, "slice row column"]
    geometry: Geometry

    def __post_init__(self) -> None:
        _require_shape(self.hu, self.geometry)
        if self.hu.dtype not in (np.int16, np.float32):
            raise IntensityError(
                f"A volume holds int16 or float32 HU; got {self.hu.dtype}. Convert it first.", code="E_DTYPE"
            )
        low, high = self.hu.min(), self.hu.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            raise IntensityError(
                "The volume has voxels that are NaN or infinite; decide what they are before reading it.", code="E_NAN"
            )
        if low == high:
            raise IntensityError(f"Every voxel of the volume is {low}: there is no picture in it.", code="E_CONSTANT")


@dataclass(frozen=True, eq=False)
class Mask:
    """Voxels that belong to a structure (lung or lesion), on the grid of their scan.

    Raises:
        GeometryError: The array has another shape than the grid.
        AnnotationError: The array is not bool.
    """

    voxels: Bool[np.ndarray, "slice row column"]
    geometry: Geometry

    def __post_init__(self) -> None:
        _require_shape(self.voxels, self.geometry)
        if self.voxels.dtype != np.bool_:
            raise AnnotationError(f"A mask is bool; got {self.voxels.dtype}. Say which labels belong to it.")

    @property
    def volume_ml(self) -> float:
        """Volume of the structure in millilitres."""
        return int(np.count_nonzero(self.voxels)) * self.geometry.voxel_ml

    def slice(self, index: int) -> Bool[np.ndarray, "row column"]:
        """One slice."""
        return self.voxels[index]

    @property
    def areas(self) -> Int64[np.ndarray, " slice"]:
        """How many pixels of each slice are marked."""
        return np.asarray(np.count_nonzero(self.voxels, axis=(1, 2)))

    def shadow(self, axis: int) -> Bool[np.ndarray, " along"]:
        """Which slices (axis 0), rows (1) or columns (2) have anything marked."""
        return np.asarray(self.voxels.any(axis=tuple({0, 1, 2} - {axis})))


def _require_shape(array: np.ndarray, geometry: Geometry) -> None:
    if array.shape != geometry.shape:
        raise GeometryError(
            f"An array of shape {array.shape} is not on a grid of {geometry.shape} (slices, rows, columns)."
        )
