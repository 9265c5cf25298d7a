"""How sharp and how noisy scans are, and the target seen as sharp as the source, or the source as noisy as the target.

Detail is what differs between blurs of a picture: edges, vessels and noise, in three bands. A filter can make it as strong as at
home, but gives no edge back that noise has hidden. Noise is therefore measured on its own, in the soft tissue between the lungs,
and put into the source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float32, Float64
from scipy import ndimage

from lungshift.prepare.grid import AIR_HU
from lungshift.prepare.peaks import between
from lungshift.prepare.prepared import PreparedCohort
from lungshift.prepare.views import changed
from lungshift.transfer.looks import Scan, pixel_mm_of
from lungshift.transfer.removal import Removal, chosen, counted, middle, outside, view_of

_BANDS = (0.6, 1.2, 2.4)
_FINEST = 0.4
_LOW, _HIGH = -0.25, 1.1
_DETAIL_SLACK, _NOISE_SLACK = 0.2, 0.5
_WEAKEST, _STRONGEST, _ROUNDS = 0.1, 4.0, 4
_SPREAD_OF_MEDIAN, _LEAST_TISSUE, _FITTED, _SEED = 0.6745, 40, 3, 7


def remove_sharpness(home: Sequence[Scan], away: Sequence[Scan]) -> Removal:
    """Sharpness and noise: detail is made as strong as the source has it, and noise put into the source."""
    pixel_mm = float(np.median([scan.pixel_mm for scan in home]))
    at_home, here = (np.array([fine_detail(scan, pixel_mm) for scan in scans]) for scans in (home, away))
    wanted, odd = middle(at_home), outside(at_home, here, times=1 + _DETAIL_SLACK)
    noise = Noise.of(home, away, pixel_mm)
    found = f"{_strength(middle(here), wanted, pixel_mm)}, {noise.words(home)}{counted(odd | noise.odd)}"
    how = {scan.number: _filter(scan, wanted, pixel_mm) for scan in chosen(away, odd)}
    notes = ["A filter cannot tell edges from noise."] if how else []
    if noise.is_more:
        notes.append(
            "Noise cannot be taken away; told is what as much of it costs at home, or what the filter gives back if that is more."
        )
    noisy = noise.put_into(home) if noise.is_more else None
    return Removal(found, view_of(away, "detail", hu=how), at_home=noisy, note=" ".join(notes))


def _strength(here: np.ndarray, wanted: np.ndarray, pixel_mm: float) -> str:
    """The bands that the target's pixels can show, in words."""
    shown = np.flatnonzero(np.isfinite(here))
    sizes = ", ".join(f"{band_sigmas(1, pixel_mm)[k]:.1f}" for k in shown)
    shares = ", ".join(f"{here[k] / wanted[k]:.2f}" for k in shown)
    return f"detail of {sizes} mm is {shares} times as strong here as at home"


def _filter(scan: Scan, wanted: Float64[np.ndarray, " band"], pixel_mm: float) -> Callable[[np.ndarray], np.ndarray]:
    """What makes the scan's detail as strong as wanted; bands overlap, so the gains are found in a few rounds."""
    gains = np.ones(len(wanted))
    for _ in range(_ROUNDS):
        gains = gains * np.nan_to_num(wanted / fine_detail(scan, pixel_mm, gains.tolist()), nan=1.0)
        gains = gains.clip(_WEAKEST, _STRONGEST)
    return partial(with_detail, sigmas=band_sigmas(scan.pixel_mm, pixel_mm), gains=gains.tolist())


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


