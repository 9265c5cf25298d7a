"""A scan made small enough for a page: coarser voxels that follow the patient's own axes, also where the scan's are oblique."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32
from scipy import ndimage

from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.measure.lesions import Lesion

AIR_HU = -1024
_OBLIQUE = 1e-3
_EDGE = 1e-6


def coarse_geometry(geometry: Geometry, voxels: int) -> Geometry:
    """The grid along the patient's axes that covers a scan with at most ``voxels`` voxels, none smaller than the scan's.

    A scan whose axes are the patient's and that is small enough keeps its own grid. An oblique one is covered by the box
    around its corners.
    """
    low, high = _bounds(geometry)
    extent = (high - low)[::-1]
    shape = _shape(extent, geometry.spacing_mm, voxels)
    spacing = extent / shape
    origin = low + spacing[::-1] / 2
    return Geometry.regular(shape, (float(spacing[0]), float(spacing[1]), float(spacing[2])), tuple(origin.tolist()))


def coarse_hu(volume: Volume, grid: Geometry) -> Float32[np.ndarray, "slice row column"]:
    """Mean HU of the scan in each voxel of a ``coarse_geometry``; air outside the scan."""
    return _resample(volume.hu, volume.geometry, grid, AIR_HU)


def coarse_shares(
    mask: Mask, grid: Geometry, lesions: Sequence[Lesion] = ()
) -> Float32[np.ndarray, "slice row column"]:
    """The share of each voxel of a ``coarse_geometry`` that is inside a mask, 0 to 1; from a half on it belongs to the structure.

    Args:
        mask: What to make coarse.
        grid: From ``coarse_geometry`` of the mask's grid.
        lesions: Pieces of the mask that must not vanish: one too small to fill half a voxel gets all of the voxel of its seat.
    """
    shares = _resample(mask.voxels, mask.geometry, grid, 0) + np.float32(_EDGE)
    for lesion in lesions:
        index = _nearest(grid, mask.geometry.world_mm(np.array(lesion.seat)))
        around = tuple(slice(max(0, one - 1), one + 2) for one in index)
        if not (shares[around] >= 0.5).any():
            shares[index] = 1
    return shares


def _bounds(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and the highest LPS mm that any voxel reaches."""
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in geometry.shape])).reshape(3, -1).T
    world = geometry.world_mm(corners)
    return world.min(axis=0), world.max(axis=0)


def _shape(extent: np.ndarray, finest: Sequence[float], voxels: int) -> tuple[int, int, int]:
    """Numbers of voxels: as equal in size as ``finest`` and the limit allow."""

    def at(spacing: float) -> tuple[int, int, int]:
        counts = [max(1, math.floor(e / max(f, spacing) + _EDGE)) for e, f in zip(extent, finest, strict=True)]
        return counts[0], counts[1], counts[2]

    fine, coarse = 0.0, float(extent.max())
    if math.prod(at(fine)) <= voxels:
        return at(fine)
    while coarse - fine > 1e-4:
        middle = (fine + coarse) / 2
        fine, coarse = (fine, middle) if math.prod(at(middle)) <= voxels else (middle, coarse)
    return at(coarse)


def _resample(array: np.ndarray, geometry: Geometry, grid: Geometry, outside: float) -> Float32[np.ndarray, "s r c"]:
    """Averaged along the scan's axes first, so that nothing aliases; then, for an oblique scan, turned by interpolation."""
    axes = geometry.affine[:3, :3] / np.linalg.norm(geometry.affine[:3, :3], axis=0)
    if np.allclose(axes, np.fliplr(np.eye(3)), atol=_OBLIQUE):
        return _shrink(array, grid.shape)
    size = np.array(geometry.shape) * geometry.spacing_mm
    shape = tuple(max(1, min(n, round(s / g))) for n, s, g in zip(geometry.shape, size, grid.spacing_mm, strict=True))
    small = _shrink(array, (shape[0], shape[1], shape[2]))
    factor = np.array(geometry.shape) / shape
    into = np.linalg.inv(geometry.affine) @ grid.affine
    matrix = into[:3, :3] / factor[:, None]
    offset = (into[:3, 3] + 0.5) / factor - 0.5
    return ndimage.affine_transform(
        small, matrix, offset, output_shape=grid.shape, output=np.float32, order=1, mode="constant", cval=outside
    )


def _shrink(array: np.ndarray, shape: tuple[int, int, int]) -> Float32[np.ndarray, "s r c"]:
    """Means over equal parts of an array, parts of voxels by their share; one slice in memory as float at a time."""
    if array.shape == shape:
        return array.astype(np.float32)
    along = [_shares(n, new) for n, new in zip(array.shape, shape, strict=True)]
    small = np.zeros(shape, np.float32)
    for index, part in enumerate(array):
        if part.any():
            picture = along[1] @ part.astype(np.float32) @ along[2].T
            for new in np.flatnonzero(along[0][:, index]):
                small[new] += along[0][new, index] * picture
    return small


def _shares(old: int, new: int) -> Float32[np.ndarray, "new old"]:
    """How much of each old voxel is in each of ``new`` equal parts; every row adds up to 1."""
    edges = np.linspace(0, old, new + 1)
    low, high = edges[:-1, None], edges[1:, None]
    start = np.arange(old)
    share = np.clip(np.minimum(high, start + 1) - np.maximum(low, start), 0, None)
    return (share / share.sum(axis=1, keepdims=True)).astype(np.float32)


def _nearest(grid: Geometry, world_mm: np.ndarray) -> tuple[int, int, int]:
    index = np.rint(np.linalg.inv(grid.affine)[:3] @ np.append(world_mm, 1)).astype(int)
    slice_, row, column = (int(np.clip(one, 0, n - 1)) for one, n in zip(index, grid.shape, strict=True))
    return slice_, row, column
