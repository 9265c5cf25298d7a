"""A lung mask from thresholds alone, for scans that came without one; recorded as ``lung_source="threshold"``.

The classical recipe (Hu, Hoffman, Reinhardt: Automatic lung segmentation for accurate quantitation of volumetric X-ray CT
images, IEEE TMI 20, 2001): air that does not reach the border of the picture, less the trachea, the two largest pieces of it, closed
slice by slice. Vessels and small dense lesions are kept; a whole lobe as dense as muscle, or fluid, is not, for there is nothing
in a threshold that could know it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

from lungshift.ct.case import Case, CaseSlice
from lungshift.ct.geometry import Geometry
from lungshift.ct.packed import PackedMask, pack, unpack
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import GeometryError, IntensityError
from lungshift.prepare.pieces import Pieces

AIR_HU = -320
"""Below this a voxel is called air or lung; of -450, -380 and -320 the one that agreed best with readers on seven real scans."""

CLOSING_MM = 10.0
"""Half the width of the notches in a lung that are closed."""

_COARSE_MM = 2.5
_HOLE_MM2 = 1000.0
_SECOND_LUNG = 0.12
_LEAST_ML, _LEAST_ML_PER_MM = 100.0, 1.0
_MOST_ML = 12_000.0
_MOST_OF_BODY = 0.75
_TRACHEA_MM2 = (40.0, 700.0)
_TRACHEA_OFF_MM = 45.0
_AIRWAY_MM2 = 900.0
_SEARCH_MM = 90.0


def threshold_lungs(volume: Volume) -> Mask:
    """Find the lungs of a chest CT by thresholds.

    Args:
        volume: A scan in HU. It may be part of a chest.

    Returns:
        The lungs with the vessels in them, without trachea and main bronchi, on the grid of the scan.

    Raises:
        IntensityError: No voxel is as thin as air, or none as dense as tissue: these are not HU (code ``E_NOT_HU``).
        GeometryError: Nothing of the size of lungs was found (code ``E_NO_LUNG``).
    """
    slices = (CaseSlice(index, hu, None, None) for index, hu in enumerate(volume.hu))
    return find_threshold_lungs(slices, volume.geometry).mask()


def find_threshold_lungs(slices: Iterable[CaseSlice], geometry: Geometry) -> PackedMask:
    """The same of a scan that comes slice by slice, in any order; its own lung masks are not looked at.

    Args:
        slices: Every slice of the scan.
        geometry: The scan's grid.

    Raises:
        IntensityError: As for ``threshold_lungs``.
        GeometryError: Slices are missing; or nothing of the size of lungs was found (code ``E_NO_LUNG``).
    """
    air, body_voxels = _enclosed_air(slices, geometry)
    box = _bounding_box(air)
    without, pieces, steps = _without_trachea(air, box)
    lungs = PackedMask(geometry, dict(_closed(without, pieces, steps, box, geometry)))
    require_lungs(lungs.volume_ml, body_voxels * geometry.voxel_ml, geometry)
    return lungs


def require_hu(low: float, high: float) -> None:
    """Refuse a scan whose lowest and highest voxel cannot be those of a chest in HU.

    Raises:
        IntensityError: No voxel is as thin as air, or none as dense as tissue (code ``E_NOT_HU``).
    """
    if low > AIR_HU or high < -150:
        raise IntensityError(
            f"The voxels run from {low:.0f} to {high:.0f}; a chest CT in HU has air near -1000 and tissue near 50. "
            "Convert the scan to HU, or give a lung mask."
        )


def require_lungs(found: float, body: float, geometry: Geometry) -> None:
    """Refuse what does not have the size of lungs, in a body of that size; both in millilitres.

    Raises:
        GeometryError: Too little, or too much (code ``E_NO_LUNG``).
    """
    least = min(_LEAST_ML, _LEAST_ML_PER_MM * geometry.shape[0] * geometry.spacing_mm[0])
    most = min(_MOST_ML, _MOST_OF_BODY * body)
    if not least <= found <= most:
        raise GeometryError(
            f"Found {found:.0f} ml of lung in the scan, expected {least:.0f} to {most:.0f} ml: is it a chest, in HU, with its real "
            "spacing? Give a lung mask if it is.",
            code="E_NO_LUNG",
        )


def _enclosed_air(slices: Iterable[CaseSlice], geometry: Geometry) -> tuple[PackedMask, int]:
    """Air that does not reach the border of its slice, and how many voxels are within the outline of the body."""
    packed, body_voxels, low, high = {}, 0, np.inf, -np.inf
    for piece in slices:
        low, high = min(low, float(piece.hu.min())), max(high, float(piece.hu.max()))
        thin = piece.hu < AIR_HU
        air = _enclosed(thin)
        packed[piece.index] = pack(air)
        body_voxels += int(np.count_nonzero(air)) + thin.size - int(np.count_nonzero(thin))
    found = PackedMask(geometry, packed)
    require_hu(low, high)
    return found, body_voxels


def _enclosed(thin: Bool[np.ndarray, "row column"]) -> Bool[np.ndarray, "row column"]:
    labels, count = ndimage.label(thin)
    outside = np.zeros(count + 1, np.bool_)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        outside[edge] = True
    outside[0] = True
    return np.asarray(~outside[labels])


def _bounding_box(air: PackedMask) -> tuple[slice, slice]:
    """Rows and columns around all enclosed air, with a margin so that closing meets no border."""
    box = []
    for axis in (1, 2):
        used = np.flatnonzero(air.shadow(axis))
        if not len(used):
            raise GeometryError(
                "There is no air enclosed by a body in the scan, so no lung: is it a chest, in HU? Give a lung mask if it is.",
                code="E_NO_LUNG",
            )
        margin = int(np.ceil(CLOSING_MM / air.geometry.spacing_mm[axis])) + 1
        box.append(slice(max(0, int(used[0]) - margin), min(air.geometry.shape[axis], int(used[-1]) + 1 + margin)))
    return box[0], box[1]


def _without_trachea(
    air: PackedMask, box: tuple[slice, slice]
) -> tuple[dict[int, bytes], Pieces, tuple[int, int, int]]:
    """The air in the box without the trachea, packed; and the pieces of a coarse copy of it, with the steps of the copy."""
    steps = tuple(max(1, int(_COARSE_MM / mm)) for mm in air.geometry.spacing_mm)
    trachea, pieces, packed = _Trachea(air.geometry.spacing_mm), Pieces(), {}
    for index in range(air.geometry.shape[0] - 1, -1, -1):
        plane = trachea.cleared(air.slice(index)[box])
        packed[index] = pack(plane)
        if index % steps[0] == 0:
            pieces.add(index // steps[0], plane[:: steps[1], :: steps[2]])
    return packed, pieces, (steps[0], steps[1], steps[2])


class _Trachea:
    """Follows the trachea from the head down to where the bronchi enter the lungs."""

    def __init__(self, spacing_mm: tuple[float, float, float]) -> None:
        self._spacing_mm, self._searched, self._ended = spacing_mm, 0, False
        self._before: np.ndarray | None = None

    def cleared(self, air: Bool[np.ndarray, "row column"]) -> Bool[np.ndarray, "row column"]:
        """The next slice towards the foot, without it."""
        if self._ended:
            return air
        labels, count = ndimage.label(air)
        sizes = np.bincount(labels.ravel(), minlength=count + 1) * (self._spacing_mm[1] * self._spacing_mm[2])
        if self._before is None:
            self._searched += 1
            self._before = _find_trachea(labels, sizes, self._spacing_mm)
            self._ended = self._before is None and self._searched * self._spacing_mm[0] > _SEARCH_MM
        else:
            self._before = _follow(labels, sizes, self._before)
            self._ended = self._before is None
        return air if self._before is None else air & ~ndimage.binary_dilation(self._before, iterations=1)


def _find_trachea(labels: np.ndarray, sizes: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray | None:
    """The compact piece of air nearest to the middle that has the size of a trachea."""
    middle = (labels.shape[1] - 1) / 2
    best, nearest = None, _TRACHEA_OFF_MM
    for label, window in enumerate(ndimage.find_objects(labels), start=1):
        tall, wide = (window[axis].stop - window[axis].start for axis in (0, 1))
        if not _TRACHEA_MM2[0] <= sizes[label] <= _TRACHEA_MM2[1] or not 0.4 <= tall / wide <= 2.5:
            continue
        off = abs((window[1].start + window[1].stop - 1) / 2 - middle) * spacing_mm[2]
        if off < nearest:
            best, nearest = label, off
    return None if best is None else labels == best


def _follow(labels: np.ndarray, sizes: np.ndarray, before: np.ndarray) -> np.ndarray | None:
    """What continues the airway in the next slice, without pieces so large that they must be lung."""
    touched = np.unique(labels[before])
    small = touched[(touched > 0) & (sizes[touched] <= _AIRWAY_MM2)]
    if not len(small):
        return None
    return np.isin(labels, small)


def _closed(
    air: Mapping[int, bytes], pieces: Pieces, steps: tuple[int, int, int], box: tuple[slice, slice], geometry: Geometry
) -> Iterator[tuple[int, bytes]]:
    """Each slice's lungs, packed: closed and filled, so that vessels and lesions at the pleura belong to them."""
    shape = box[0].stop - box[0].start, box[1].stop - box[1].start
    ranks, at, near = _two_largest(pieces), -1, np.zeros(0)
    for index in range(geometry.shape[0]):
        if index // steps[0] != at:
            at = index // steps[0]
            near = pieces.spread(at, ranks, unpack(air[at * steps[0]], shape)[:: steps[1], :: steps[2]])
        lungs = np.zeros(geometry.shape[1:], np.bool_)
        lungs[box] = _close(_on_fine_grid(unpack(air[index], shape), near, steps), geometry.spacing_mm)
        yield index, pack(lungs)


