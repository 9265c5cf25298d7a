"""A lung mask from thresholds alone, for scans that came without one; recorded as ``lung_source="threshold"``.

The classical recipe (Hu, Hoffman, Reinhardt: Automatic lung segmentation for accurate quantitation of volumetric X-ray CT
images, IEEE TMI 20, 2001): air that does not reach the border of the picture, less the trachea, the two largest pieces of it, closed
slice by slice. Vessels and small dense lesions are kept; a whole lobe as dense as muscle, or fluid, is not, for there is nothing
in a threshold that could know it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from lungshift.ct.case import Case
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import GeometryError, IntensityError

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
    require_hu(float(volume.hu.min()), float(volume.hu.max()))
    geometry = volume.geometry
    air, body_voxels = _enclosed_air(volume.hu)
    box = _bounding_box(air, geometry)
    air = air[box]
    _remove_trachea(air, geometry.spacing_mm)
    lungs = np.zeros(geometry.shape, np.bool_)
    lungs[box] = _close(_two_largest(air, geometry), geometry.spacing_mm)
    mask = Mask(lungs, geometry)
    require_lungs(mask.volume_ml, body_voxels * geometry.voxel_ml, geometry)
    return mask


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


def _enclosed_air(hu: np.ndarray) -> tuple[Bool[np.ndarray, "slice row column"], int]:
    """Air that does not reach the border of its slice, and how many voxels are within the outline of the body."""
    air = np.empty(hu.shape, np.bool_)
    body_voxels = 0
    for index, row_column in enumerate(hu):
        thin = row_column < AIR_HU
        labels, count = ndimage.label(thin)
        outside = np.zeros(count + 1, np.bool_)
        for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
            outside[edge] = True
        outside[0] = True
        air[index] = ~outside[labels]
        body_voxels += int(np.count_nonzero(air[index])) + thin.size - int(np.count_nonzero(thin))
    return air, body_voxels


def _bounding_box(air: np.ndarray, geometry: Geometry) -> tuple[slice, slice, slice]:
    """Around all enclosed air, with a margin in-plane so that closing meets no border."""
    box = [slice(0, air.shape[0])]
    for axis in (1, 2):
        used = np.flatnonzero(air.any(axis=tuple(other for other in range(3) if other != axis)))
        if not len(used):
            raise GeometryError(
                "There is no air enclosed by a body in the scan, so no lung: is it a chest, in HU? Give a lung mask if it is.",
                code="E_NO_LUNG",
            )
        margin = int(np.ceil(CLOSING_MM / geometry.spacing_mm[axis])) + 1
        box.append(slice(max(0, int(used[0]) - margin), int(used[-1]) + 1 + margin))
    return box[0], box[1], box[2]


def _remove_trachea(air: np.ndarray, spacing_mm: tuple[float, float, float]) -> None:
    """Follow the trachea from the head down to where the bronchi enter the lungs, and clear it in place."""
    pixel_mm2 = spacing_mm[1] * spacing_mm[2]
    before: np.ndarray | None = None
    searched = 0
    for index in range(len(air) - 1, -1, -1):
        labels, count = ndimage.label(air[index])
        sizes = np.bincount(labels.ravel(), minlength=count + 1) * pixel_mm2
        if before is None:
            searched += 1
            before = _find_trachea(labels, sizes, spacing_mm)
            if before is None and searched * spacing_mm[0] > _SEARCH_MM:
                return
        else:
            before = _follow(labels, sizes, before)
            if before is None:
                return
        if before is not None:
            air[index] &= ~ndimage.binary_dilation(before, iterations=1)


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


def _two_largest(air: np.ndarray, geometry: Geometry) -> np.ndarray:
    """0 for no lung, 1 and 2 for the largest two pieces of air in space, found on a coarse copy."""
    steps = tuple(max(1, int(_COARSE_MM / mm)) for mm in geometry.spacing_mm)
    coarse, count = ndimage.label(air[:: steps[0], :: steps[1], :: steps[2]])
    sizes = np.bincount(coarse.ravel(), minlength=count + 1)
    sizes[0] = 0
    order = np.argsort(sizes)[::-1][:2]
    rank = np.zeros(count + 1, np.uint8)
    for number, label in enumerate(order, start=1):
        if sizes[label] >= _SECOND_LUNG * sizes[order[0]] and sizes[label]:
            rank[label] = number
    return _on_fine_grid(air, rank[coarse], steps)


def _on_fine_grid(air: np.ndarray, coarse: np.ndarray, steps: tuple[int, ...]) -> np.ndarray:
    """Give every piece of air in a slice the lung that most of its coarse points lie in."""
    lungs = np.zeros(air.shape, np.uint8)
    for index in range(len(air)):
        near = coarse[min(index // steps[0], len(coarse) - 1)]
        labels, count = ndimage.label(air[index])
        points = labels[:: steps[1], :: steps[2]]
        votes = np.stack([np.bincount(points[near == number], minlength=count + 1) for number in (1, 2)])
        side = np.where(votes.max(axis=0) > 0, 1 + votes.argmax(axis=0), 0).astype(np.uint8)
        side[0] = 0
        lungs[index] = side[labels]
    return lungs


def _close(lungs: np.ndarray, spacing_mm: tuple[float, float, float]) -> Bool[np.ndarray, "slice row column"]:
    """Each lung closed and filled slice by slice, so that vessels and lesions at the pleura belong to it."""
    closed = np.zeros(lungs.shape, np.bool_)
    margin = [int(np.ceil(CLOSING_MM / mm)) + 1 for mm in spacing_mm[1:]]
    for number in (1, 2):
        for index in range(len(lungs)):
            found = ndimage.find_objects((lungs[index] == number).view(np.uint8))
            if not found:
                continue
            window = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(found[0], margin, strict=True))
            closed[index][window] |= close_lung(lungs[index][window] == number, spacing_mm[1:])
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
