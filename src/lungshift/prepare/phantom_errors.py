"""Planted label errors: what goes wrong in real annotations, put into a phantom's mask on purpose and written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from scipy import ndimage

from lungshift.ct.geometry import Geometry
from lungshift.errors import ProtocolError

LabelErrorKind = Literal["removed", "spurious", "shifted", "dilated", "outside_lung"]
_SHIFT_SLICES = 3
_DILATED_MM = 6.0
_BLOB_MM = 12.0


@dataclass(frozen=True)
class LabelError:
    """An error to plant into one annotation.

    Attributes:
        kind: ``removed``, the largest piece of lesion on one stretch of slices is missing; ``spurious``, a ball of healthy
            lung is called lesion; ``shifted``, the mask lies three slices too high; ``dilated``, it is drawn 6 mm too wide
            on every slice; ``outside_lung``, a ball in the body outside the lungs is called lesion.
        patient: Number of the patient in the cohort, from 0.
        visit: Number of the visit, from 0.

    Raises:
        ProtocolError: Another kind, or a negative number.
    """

    kind: LabelErrorKind
    patient: int
    visit: int = 0

    def __post_init__(self) -> None:
        if self.kind not in get_args(LabelErrorKind) or min(self.patient, self.visit) < 0:
            raise ProtocolError(f"A label error is one of {', '.join(get_args(LabelErrorKind))}, not {self}.")


@dataclass(frozen=True)
class Planted:
    """A label error as it was planted.

    Attributes:
        error: What was asked for.
        slices: The slices whose mask it changed, from foot to head in the array; empty if there was nothing to change.
        voxels: How many voxels it changed.
    """

    error: LabelError
    slices: tuple[int, ...]
    voxels: int


def plant(
    rng: np.random.Generator,
    error: LabelError,
    lesion: np.ndarray,
    lung: np.ndarray,
    body: np.ndarray,
    geometry: Geometry,
) -> tuple[np.ndarray, Planted]:
    """A lesion mask with an error in it, and the record of it; ``lesion`` itself is left as it was.

    Args:
        rng: Chooses the place.
        error: What to plant.
        lesion: (slice, row, column) bool, the mask to spoil.
        lung: The lungs on the same grid.
        body: The body on the same grid.
        geometry: The grid.
    """
    if error.kind == "removed":
        wrong = _without_largest(lesion)
    elif error.kind == "spurious":
        wrong = lesion | (_ball(rng, lung & ~lesion, geometry) & lung)
    elif error.kind == "outside_lung":
        wrong = lesion | (_ball(rng, body & ~lung, geometry) & body & ~lung)
    elif error.kind == "shifted":
        wrong = np.zeros_like(lesion)
        wrong[_SHIFT_SLICES:] = lesion[:-_SHIFT_SLICES]
    else:
        wrong = _dilated(lesion, geometry)
    changed = wrong != lesion
    slices = tuple(int(index) for index in np.flatnonzero(changed.any(axis=(1, 2))))
    return wrong, Planted(error, slices, int(np.count_nonzero(changed)))


def _without_largest(lesion: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(lesion)
    if not count:
        return lesion.copy()
    largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return np.asarray(lesion & (labels != largest))


def _dilated(lesion: np.ndarray, geometry: Geometry) -> np.ndarray:
    wrong = lesion.copy()
    for index in np.flatnonzero(lesion.any(axis=(1, 2))):
        near = ndimage.distance_transform_edt(~lesion[index], sampling=geometry.spacing_mm[1:])
        wrong[index] = near <= _DILATED_MM
    return wrong


def _ball(rng: np.random.Generator, where: np.ndarray, geometry: Geometry) -> np.ndarray:
    """A ball around a random voxel of ``where``, on the middle half of its slices."""
    slices = np.flatnonzero(where.any(axis=(1, 2)))
    if not len(slices):
        return np.zeros_like(where)
    at = int(slices[rng.integers(len(slices) // 4, 3 * len(slices) // 4 + 1)])
    row, column = np.argwhere(where[at])[rng.integers(np.count_nonzero(where[at]))]
    steps = np.ogrid[tuple(slice(0, n) for n in where.shape)]
    centre, spacing = (at, row, column), geometry.spacing_mm
    far = sum(((step - c) * mm) ** 2 for step, c, mm in zip(steps, centre, spacing, strict=True))
    return np.asarray(far <= _BLOB_MM**2)
