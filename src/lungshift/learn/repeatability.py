"""A scan predicted as if it had been taken again: what of its numbers is the model's own noise.

A retake is the scan with other noise, a scale of HU that is off by a few units, and the patient lying a little otherwise: moved by less than a pixel, turned
by about a degree, seen by a field of view that is a little larger or smaller, and mirrored every other time. The prediction is brought back to the scan's
own grid and measured there, within the same lung mask and with the retake's HU. The seeds are fixed: the same scan and model give
the same retakes.

Covered: how the network answers to noise, calibration and the place of the pixels. Not covered: another breath, another scanner, kernel, dose or slice
thickness, the error of the lung mask, and whatever the model gets wrong every time. The true scatter between two examinations is larger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
from jaxtyping import Bool, Float64
from scipy import ndimage

from lungshift.ct.case import Case, CaseSlice
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import CheckpointError, ProtocolError
from lungshift.learn.prediction import Predictor, predict, predict_stream
from lungshift.measure.burden import measure_burden
from lungshift.measure.regions import Regions
from lungshift.measure.repeats import UNKNOWN, Spread, spreads_of
from lungshift.prepare.grid import AIR_HU, SliceGrid

RETAKES: Final = 6
"""How often a scan is predicted again, if nothing else is said."""

OFFSET_HU, TURN_DEG, SCALE, SHIFT_PX = 5.0, 1.0, 0.01, 0.5
"""Standard deviation of the HU scale, of the turn and of the relative size; the shift is uniform up to half a pixel each way."""

_TISSUE_HU = (-50.0, 150.0)
_NOISE_SLICES, _MAD = 40, 1.4826
_ENOUGH = 500
_UNKNOWN_NOISE_HU = 10.0


@dataclass(frozen=True)
class Retake:
    """One way to take a scan again.

    Attributes:
        seed: Of its noise.
        mirrored: Whether left and right are swapped before the network looks.
        shift_px: How far it is moved down and to the right.
        turn_deg: Turn about the middle of the slice.
        scale: Size of what is seen.
        offset_hu: Added to every voxel.
    """

    seed: int
    mirrored: bool
    shift_px: tuple[float, float]
    turn_deg: float
    scale: float
    offset_hu: float


def draw_retakes(count: int = RETAKES, seed: int = 0) -> tuple[Retake, ...]:
    """So many retakes; those of a smaller count come first in a larger one.

    Raises:
        ProtocolError: Fewer than two, from which nothing scatters.
    """
    if count < 2:
        raise ProtocolError(f"A spread needs two retakes at least; got {count}.")
    return tuple(_draw(np.random.default_rng([seed, number]), number) for number in range(count))


def spread_numbers(
    predictors: Sequence[Predictor],
    case: Case,
    regions: Regions,
    retakes: Sequence[Retake],
    own: Sequence[Mask] = (),
) -> dict[str, Spread]:
    """How every number of ``Burden.quantities`` scatters over a scan and its retakes, and over models if there are several.

    Args:
        predictors: One model, or several whose differences count too.
        case: The scan with its lung mask, which stays as it is: ``lung_ml`` has no spread.
        regions: Of that lung mask.
        retakes: From ``draw_retakes``.
        own: What each predictor finds in the scan as it is, if that is at hand.

    Raises:
        CheckpointError: The case has no lung mask.
    """
    masks = own or [predict(one, case) for one in predictors]
    results = [
        [
            measure_burden(volume, lesion, regions).quantities()
            for volume, lesion in chain([(case.volume, mask)], predict_again(one, case, retakes))
        ]
        for one, mask in zip(predictors, masks, strict=True)
    ]
    return {name: UNKNOWN if name.endswith("lung_ml") else spread for name, spread in spreads_of(results).items()}


def predict_again(predictor: Predictor, case: Case, retakes: Sequence[Retake]) -> Iterator[tuple[Volume, Mask]]:
    """Each retake of a scan, on the scan's own grid, and the lesion that the network finds in it.

    Raises:
        CheckpointError: The case has no lung mask; make one first.
    """
    if case.lung is None:
        raise CheckpointError("The network wants a lung mask and the scan has none; make one first.", code="E_NO_LUNG")
    noise_hu = estimate_noise(case.volume)
    for retake in retakes:
        volume = take_again(case.volume, case.lung, retake, noise_hu)
        yield volume, _predict(predictor, volume, case.lung, retake)


def estimate_noise(volume: Volume) -> float:
    """Standard deviation of the scan's noise in HU: how soft tissue differs from the mean of its neighbours in a row.

    Robust against edges; 10 if there is next to no soft tissue. Noise with a grain coarser than a pixel is told too low.
    """
    found = []
    for hu in volume.hu[:: max(1, len(volume.hu) // _NOISE_SLICES)].astype(np.float32, copy=False):
        middle, around = hu[:, 1:-1], (hu[:, :-2] + hu[:, 2:]) / 2
        tissue = (around > _TISSUE_HU[0]) & (around < _TISSUE_HU[1])
        found.append((middle - around)[tissue])
    off = np.concatenate(found)
    if len(off) < _ENOUGH:
        return _UNKNOWN_NOISE_HU
    return float(_MAD * np.median(np.abs(off - np.median(off))) / np.sqrt(1.5))


def take_again(volume: Volume, lung: Mask, retake: Retake, noise_hu: float) -> Volume:
    """The scan with the retake's offset and noise, on its own grid; slices without lung are left as they are."""
    hu = volume.hu.copy()
    for index in np.flatnonzero(lung.voxels.any(axis=(1, 2))):
        noise = np.random.default_rng([retake.seed, int(index)]).standard_normal(hu.shape[1:], dtype=np.float32)
        changed = hu[index] + np.float32(retake.offset_hu) + np.float32(noise_hu) * noise
        hu[index] = np.rint(changed) if hu.dtype == np.int16 else changed
    return Volume(hu, volume.geometry)


