"""Where in the lungs: the two sides and their thirds, from a lung mask that does not tell them apart.

**Sides.** Two pieces of the mask that lie side by side are the two lungs. Where they touch, at the anterior or posterior junction, the
mask is eroded until they part, and between what is left each slice is cut along the path from front to back that severs the least lung,
and rather the bright line of the pleurae than lung, if the scan is given: dynamic programming, as in Hu, Hoffman, Reinhardt (IEEE
TMI 20:490, 2001). Smaller pieces go to the nearer lung. The patient's right is at low column numbers.

**Thirds.** Each lung has its own: its height from its own lowest to its own highest slice, cut in three equal parts; a slice belongs to
the third that its middle lies in. Equal height is what "upper, middle and lower third" means where nothing else is said; readers' zones are
cut at the carina and the inferior pulmonary veins instead (Ooi et al., Radiology 230:836, 2004), which a lung mask does not show, and
densitometry sometimes takes thirds of equal volume. Lobes are not known here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from scipy import ndimage

from lungshift.ct.boxes import box_of
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import AnnotationError

SIDES: Final = ("right", "left")
"""The patient's; as numbers 1 and 2 in ``split_sides``."""

THIRDS: Final = ("upper", "middle", "lower")
"""From the head down."""

ZONES: Final = tuple(f"{side}_{third}" for side in SIDES for third in THIRDS)
"""The six zones; as numbers 1 to 6 in ``Regions.zones``."""

REGIONS: Final[dict[str, tuple[int, ...]]] = {
    "both": (1, 2, 3, 4, 5, 6),
    "right": (1, 2, 3),
    "left": (4, 5, 6),
    "upper": (1, 4),
    "middle": (2, 5),
    "lower": (3, 6),
    **{zone: (number,) for number, zone in enumerate(ZONES, 1)},
}
"""Every region by name, and the zones that make it."""

_COARSE_MM = 2.5
_EROSIONS_MM = tuple(np.arange(0.0, 17.0, 2.0))
_APART, _SECOND = 0.4, 0.1
"""Two lungs: middles this part of the mask's width apart, the smaller at least this part of the larger."""
_STRAY = 0.01
_CHUNK = 32
_NEVER = np.float32(1e9)
_TOWARDS_MIDDLE = np.float32(1e-3)
_PLEURA_HU, _LUNG_HU, _CHEAPEST = -300.0, -850.0, 0.1


@dataclass(frozen=True, eq=False)
class Regions:
    """The six zones of the lungs on the grid of their mask.

    Attributes:
        zones: 0 outside the lungs, else the number of the zone.
        geometry: The grid.
        touching: Whether the two lungs touched and had to be cut apart.
    """

    zones: UInt8[np.ndarray, "slice row column"]
    geometry: Geometry
    touching: bool = False

    def mask(self, region: str) -> Mask:
        """The lung in a region of ``REGIONS``."""
        chosen = np.zeros(len(ZONES) + 1, np.bool_)
        chosen[list(REGIONS[region])] = True
        return Mask(chosen[self.zones], self.geometry)

    def flat(self, zones: Int64[np.ndarray, " zone"]) -> dict[str, int]:
        """Counts by zone (0 is outside the lungs) added up to counts by region."""
        return {name: int(sum(int(zones[number]) for number in numbers)) for name, numbers in REGIONS.items()}


def find_regions(lung: Mask, volume: Volume | None = None) -> Regions:
    """Sides and thirds of a lung mask.

    Args:
        lung: Both lungs, in one mask.
        volume: The scan, which shows where lungs that touch meet, and on which side a single lung is.

    Raises:
        AnnotationError: The lung mask is empty (code ``E_NO_LUNG``).
        GeometryError: Scan and lung mask are not on one grid.
    """
    sides, touching = _split(lung, volume)
    zones = np.zeros(sides.shape, np.uint8)
    for side in (1, 2):
        thirds = _thirds(np.count_nonzero(sides == side, axis=(1, 2)))
        for index in np.flatnonzero(thirds):
            zones[index][sides[index] == side] = 3 * (side - 1) + thirds[index]
    return Regions(zones, lung.geometry, touching)


def split_sides(lung: Mask, volume: Volume | None = None) -> UInt8[np.ndarray, "slice row column"]:
    """0 outside the lungs, 1 in the patient's right and 2 in the left lung; arguments and errors as ``find_regions``."""
    return _split(lung, volume)[0]


def _split(lung: Mask, volume: Volume | None) -> tuple[UInt8[np.ndarray, "slice row column"], bool]:
    if volume is not None:
        lung.geometry.require_same(volume.geometry, "Scan and lung mask")
    if not lung.voxels.any():
        raise AnnotationError(
            "The lung mask is empty, so nothing can be said per lung. Give the lung mask of this scan, or none to have one made.",
            code="E_NO_LUNG",
        )
    box = box_of(lung.voxels)
    inside, hu = lung.voxels[box], None if volume is None else volume.hu[box]
    spacing = lung.geometry.spacing_mm
    found = _whole_pieces(inside, spacing)
    touching = False
    if found is None:
        seeds = _seeds(inside, spacing)
        touching = seeds is not None
        middle = _middle(lung, volume) - box[2].start
        found = _one_side(inside, middle) if seeds is None else _cut(inside, hu, seeds, spacing)
    sides = np.zeros(lung.voxels.shape, np.uint8)
    sides[box] = found
    return sides, touching


