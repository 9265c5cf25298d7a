"""How scans look, measured on prepared pictures without a label of any lesion: HU, fine detail, sizes, the way the chest lies."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Int64
from scipy import ndimage

from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Volume
from lungshift.errors import LungshiftError
from lungshift.prepare.lungmask import threshold_lungs
from lungshift.prepare.peaks import Peaks, find_peaks
from lungshift.prepare.prepared import PreparedCohort
from lungshift.prepare.slices import bounding_box

_SAMPLE = 16
_LEVELS, _SIDE = 8, 24


class PackedMasks:
    """Masks of some rows of a cohort, eight pixels in a byte."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._packed: dict[int, np.ndarray] = {}

    def put(self, row: int, mask: Bool[np.ndarray, "row column"]) -> None:
        """Keep the mask of a row."""
        self._packed[row] = np.packbits(mask)

    def __getitem__(self, row: int) -> Bool[np.ndarray, "row column"]:
        bits = np.unpackbits(self._packed[row], count=self._size * self._size)
        return bits.view(bool).reshape(self._size, self._size)

    def get(self, row: int, default: Bool[np.ndarray, "row column"]) -> Bool[np.ndarray, "row column"]:
        """The mask of a row, or another where there is none."""
        return self[row] if row in self._packed else default

    def __len__(self) -> int:
        return len(self._packed)


@dataclass(frozen=True, eq=False)
class Scan:
    """One case of a prepared cohort, seen through those of its rows that have lung.

    Attributes:
        number: Of the case in the cohort.
        rows: Rows of the cohort's table, from the foot.
    """

    cohort: PreparedCohort
    number: int
    rows: Int64[np.ndarray, " row"]

    @property
    def pixel_mm(self) -> float:
        """Millimetres of a pixel of the picture."""
        return pixel_mm_of(self.cohort, self.number)

    @property
    def slice_mm(self) -> float:
        """Distance of neighbouring slices."""
        return self.cohort.cases[self.number].spacing_mm[0]

    @cached_property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns of the picture that hold the lungs, by the masks as they are seen."""
        seen = np.any([self.cohort.lung(row) for row in self.sample()], axis=0)
        top, bottom, left, right = bounding_box(seen) if seen.any() else (0, *seen.shape[:1], 0, *seen.shape[1:])
        return slice(top, bottom), slice(left, right)

    @cached_property
    def peaks(self) -> Peaks:
        """Lung and soft tissue of a few of its slices; NaN where a scan shows too little of either."""
        return find_peaks((self.cohort.hu(row), self.cohort.lung(row)) for row in self.sample())

    @cached_property
    def is_eight_bit(self) -> bool:
        """Whether the numbers are those of an 8-bit picture, and not HU; air that was set around the slice aside."""
        hu = np.concatenate([self.cohort.hu(row)[self.box].ravel() for row in self.sample()])
        low, high = np.quantile(hu, (0.001, 0.999))
        return bool(low >= 0 and high <= 255)

    @cached_property
    def threshold_lungs(self) -> PackedMasks:
        """Lung masks by threshold, found in the pictures, for each of the scan's rows; none where none are to be found."""
        first, last = int(self.rows[0]), int(self.rows[-1]) + 1
        hu = np.stack([self.cohort.hu(row) for row in range(first, last)]).astype(np.float32)
        geometry = Geometry.regular(hu.shape, (self.slice_mm, self.pixel_mm, self.pixel_mm))
        made = PackedMasks(self.cohort.size)
        with suppress(LungshiftError):
            found = threshold_lungs(Volume(hu, geometry))
            for row in self.rows.tolist():
                made.put(row, found.voxels[row - first])
        return made

    def sample(self, count: int = _SAMPLE) -> Int64[np.ndarray, " row"]:
        """At most ``count`` rows, evenly from foot to head."""
        return self.rows[np.unique(np.linspace(0, len(self.rows) - 1, count).round().astype(int))]


def pixel_mm_of(cohort: PreparedCohort, number: int) -> float:
    """Millimetres of a pixel of a case's pictures."""
    case = cohort.cases[number]
    return case.spacing_mm[1] * max(case.rows, case.columns) / cohort.size


def scans_of(cohort: PreparedCohort, rows: Int64[np.ndarray, " row"]) -> list[Scan]:
    """The cases that these rows are of, where any of a case's rows has lung."""
    rows = np.sort(rows[cohort.table["lung"][rows] > 0])
    of = cohort.table["case"][rows]
    return [Scan(cohort, int(number), rows[of == number]) for number in np.unique(of)]


def chest(scan: Scan) -> Float32[np.ndarray, "level row column"]:
    """The chest as a small picture of eight heights, framed by the lungs: heart, spine and diaphragm say how it lies."""
    levels = []
    for row in scan.rows[np.linspace(0, len(scan.rows) - 1, _LEVELS).round().astype(int)]:
        picture = np.clip(scan.peaks.contrast(scan.cohort.hu(row)[scan.box]), 0, 1)
        blurred = ndimage.gaussian_filter(picture, [n / _SIDE / 2 for n in picture.shape])
        rows, columns = (((np.arange(_SIDE) + 0.5) * n / _SIDE).astype(int) for n in picture.shape)
        levels.append(blurred[np.ix_(rows, columns)])
    return np.stack(levels)


def likeness(one: Float32[np.ndarray, "*shape"], other: Float32[np.ndarray, "*shape"]) -> float:
    """Correlation of two small pictures."""
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])