def _draw(rng: np.random.Generator, number: int) -> Retake:
    down, right = rng.uniform(-SHIFT_PX, SHIFT_PX, 2).tolist()
    turn, size, offset = (rng.standard_normal(3) * (TURN_DEG, SCALE, OFFSET_HU)).tolist()
    return Retake(int(rng.integers(1 << 31)), number % 2 == 0, (down, right), turn, 1 + size, offset)


def _predict(predictor: Predictor, volume: Volume, lung: Mask, retake: Retake) -> Mask:
    count, rows, columns = volume.geometry.shape
    matrix, offset = _placement(retake, volume.geometry.spacing_mm[1:], (rows, columns))
    voxels = np.zeros(volume.geometry.shape, np.bool_)
    near = bool(predictor.checkpoint.network.offsets_mm)
    pieces = (_piece(k, volume.hu[k], lung.voxels[k], retake, (matrix, offset), near) for k in range(count))
    grid = SliceGrid(rows, columns, predictor.checkpoint.size)
    for index, found in predict_stream(predictor, pieces, grid, volume.geometry.spacing_mm[0]):
        if found.any():
            voxels[index] = _back(found, retake, matrix, offset)
    return Mask(voxels, volume.geometry)


def _placement(
    retake: Retake, pixel_mm: tuple[float, ...], shape: tuple[int, int]
) -> tuple[Float64[np.ndarray, "2 2"], Float64[np.ndarray, " 2"]]:
    """Where in the scan each pixel of the retake looks: ``matrix @ pixel + offset``."""
    angle = np.deg2rad(retake.turn_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mm = np.diag(pixel_mm)
    matrix = np.linalg.inv(mm) @ turn @ mm / retake.scale
    middle = (np.array(shape) - 1) / 2
    return matrix, middle - matrix @ (middle + np.array(retake.shift_px))


def _piece(
    index: int, hu: np.ndarray, lung: np.ndarray, retake: Retake, place: tuple[np.ndarray, np.ndarray], near: bool
) -> CaseSlice:
    if not lung.any() and not near:
        return CaseSlice(index, hu, lung, None)
    step = -1 if retake.mirrored else 1
    seen = ndimage.affine_transform(
        hu[:, ::step].astype(np.float32), place[0], place[1], order=1, cval=float(AIR_HU), mode="constant"
    )
    there = ndimage.affine_transform(lung[:, ::step].view(np.uint8), place[0], place[1], order=0) > 0
    return CaseSlice(index, seen, there, None)


def _back(
    found: Bool[np.ndarray, "row column"], retake: Retake, matrix: np.ndarray, offset: np.ndarray
) -> Bool[np.ndarray, "row column"]:
    inverse = np.linalg.inv(matrix)
    seen = ndimage.affine_transform(found.astype(np.float32), inverse, -inverse @ offset, order=1) >= 0.5
    return np.asarray(seen[:, :: -1 if retake.mirrored else 1])