def _whole_pieces(inside: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray | None:
    """The sides of lungs that do not touch: none of their pieces is cut; None if they touch, or if there is one."""
    labels, count = ndimage.label(inside)
    pair = _pair(labels, count)
    if pair is None:
        return None
    side = np.zeros(count + 1, np.uint8)
    side[list(pair)] = 1, 2
    others = np.flatnonzero(side[1:] == 0) + 1
    if len(others):
        side[others] = _nearest(side[labels], _first_places(labels, side), spacing)
    return np.asarray(side[labels])


def _pair(labels: np.ndarray, count: int) -> tuple[int, int] | None:
    """The numbers of the pieces that are the right and the left lung; None if no two lie side by side."""
    if count < 2:
        return None
    flat = labels.ravel()
    sizes = np.bincount(flat, minlength=count + 1)
    columns = np.broadcast_to(np.arange(labels.shape[2], dtype=np.float64), labels.shape).ravel()
    middles = np.bincount(flat, weights=columns, minlength=count + 1) / np.maximum(sizes, 1)
    sizes[0] = 0
    first = int(sizes.argmax())
    used = np.flatnonzero((labels > 0).any(axis=(0, 1)))
    beside = np.abs(middles - middles[first]) >= _APART * (used[-1] - used[0] + 1)
    second = int(np.where(beside, sizes, 0).argmax())
    if not beside[second] or sizes[second] < _SECOND * sizes[first]:
        return None
    return (first, second) if middles[first] < middles[second] else (second, first)


def _first_places(labels: np.ndarray, side: np.ndarray) -> np.ndarray:
    """A voxel of each piece that has no side yet, in order of their numbers."""
    at = np.flatnonzero((side[labels] == 0) & (labels > 0))
    _, first = np.unique(labels.ravel()[at], return_index=True)
    return np.stack(np.unravel_index(at[first], labels.shape), axis=1)


def _nearest(sides: np.ndarray, places: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """The side of the lung that is nearest to each voxel, found on a coarse copy."""
    steps = _steps(spacing)
    coarse = sides[tuple(slice(None, None, step) for step in steps)]
    sampling = [mm * step for mm, step in zip(spacing, steps, strict=True)]
    index = ndimage.distance_transform_edt(coarse == 0, sampling=sampling, return_distances=False, return_indices=True)
    near = coarse[tuple(index)]
    return np.asarray(near[tuple((places // steps).T)])


def _seeds(inside: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray | None:
    """1 and 2 in what is surely right and left, on a coarse copy; None if the lungs never part."""
    steps = _steps(spacing)
    coarse = inside[tuple(slice(None, None, step) for step in steps)]
    around = np.pad(coarse, ((0, 0), (1, 1), (1, 1)))  # not above and below: a scan may end within the lungs
    depth = ndimage.distance_transform_edt(around, sampling=[mm * n for mm, n in zip(spacing, steps, strict=True)])
    depth = depth[:, 1:-1, 1:-1]
    for erosion in _EROSIONS_MM:
        labels, count = ndimage.label(depth > erosion)
        if pair := _pair(labels, count):
            side = np.zeros(count + 1, np.uint8)
            side[list(pair)] = 1, 2
            return np.asarray(side[labels])
    return None


def _cut(inside: np.ndarray, hu: np.ndarray | None, seeds: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Sides of lungs that touch: every slice is cut from front to back between the seeds."""
    steps = _steps(spacing)
    columns = np.arange(seeds.shape[2]) * steps[2]
    middle = float(np.mean([np.broadcast_to(columns, seeds.shape)[seeds == side].mean() for side in (1, 2)])) + 0.5
    low, high = _limits(seeds, steps[2], inside.shape[2])
    sides = np.zeros(inside.shape, np.uint8)
    for start in range(0, len(inside), _CHUNK):
        part = slice(start, min(start + _CHUNK, len(inside)))
        rows = np.arange(inside.shape[1]) // steps[1]
        coarse = np.arange(part.start, part.stop) // steps[0]
        limits = low[coarse][:, rows], high[coarse][:, rows]
        path = _cheapest_path(inside[part], _weights(inside[part], hu, part), limits, middle, spacing)
        left = np.arange(inside.shape[2]) >= path[..., None]
        sides[part] = np.where(inside[part], 1 + left, 0)
    return sides


def _limits(seeds: np.ndarray, step: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """For each coarse slice and row, the first and the last place where the cut may be: a number of columns on its right."""
    right, left = seeds == 1, seeds == 2
    last_right = np.where(right.any(axis=2), seeds.shape[2] - 1 - right[..., ::-1].argmax(axis=2), -1)
    first_left = np.where(left.any(axis=2), left.argmax(axis=2), seeds.shape[2])
    low, high = last_right * step + 1, np.minimum(first_left * step, columns)
    low = np.where(last_right < 0, 0, low)
    return np.minimum(low, high), np.maximum(low, high)


def _weights(inside: np.ndarray, hu: np.ndarray | None, part: slice) -> Float32[np.ndarray, "slice row column"]:
    """What it costs to cut a millimetre through each voxel: 0 outside the mask, little where it is as bright as pleura."""
    if hu is None:
        return inside.astype(np.float32)
    bright = np.clip((hu[part].astype(np.float32) - _LUNG_HU) / (_PLEURA_HU - _LUNG_HU), 0, 1)
    return np.where(inside, 1 - (1 - _CHEAPEST) * bright, 0).astype(np.float32)


def _cheapest_path(
    inside: Bool[np.ndarray, "slice row column"],
    weight: Float32[np.ndarray, "slice row column"],
    limits: tuple[np.ndarray, np.ndarray],
    middle: float,
    spacing: tuple[float, ...],
) -> Int64[np.ndarray, "slice row"]:
    """For each row, how many columns are right of the cut that severs the least; ties are broken towards the middle."""
    slices, rows, columns = inside.shape
    places = np.arange(columns + 1, dtype=np.float32)
    aside = _TOWARDS_MIDDLE * np.abs(places - np.float32(middle))
    before = np.empty((rows, slices, columns + 1), np.int32)
    cost = np.zeros((slices, columns + 1), np.float32)
    for row in range(rows):
        if row:
            both = np.minimum(weight[:, row - 1], weight[:, row]) * np.float32(spacing[2])
            cost, before[row] = _sideways(cost, both)
        across = np.minimum(weight[:, row, :-1], weight[:, row, 1:]) * np.float32(spacing[1])
        cost = cost + aside
        cost[:, 1:-1] += across
        low, high = limits[0][:, row, None], limits[1][:, row, None]
        cost[(places < low) | (places > high)] = _NEVER
    path = np.empty((slices, rows), np.int64)
    at = cost.argmin(axis=1)
    for row in range(rows - 1, -1, -1):
        path[:, row] = at
        at = before[row][np.arange(slices), at] if row else at
    return path


def _sideways(cost: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least cost at every place after any move to either side, and where the move began."""
    total = np.pad(np.cumsum(step, axis=1), ((0, 0), (1, 0)))
    places = np.arange(cost.shape[1], dtype=np.int32)
    rightwards, leftwards = cost - total, (cost + total)[:, ::-1]
    best = np.minimum.accumulate(rightwards, axis=1)
    origin = np.maximum.accumulate(np.where(rightwards == best, places, 0), axis=1)
    back = np.minimum.accumulate(leftwards, axis=1)
    origin_back = places[-1] - np.maximum.accumulate(np.where(leftwards == back, places, 0), axis=1)[:, ::-1]
    there, here = best + total, back[:, ::-1] - total
    return np.minimum(there, here), np.where(there <= here, origin, origin_back)


def _one_side(inside: np.ndarray, middle: float) -> np.ndarray:
    """All of a mask that is one lung, on the side of the body's middle where most of it lies."""
    columns = np.arange(inside.shape[2])
    mean = float((np.count_nonzero(inside, axis=(0, 1)) * columns).sum() / np.count_nonzero(inside))
    return np.where(inside, 1 if mean < middle else 2, 0).astype(np.uint8)


def _middle(lung: Mask, volume: Volume | None) -> float:
    """The column in the middle of the body, or of the grid if there is no scan to tell."""
    if volume is not None:
        used = np.flatnonzero(np.count_nonzero(volume.hu > _PLEURA_HU, axis=(0, 1)) > 0)
        if len(used):
            return float(used[0] + used[-1]) / 2
    return (lung.geometry.shape[2] - 1) / 2


def _thirds(counts: Int64[np.ndarray, " slice"]) -> Int64[np.ndarray, " slice"]:
    """For each slice of one lung 1, 2 or 3 for its upper, middle or lower third, and 0 where it has no lung."""
    thirds = np.zeros(len(counts), np.int64)
    if not counts.any():
        return thirds
    first, last = _span(counts)
    middle = np.arange(len(counts)) - first + 0.5
    from_foot = np.clip(np.floor(3 * middle / (last - first + 1)), 0, 2).astype(np.int64)
    return np.where(counts > 0, 3 - from_foot, 0)


def _span(counts: Int64[np.ndarray, " slice"]) -> tuple[int, int]:
    """First and last slice of a lung; strays far from it (under 1 % of it, empty slices between) do not make it taller."""
    runs, number = ndimage.label(counts > 0)
    shares = np.bincount(runs, weights=counts, minlength=number + 1) / counts.sum()
    shares[0] = 0
    kept = np.flatnonzero(shares[runs] >= _STRAY)
    return int(kept[0]), int(kept[-1])


def _steps(spacing: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(max(1, int(_COARSE_MM / mm)) for mm in spacing)
