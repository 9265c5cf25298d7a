"""From the axes of a file to the one orientation used inside: slices foot to head, rows front to back, columns right to left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool

from lungshift.ct.geometry import Geometry
from lungshift.ct.packed import AnyMask
from lungshift.ct.volume import Mask
from lungshift.errors import GeometryError
from lungshift.io.header import Header

ON_REQUEST = 'lungshift predict (--resample) and Python (oblique="resample") do it on request'
"""Who brings an oblique scan to the patient's axes, for messages that refuse one."""
Oblique = Literal["refuse", "resample"]
_OFF_AXIS = 1e-3
_RESAMPLED = "the scan is oblique or sheared, and was resampled to the patient's axes (linear)"
_WORLD_OF_AXIS = (2, 1, 0)
"""Slice, row and column run along the world axes S, P and L."""


@dataclass(frozen=True, eq=False)
class Layout:
    """How a file's voxels lie in the patient.

    Stored arrays have shape (k, j, i), as i changes fastest in the file.

    Attributes:
        axes: The file axis (0 is i) that is the slice, the row, the column.
        flipped: Whether the file runs along it backwards.
        geometry: The canonical grid; with ``resample``, the patient-aligned grid to resample to.
        resample: The file's own grid is turned or sheared.
    """

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    geometry: Geometry
    resample: bool = False

    @property
    def streams(self) -> bool:
        """Whether the file holds one slice after another."""
        return self.axes[0] == 2 and not self.resample

    @property
    def notes(self) -> tuple[str, ...]:
        """That it is resampled, in words."""
        return (_RESAMPLED,) if self.resample else ()

    def turn(self, stored: np.ndarray) -> np.ndarray:
        """The canonical view of a stored (k, j, i) array; nothing is copied."""
        return stored.transpose([2 - axis for axis in self.axes])[_steps(self.flipped)]

    def turn_back(self, canonical: np.ndarray) -> np.ndarray:
        """The stored (k, j, i) view of a canonical array: ``turn`` undone."""
        return canonical[_steps(self.flipped)].transpose(np.argsort([2 - axis for axis in self.axes]))

    def turn_plane(self, stored: np.ndarray) -> np.ndarray:
        """The canonical slice of a stored (j, i) plane, contiguous."""
        if self.axes[1] == 1 and self.flipped[1:] == (False, False):
            return stored
        plane = stored.T if self.axes[1] == 0 else stored
        return np.ascontiguousarray(plane[_steps(self.flipped[1:])])

    def turn_plane_back(self, plane: np.ndarray) -> np.ndarray:
        """The stored (j, i) view of a canonical slice: ``turn_plane`` undone."""
        plane = plane[_steps(self.flipped[1:])]
        return plane.T if self.axes[1] == 0 else plane


def layout_of(header: Header, oblique: Oblique = "refuse", max_voxels: int = 2**30) -> Layout:
    """How the file lies in the patient.

    Raises:
        GeometryError: ``E_OBLIQUE`` or ``E_SHEARED`` unless ``oblique="resample"``; ``E_AFFINE`` for impossible voxel sizes;
            ``E_TOO_LARGE`` if the grid to resample to has more than ``max_voxels``.
    """
    cosines = header.affine[:3, :3] / np.linalg.norm(header.affine[:3, :3], axis=0)
    try:
        if (reason := _why_not_aligned(cosines)) is None:
            return _aligned_layout(header, cosines)
        if oblique == "resample":
            return Layout((2, 1, 0), (False, False, False), _enclosing_grid(header, max_voxels), resample=True)
    except GeometryError as error:
        raise GeometryError(f"{header.path}: {error}", code=error.code) from None
    code, words = reason
    raise GeometryError(
        f"{header.path} lies {words} to the patient's axes (directions {cosines.round(4).T.tolist()}). "
        f"Resample it first; {ON_REQUEST}.",
        code=code,
    )


def resample(stored: np.ndarray, header: Header, grid: Geometry, *, nearest: bool, background: float) -> np.ndarray:
    """The stored (k, j, i) voxels of an oblique or sheared file on a patient-aligned grid, in their own dtype.

    Linear, or nearest neighbour for masks; ``background`` outside the file's own grid. SimpleITK does the work in memory.
    """
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(stored.astype(np.uint8 if nearest else np.float32))
    to_index = np.linalg.inv(header.affine)
    transform = sitk.AffineTransform(to_index[:3, :3].ravel().tolist(), to_index[:3, 3].tolist())
    reference = sitk.Image([*grid.shape[::-1]], image.GetPixelID())
    reference.SetOrigin(grid.affine[:3, 3].tolist())
    reference.SetSpacing(grid.spacing_mm[::-1])
    method = sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear
    values = sitk.GetArrayFromImage(sitk.Resample(image, reference, transform, method, background))
    if stored.dtype.kind in "iu":
        values = np.rint(values)
    return np.asarray(values.astype(stored.dtype))