def _two_largest(pieces: Pieces) -> UInt8[np.ndarray, " piece"]:
    """For each piece of each slice, 1 and 2 if it belongs to the largest two in space, else 0."""
    sizes = pieces.whole()
    rank = np.zeros(len(sizes), np.uint8)
    largest = np.argsort(sizes)[::-1][:2]
    for number, piece in enumerate(largest, start=1):
        if sizes[piece] >= _SECOND_LUNG * sizes[largest[0]] and sizes[piece]:
            rank[piece] = number
    return rank[pieces.roots()]


def _on_fine_grid(
    air: Bool[np.ndarray, "row column"], near: UInt8[np.ndarray, "r c"], steps: tuple[int, int, int]
) -> UInt8[np.ndarray, "row column"]:
    """Every piece of air in a slice with the number of the lung that most of its coarse points lie in."""
    labels, count = ndimage.label(air)
    points = labels[:: steps[1], :: steps[2]]
    votes = np.stack([np.bincount(points[near == number], minlength=count + 1) for number in (1, 2)])
    side = np.where(votes.max(axis=0) > 0, 1 + votes.argmax(axis=0), 0).astype(np.uint8)
    side[0] = 0
    return np.asarray(side[labels])


def _close(
    lungs: UInt8[np.ndarray, "row column"], spacing_mm: tuple[float, float, float]
) -> Bool[np.ndarray, "row column"]:
    """Both lungs of a slice, each closed and filled by itself."""
    closed = np.zeros(lungs.shape, np.bool_)
    margin = [int(np.ceil(CLOSING_MM / mm)) + 1 for mm in spacing_mm[1:]]
    for number in (1, 2):
        found = ndimage.find_objects((lungs == number).view(np.uint8))
        if not found:
            continue
        window = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(found[0], margin, strict=True))
        closed[window] |= close_lung(lungs[window] == number, spacing_mm[1:])
    return closed


