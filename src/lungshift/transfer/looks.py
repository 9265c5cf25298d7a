"""How scans look, measured on prepared pictures without a label of any lesion: HU, fine detail, sizes, the way the chest lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from scipy import ndimage

from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Volume
from lungshift.errors import LungshiftError
from lungshift.prepare.lungmask import threshold_lungs
from lungshift.prepare.prepared import PreparedCohort
from lungshift.prepare.slices import bounding_box

_SAMPLE = 16
_LEVELS, _SIDE = 8, 24
_BANDS = (0.6, 1.2, 2.4)
_FINEST = 0.4
_LOW, _HIGH = -0.25, 1.1


@dataclass(frozen=True)
class Peaks:
    """Where a scan has the middle of its lung and of its soft tissue, in its own numbers, which need not be HU."""

    lung: float
    tissue: float

    def contrast(self, hu: np.ndarray) -> Float32[np.ndarray, "*shape"]:
        """The same picture on a scale where lung is 0 and soft tissue 1, whatever the scanner's scale."""
        return np.asarray((hu - np.float32(self.lung)) / np.float32(self.tissue - self.lung), dtype=np.float32)


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
        case = self.cohort.cases[self.number]
        return case.spacing_mm[1] * max(case.rows, case.columns) / self.cohort.size

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
        """Lung and soft tissue, each the middle of the narrowest range that holds half of its pixels.

        Soft tissue is looked for between the lungs, where heart and vessels are; lung well inside its mask. Both are NaN where a
        scan shows too little of either.
        """
        lung, tissue = [], []
        for row in self.sample():
            mask, hu = self.cohort.lung(row), self.cohort.hu(row)
            lung.append(hu[ndimage.binary_erosion(mask)])
            tissue.append(hu[between(mask)])
        return Peaks(_middle(np.concatenate(lung)), _middle(np.concatenate(tissue)))

    @cached_property
    def is_eight_bit(self) -> bool:
        """Whether the numbers are those of an 8-bit picture, and not HU; air that was set around the slice aside."""
        hu = np.concatenate([self.cohort.hu(row)[self.box].ravel() for row in self.sample()])
        low, high = np.quantile(hu, (0.001, 0.999))
        return bool(low >= 0 and high <= 255)

    @cached_property
    def threshold_lungs(self) -> dict[int, Bool[np.ndarray, "row column"]]:
        """Lung masks by threshold, found in the pictures, for each of the scan's rows; none where none are to be found."""
        first, last = int(self.rows[0]), int(self.rows[-1]) + 1
        hu = np.stack([self.cohort.hu(row) for row in range(first, last)]).astype(np.float32)
        geometry = Geometry.regular(hu.shape, (self.slice_mm, self.pixel_mm, self.pixel_mm))
        try:
            found = threshold_lungs(Volume(hu, geometry))
        except LungshiftError:
            return {}
        return {int(row): found.voxels[row - first] for row in self.rows}

    def sample(self, count: int = _SAMPLE) -> Int64[np.ndarray, " row"]:
        """At most ``count`` rows, evenly from foot to head."""
        return self.rows[np.unique(np.linspace(0, len(self.rows) - 1, count).round().astype(int))]


def scans_of(cohort: PreparedCohort, rows: Int64[np.ndarray, " row"]) -> list[Scan]:
    """The cases that these rows are of, where any of a case's rows has lung."""
    rows = np.sort(rows[cohort.table["lung"][rows] > 0])
    of = cohort.table["case"][rows]
    return [Scan(cohort, int(number), rows[of == number]) for number in np.unique(of)]


def between(lung: Bool[np.ndarray, "row column"]) -> Bool[np.ndarray, "row column"]:
    """What lies between the outer borders of the lungs in each row of pixels, and not near them: the mediastinum."""
    from_left = np.maximum.accumulate(lung, axis=1)
    from_right = np.maximum.accumulate(lung[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(from_left & from_right & ~ndimage.binary_dilation(lung, iterations=2))


def fine_detail(
    scan: Scan, reference_mm: float, gains: Sequence[float] = (1.0, 1.0, 1.0)
) -> Float64[np.ndarray, " band"]:
    """How strong detail of three sizes is in and around the lungs: edges, vessels and noise, as a part of the contrast.

    Args:
        scan: Whose pictures are measured.
        reference_mm: Pixel of the pictures that it is compared with; the sizes go with it.
        gains: Of ``with_detail``, to see what these would make of it.

    Returns:
        The standard deviation in each band; NaN in a band too fine for the scan's own pixels.
    """
    sigmas, power, pixels = band_sigmas(scan.pixel_mm, reference_mm), np.zeros(len(_BANDS)), 0
    for row in scan.sample():
        picture = with_detail(scan.peaks.contrast(scan.cohort.hu(row)), sigmas, gains)
        bands = _split(np.clip(picture, _LOW, _HIGH), sigmas)[:-1]
        near = ndimage.binary_dilation(scan.cohort.lung(row), iterations=2)
        power += [float((band[near] ** 2).sum()) for band in bands]
        pixels += int(np.count_nonzero(near))
    return np.where(np.array(sigmas) < _FINEST, np.nan, np.sqrt(power / pixels))


def band_sigmas(pixel_mm: float, reference_mm: float) -> tuple[float, ...]:
    """The blurs between which the bands lie, in pixels: 0.6, 1.2 and 2.4 pixels of the reference, the same in millimetres."""
    return tuple(sigma * reference_mm / pixel_mm for sigma in _BANDS)


def with_detail(
    picture: Float32[np.ndarray, "row column"], sigmas: Sequence[float], gains: Sequence[float]
) -> Float32[np.ndarray, "row column"]:
    """The picture with each band of its detail made stronger or weaker.

    After Gallardo-Estrella et al., Normalizing computed tomography data reconstructed with different filter kernels, European
    Radiology 26, 2016.
    """
    if all(gain == 1 for gain in gains):
        return picture
    *bands, coarse = _split(picture, sigmas)
    for band, gain in zip(bands, gains, strict=True):
        coarse = coarse + np.float32(gain) * band
    return coarse


def _split(picture: np.ndarray, sigmas: Sequence[float]) -> list[np.ndarray]:
    """Bands of detail from fine to coarse, and what is left; their sum is the picture."""
    blurred = [picture, *(ndimage.gaussian_filter(picture, sigma) for sigma in sigmas)]
    return [*(fine - coarse for fine, coarse in pairwise(blurred)), blurred[-1]]


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


def _middle(values: np.ndarray) -> float:
    """The middle of the narrowest range that holds half of the values."""
    ordered, half = np.sort(values), len(values) // 2
    if half < 50:
        return float("nan")
    first = int(np.argmin(ordered[half:] - ordered[: len(ordered) - half]))
    return float(ordered[first] + ordered[first + half]) / 2