def resample_back(mask: AnyMask, header: Header) -> Iterator[Bool[np.ndarray, "row column"]]:
    """The stored (j, i) planes of an oblique or sheared file, each voxel with the value of the mask's voxel that is nearest to it."""
    whole = mask if isinstance(mask, Mask) else mask.mask()
    column, row, step, first = header.affine[:3].T
    for number in range(header.shape[2]):
        yield nearest_plane(whole, first + number * step, row, column, header.shape[1::-1])


def nearest_plane(
    mask: Mask, first_mm: np.ndarray, row_mm: np.ndarray, column_mm: np.ndarray, shape: tuple[int, int]
) -> Bool[np.ndarray, "row column"]:
    """A mask at the points of a plane that lies anyhow, each with the value of the nearest voxel; False outside of the mask's grid.

    Args:
        mask: What is looked up.
        first_mm: LPS of the plane's first point.
        row_mm: From a row to the next.
        column_mm: From a column to the next.
        shape: Rows and columns of the plane.
    """
    to_index = np.linalg.inv(mask.geometry.affine)
    first, row, column = (
        to_index[:3, :3] @ first_mm + to_index[:3, 3],
        to_index[:3, :3] @ row_mm,
        to_index[:3, :3] @ column_mm,
    )
    rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])
    places = [np.rint(first[axis] + rows * row[axis] + columns * column[axis]).astype(int) for axis in range(3)]
    inside = np.logical_and.reduce([(p >= 0) & (p < n) for p, n in zip(places, mask.geometry.shape, strict=True)])
    plane = np.zeros(shape, np.bool_)
    plane[inside] = mask.voxels[tuple(place[inside] for place in places)]
    return plane


def _steps(flipped: tuple[bool, ...]) -> tuple[slice, ...]:
    return tuple(slice(None, None, -1 if flip else 1) for flip in flipped)


def _why_not_aligned(cosines: np.ndarray) -> tuple[str, str] | None:
    gram = cosines.T @ cosines
    if np.abs(gram - np.diag(np.diag(gram))).max() > _OFF_AXIS:
        return "E_SHEARED", "sheared"
    if (np.sort(np.abs(cosines), axis=0)[:2] > _OFF_AXIS).any():
        return "E_OBLIQUE", "obliquely"
    return None


def _aligned_layout(header: Header, cosines: np.ndarray) -> Layout:
    world = np.abs(cosines).argmax(axis=0).tolist()
    axes = tuple(world.index(axis) for axis in _WORLD_OF_AXIS)
    flipped = tuple(bool(cosines[axis, file] < 0) for axis, file in zip(_WORLD_OF_AXIS, axes, strict=True))
    affine = np.eye(4)
    affine[:3, 3] = header.affine[:3, 3]
    for axis, (file, flip) in enumerate(zip(axes, flipped, strict=True)):
        step = header.affine[:3, file]
        affine[:3, axis] = -step if flip else step
        affine[:3, 3] += step * (header.shape[file] - 1) * flip
    shape = tuple(header.shape[file] for file in axes)
    return Layout(axes, flipped, Geometry(shape, affine))  # type: ignore[arg-type]


def _enclosing_grid(header: Header, max_voxels: int) -> Geometry:
    """The patient-aligned grid around all voxel centres, with about the file's own spacing along each axis."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in header.shape], [1])).reshape(4, -1)
    world = (header.affine @ corners)[:3]
    low, high = world.min(axis=1), world.max(axis=1)
    lengths = np.linalg.norm(header.affine[:3, :3], axis=0)
    nearest = _one_to_one(np.abs(header.affine[:3, :3] / lengths))
    spacing = lengths[nearest]
    counts = np.ceil((high - low) / spacing - 1e-6) + 1
    if not counts.prod() <= max_voxels:
        raise GeometryError(
            f"on the patient's axes it would have {counts.prod():.3g} voxels, more than the limit of {max_voxels}; "
            "the affine is damaged, or resample it to larger voxels first.",
            code="E_TOO_LARGE",
        )
    return Geometry.regular(
        (int(counts[2]), int(counts[1]), int(counts[0])),
        (float(spacing[2]), float(spacing[1]), float(spacing[0])),
        (float(low[0]), float(low[1]), float(low[2])),
    )


def _one_to_one(cosines: np.ndarray) -> list[int]:
    """For each world axis the file axis that is closest to it, each used once."""
    from itertools import permutations

    return list(max(permutations(range(3)), key=lambda order: sum(cosines[w, f] for w, f in enumerate(order))))
