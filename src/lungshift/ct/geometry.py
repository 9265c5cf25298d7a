"""Where voxels are: a grid of (slice, row, column) indices and its place in the patient, in LPS millimetres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from lungshift.errors import GeometryError

_TOLERANCE_MM = 1e-3
_SHEAR = 1e-3
_VOXEL_MM3 = (1e-3, 1e3)
_FARTHEST_MM = 1e6


@dataclass(frozen=True, eq=False)
class Geometry:
    """A regular grid in the patient.

    Inside lungshift every grid is canonical: the slice index runs from foot to head, the row index from front to back, and
    the column index from the patient's right to left. A slice shown as a picture is then the radiologist's view: front
    up, the patient's right on the left.

    Attributes:
        shape: Number of slices, rows, columns.
        affine: 4 x 4, takes (slice, row, column, 1) to (left, posterior, superior, 1) in mm.

    Raises:
        GeometryError: An empty shape, or an affine that is singular, not finite, not canonical or not a scanner's size.
    """

    shape: tuple[int, int, int]
    affine: Float64[np.ndarray, "4 4"]

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        _require_grid(shape, affine)
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def regular(
        cls,
        shape: tuple[int, int, int],
        spacing_mm: tuple[float, float, float],
        origin_mm: tuple[float, float, float] = (0, 0, 0),
    ) -> Geometry:
        """The grid whose axes are the patient's own; ``spacing_mm`` is by (slice, row, column), ``origin_mm`` is LPS."""
        affine = np.eye(4)
        affine[:3, :3] = [[0, 0, spacing_mm[2]], [0, spacing_mm[1], 0], [spacing_mm[0], 0, 0]]
        affine[:3, 3] = origin_mm
        return cls(shape, affine)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbours along slice, row and column, in mm."""
        slice_mm, row_mm, column_mm = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(slice_mm), float(row_mm), float(column_mm)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    def world_mm(self, indices: np.ndarray) -> Float64[np.ndarray, "*n 3"]:
        """LPS millimetres of (…, 3) voxel indices (slice, row, column); whole indices are voxel centres."""
        return np.asarray(indices, dtype=np.float64) @ self.affine[:3, :3].T + self.affine[:3, 3]

    def difference(self, other: Geometry) -> str | None:
        """In words, what keeps two grids from being one; None if they are one within 0.001 mm at every corner."""
        if self.shape != other.shape:
            return f"shape {self.shape} against {other.shape} (slices, rows, columns)"
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape])).reshape(3, -1).T
        off_mm = float(np.abs(self.world_mm(corners) - other.world_mm(corners)).max())
        if off_mm > _TOLERANCE_MM:
            return f"the same shape, but corners up to {off_mm:.3g} mm apart"
        return None

    def require_same(self, other: Geometry, what: str = "The two grids") -> None:
        """Refuse two grids that are not one.

        Raises:
            GeometryError: Another shape, or corners more than 0.001 mm apart.
        """
        if difference := self.difference(other):
            raise GeometryError(
                f"{what} do not fit: {difference}. Masks must lie on their scan's own grid; resample them first if they should."
            )


def _require_grid(shape: tuple[int, ...], affine: np.ndarray) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise GeometryError(f"A scan has slices, rows and columns, at least one of each; got shape {shape}.")
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.allclose(affine[3], (0, 0, 0, 1)):
        raise GeometryError(
            f"An affine is 4 x 4, finite, with last row 0 0 0 1; got {affine.tolist()}.", code="E_AFFINE"
        )
    voxel_mm3 = abs(np.linalg.det(affine[:3, :3]))
    if not _VOXEL_MM3[0] <= voxel_mm3 <= _VOXEL_MM3[1]:
        raise GeometryError(
            f"A voxel of {voxel_mm3:.3g} mm³ is no CT voxel (0.001 to 1000 mm³): is the affine singular, or in metres or micrometres?",
            code="E_AFFINE",
        )
    corners = affine[:3, 3], affine[:3] @ (*(n - 1 for n in shape), 1)
    if np.abs(corners).max() > _FARTHEST_MM:
        raise GeometryError(
            f"The grid lies {np.abs(corners).max() / 1e6:.3g} km from the scanner's origin, where millimetres are lost in rounding; "
            "the position in the file is damaged.",
            code="E_AFFINE",
        )
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if not np.allclose(axes.T @ axes, np.eye(3), atol=_SHEAR):
        raise GeometryError(
            "The axes of the grid are not at right angles; resample a sheared scan first.", code="E_SHEARED"
        )
    if not (axes[2, 0] > 0.5 and axes[1, 1] > 0.5 and axes[0, 2] > 0.5):
        raise GeometryError(
            "The grid is not canonical (slices foot to head, rows front to back, columns right to left); "
            "read scans through lungshift.io, which turns them.",
            code="E_AFFINE",
        )