def close_lung(shape: np.ndarray, pixel_mm: tuple[float, ...]) -> Bool[np.ndarray, "row column"]:
    """One lung of a slice without notches narrower than 20 mm, and filled; the array needs a margin where it is no edge of the slice."""
    near = ndimage.distance_transform_edt(~shape, sampling=pixel_mm) <= CLOSING_MM
    kept = ndimage.distance_transform_edt(np.pad(near, 1), sampling=pixel_mm)[1:-1, 1:-1] > CLOSING_MM
    return fill_small_holes(kept | shape, pixel_mm)


def fill_small_holes(shape: np.ndarray, pixel_mm: tuple[float, ...]) -> Bool[np.ndarray, "row column"]:
    """Fill what is enclosed unless it is so large that it must be the heart, or the liver under its dome."""
    most = _HOLE_MM2 / (pixel_mm[0] * pixel_mm[1])
    labels, _ = ndimage.label(np.pad(~shape, 1, constant_values=True))
    sizes = np.bincount(labels.ravel())
    fill = sizes <= most
    fill[labels[0, 0]] = False
    return np.asarray(shape | fill[labels][1:-1, 1:-1])


def with_lungs(case: Case) -> Case:
    """The case as it is, or with a lung mask by threshold where it has none; recorded as such.

    Raises:
        GeometryError: Nothing of the size of lungs was found.
        IntensityError: These are not HU.
    """
    if case.lung is not None:
        return case
    return replace(case, lung=threshold_lungs(case.volume), lung_source="threshold")