def noise_of(scan: Scan, reference_mm: float) -> Float64[np.ndarray, " band"]:
    """The spread of each band in the soft tissue between the lungs, where there is little else than noise.

    The spread is the median of absolute values, which vessels and bone move little (for global noise see Christianson et al.,
    Automated technique to measure noise in clinical CT examinations, AJR 205, 2015). NaN as for ``fine_detail``, or where there
    is no such tissue.
    """
    sigmas = band_sigmas(scan.pixel_mm, reference_mm)
    found = []
    for row in scan.sample():
        tissue = between(scan.cohort.lung(row))
        if np.count_nonzero(tissue) >= _LEAST_TISSUE:
            bands = _split(scan.peaks.contrast(scan.cohort.hu(row)), sigmas)[:-1]
            found.append([np.median(np.abs(band[tissue])) / _SPREAD_OF_MEDIAN for band in bands])
    spread = np.median(found, axis=0) if found else np.full(len(sigmas), np.nan)
    return np.where(np.array(sigmas) < _FINEST, np.nan, spread)


@dataclass(frozen=True, eq=False)
class Noise:
    """Noise at home and here, a spread for each band as a part of the contrast.

    Attributes:
        pixel_mm: Pixel of the source's pictures, with which the bands go.
        at_home: The source's median.
        here: The target's.
        odd: Which of the target's scans have more than any of the source.
    """

    pixel_mm: float
    at_home: Float64[np.ndarray, " band"]
    here: Float64[np.ndarray, " band"]
    odd: Bool[np.ndarray, " scan"]

    @classmethod
    def of(cls, home: Sequence[Scan], away: Sequence[Scan], pixel_mm: float) -> Noise:
        """Measure the noise of both; there is more where both finer bands have more, for the coarsest has anatomy in it too."""
        at_home, here = (np.array([noise_of(scan, pixel_mm) for scan in scans]) for scans in (home, away))
        usual = middle(at_home)
        least, own = (
            np.nanmin((found / usual)[:, :-1], axis=1, keepdims=True, initial=np.inf) for found in (at_home, here)
        )
        return cls(pixel_mm, usual, middle(here), outside(least, np.maximum(own, 1.0), times=1 + _NOISE_SLACK))

    @property
    def is_more(self) -> bool:
        """Whether most of the target's scans are noisier than any of the source's."""
        return bool(np.mean(self.odd) > 0.5)

    def words(self, home: Sequence[Scan]) -> str:
        """The noise of both in the source's HU."""
        one, other = (np.sqrt(np.nansum(spread[:-1] ** 2)) * _contrast_hu(home) for spread in (self.at_home, self.here))
        return f"noise is {one:.0f} HU at home, {other:.0f} here"

    def put_into(self, home: Sequence[Scan]) -> PreparedCohort:
        """The source as noisy as the target: what is added is found in a few rounds, as bands overlap."""
        wanted = np.nan_to_num(self.here, nan=0.0)
        added = np.sqrt(np.maximum(wanted**2 - self.at_home**2, 0))
        for _ in range(_ROUNDS):
            noisy = self._added_to(home[0].cohort, added, _contrast_hu(home))
            scans = [Scan(noisy, scan.number, scan.rows) for scan in home[:_FITTED]]
            now = np.median([noise_of(scan, self.pixel_mm) for scan in scans], axis=0)
            added = np.clip(wanted / now, 0.5, 2.0) * added
        return self._added_to(home[0].cohort, added, _contrast_hu(home))

    def _added_to(
        self, cohort: PreparedCohort, added: Float64[np.ndarray, " band"], contrast_hu: float
    ) -> PreparedCohort:
        """The cohort with random detail of these strengths on every picture, the same whenever it is read."""

        def hu(row: int, picture: np.ndarray) -> np.ndarray:
            sigmas = band_sigmas(pixel_mm_of(cohort, int(cohort.table["case"][row])), self.pixel_mm)
            white = np.random.default_rng((_SEED, row)).standard_normal(picture.shape, dtype=np.float32)
            bands = _split(white, sigmas)[:-1]
            noise = sum(
                np.float32(share * contrast_hu) * band / band.std() for share, band in zip(added, bands, strict=True)
            )
            return np.maximum(picture + noise, AIR_HU)

        return changed(cohort, f"noise of {added.tolist()}", hu=hu)


def _contrast_hu(scans: Sequence[Scan]) -> float:
    found = [scan.peaks.tissue - scan.peaks.lung for scan in scans]
    return float(np.nanmedian(found)) if np.isfinite(found).any() else float("nan")
