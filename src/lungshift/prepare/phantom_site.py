"""A phantom hospital: how its scanner and its readers turn one chest into one scan with masks.

Every field of ``Site`` changes one thing and nothing else, so that a drop in a model's score can be traced to one cause.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from lungshift.errors import ProtocolError

Flip = Literal["left_right", "up_down", "head_foot"]
Annotation = Literal["exact", "generous", "blocky"]
FLIP_AXIS: dict[Flip, int] = {"head_foot": 0, "up_down": 1, "left_right": 2}
_FWHM = 2.3548
_GENEROUS_MM = 2.5
_BLOCKS = 128
_LOWEST_HU, _HIGHEST_HU = -1024, 3071
_WINDOW_HU = (-1350.0, 150.0)


@dataclass(frozen=True)
class Site:
    """A scanner and its readers; every field can be switched alone.

    Attributes:
        name: What the site is called.
        hu_offset: Added to every voxel after everything else: a scanner out of calibration.
        sharpness_mm: Full width at half maximum of the in-plane blur; 0 for none. A soft kernel has 2, a sharp one 0.8.
        edge: Overshoot of a sharp (lung, bone) kernel: how much of the difference from a 3 mm blur is added again.
        noise_hu: Standard deviation of the noise.
        noise_texture_mm: Size of its grain (full width at half maximum); 0 for white noise.
        slice_mm: Slice thickness and distance; a slice is the mean over its thickness.
        pixel_mm: Pixel distance, the same for rows and columns.
        size: Rows and columns.
        flip: The voxels are turned round and the header does not say so.
        eight_bit: Values are 0 to 255 of a lung window (W1500/L-600) instead of HU.
        annotation: ``exact``; ``generous``, lesions drawn 2.5 mm too wide; ``blocky``, lesions drawn on a coarse copy, with
            the staircase and the jitter between slices that this leaves.

    Raises:
        ProtocolError: A length, size or noise that no scanner has.
    """

    name: str = "A"
    hu_offset: float = 0.0
    sharpness_mm: float = 2.0
    edge: float = 0.0
    noise_hu: float = 12.0
    noise_texture_mm: float = 3.0
    slice_mm: float = 7.0
    pixel_mm: float = 2.2
    size: int = 160
    flip: Flip | None = None
    eight_bit: bool = False
    annotation: Annotation = "exact"

    def __post_init__(self) -> None:
        lengths = (self.sharpness_mm, self.edge, self.noise_hu, self.noise_texture_mm)
        if min(lengths) < 0 or not 0.2 <= self.slice_mm <= 15 or not 0.3 <= self.pixel_mm <= 8 or self.size < 16:
            raise ProtocolError(
                f"No scanner is like {self}: sharpness, edge, noise and its texture are at least 0, slices 0.2 to 15 mm, "
                "pixels 0.3 to 8 mm, and at least 16 of them."
            )
        if self.flip not in (None, *FLIP_AXIS) or self.annotation not in ("exact", "generous", "blocky"):
            raise ProtocolError(
                f"Site {self.name!r}: flip is one of {', '.join(FLIP_AXIS)} or none, annotation exact, generous or blocky; "
                f"got {self.flip!r} and {self.annotation!r}."
            )


SITE_A = Site()
"""A soft kernel, thick slices: the source cohort of the demo."""

SITE_B = Site("B", hu_offset=110, sharpness_mm=0.8, edge=0.8, noise_hu=55, noise_texture_mm=2.5, slice_mm=5.0)
"""A sharp kernel, noise, thinner slices, a scale out of calibration: the target cohort of the demo."""


def blur(hu: Float32[np.ndarray, "row column"], site: Site) -> Float32[np.ndarray, "row column"]:
    """The reconstruction kernel: a blur, and the overshoot of a sharp kernel."""
    if site.sharpness_mm:
        hu = ndimage.gaussian_filter(hu, site.sharpness_mm / _FWHM / site.pixel_mm, mode="nearest", truncate=3)
    if site.edge:
        hu = hu + np.float32(site.edge) * (hu - ndimage.gaussian_filter(hu, 3 / _FWHM / site.pixel_mm, mode="nearest"))
    return np.asarray(hu, dtype=np.float32)


def draw_noise(rng: np.random.Generator, site: Site) -> Float32[np.ndarray, "row column"] | float:
    """One slice of noise in HU, with the site's spread and grain."""
    if not site.noise_hu:
        return 0.0
    white = rng.standard_normal((site.size, site.size), dtype=np.float32)
    if not site.noise_texture_mm:
        return white * np.float32(site.noise_hu)
    sigma = site.noise_texture_mm / _FWHM / site.pixel_mm
    line = ndimage.gaussian_filter1d((np.arange(129) == 64).astype(np.float64), sigma)
    grain = ndimage.gaussian_filter(white, sigma, mode="wrap")
    return np.asarray(grain * np.float32(site.noise_hu / np.sum(line**2)), dtype=np.float32)


def stored(hu: Float32[np.ndarray, "row column"], site: Site) -> np.ndarray:
    """What the site stores of a slice, as int16: clipped to a scanner's range and shifted, or an 8-bit window."""
    whole = np.clip(np.rint(hu), _LOWEST_HU, _HIGHEST_HU) + site.hu_offset
    if site.eight_bit:
        low, high = _WINDOW_HU
        whole = np.clip((whole - low) / (high - low), 0, 1) * 255
    return np.rint(whole).astype(np.int16)


def flipped(array: np.ndarray, site: Site) -> np.ndarray:
    """The array turned round as the site does it."""
    return array if site.flip is None else np.ascontiguousarray(np.flip(array, FLIP_AXIS[site.flip]))


def annotate(
    rng: np.random.Generator,
    lesion: Bool[np.ndarray, "row column"],
    lung: Bool[np.ndarray, "row column"],
    site: Site,
) -> Bool[np.ndarray, "row column"]:
    """What the site's readers draw of one slice of a true lesion."""
    if site.annotation == "exact" or not lesion.any():
        return lesion
    if site.annotation == "generous":
        near = ndimage.distance_transform_edt(~lesion, sampling=site.pixel_mm) <= _GENEROUS_MM
        return np.asarray(near & lung)
    return _blocky(rng, lesion) & lung


def _blocky(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """The mask as read off a copy of 128 pixels (blocks of 2 pixels at least), the blocks placed anew on every slice."""
    rows, columns = (_coarse(rng, n) for n in mask.shape)
    return np.asarray(mask[np.ix_(rows, columns)])


def _coarse(rng: np.random.Generator, count: int) -> np.ndarray:
    """For each pixel of a line, the pixel in the middle of its block."""
    block = max(2.0, count / _BLOCKS)
    start = rng.uniform(0, block)
    middle = (np.floor((np.arange(count) + start) / block) + 0.5) * block - start
    return np.asarray(np.clip(middle, 0, count - 1).astype(int))
