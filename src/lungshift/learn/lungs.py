"""Lungs by a network that was trained on readers' lung masks, for scans without one; recorded as ``lung_source="model"``.

What the network says of a slice is cleaned up lightly: each piece is closed and filled as the threshold's are, and pieces in space
that are too small beside the largest are dropped. Which those are is known only when the last slice was seen. Until then each slice is kept packed, in
a kilobyte or two, so the scan itself need not be in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from lungshift.ct.case import Case, CaseSlice
from lungshift.ct.geometry import Geometry
from lungshift.ct.packed import PackedMask, pack
from lungshift.ct.volume import Mask, Volume
from lungshift.learn.prediction import Predictor, predict_stream
from lungshift.prepare.grid import SliceGrid
from lungshift.prepare.lungmask import AIR_HU, CLOSING_MM, close_lung, require_hu, require_lungs
from lungshift.prepare.pieces import Pieces

LEAST_SHARE = 0.1
"""Pieces smaller than this part of the largest are no lung: gas in stomach and bowel, air beside the patient."""


def predict_lungs(predictor: Predictor, volume: Volume) -> Mask:
    """The lungs of a scan, on its own grid.

    Args:
        predictor: Of a checkpoint that finds lungs.
        volume: A scan in HU. It may be part of a chest.

    Raises:
        CheckpointError: The checkpoint finds lesion (code ``E_TARGET``).
        IntensityError: These are not HU (code ``E_NOT_HU``).
        GeometryError: Nothing of the size of lungs was found (code ``E_NO_LUNG``).
    """
    require_hu(float(volume.hu.min()), float(volume.hu.max()))
    slices = (CaseSlice(index, hu, None, None) for index, hu in enumerate(volume.hu))
    return find_lungs(predictor, slices, volume.geometry).mask()


def find_lungs(predictor: Predictor, slices: Iterable[CaseSlice], geometry: Geometry) -> PackedMask:
    """The lungs of a scan that comes slice by slice, from either end to the other; its own lung masks are not looked at.

    Args:
        predictor: Of a checkpoint that finds lungs.
        slices: Every slice of the scan.
        geometry: The scan's grid.

    Raises:
        CheckpointError, IntensityError: As for ``predict_lungs``.
        GeometryError: Slices are missing; or nothing of the size of lungs was found (code ``E_NO_LUNG``).
    """
    grid, scan, pieces = SliceGrid(*geometry.shape[1:], predictor.checkpoint.size), _Scan(), Pieces()
    packed: dict[int, bytes] = {}
    for index, found in predict_stream(predictor, scan.watch(slices), grid, geometry.spacing_mm[0], "lung"):
        mask = _close_pieces(found, geometry.spacing_mm[1:])
        pieces.add(index, mask)
        packed[index] = pack(mask)
    lungs = PackedMask(geometry, packed)
    require_hu(scan.low, scan.high)
    lungs = _without_small(pieces, lungs)
    require_lungs(lungs.volume_ml, lungs.volume_ml + scan.dense * geometry.voxel_ml, geometry)
    return lungs


def with_model_lungs(predictor: Predictor, case: Case) -> Case:
    """The case as it is, or with lungs by the predictor where it has none; recorded as such, with the checkpoint's fingerprint.

    Raises:
        CheckpointError, IntensityError, GeometryError: As for ``predict_lungs``.
    """
    if case.lung is not None:
        return case
    lung = predict_lungs(predictor, case.volume)
    return replace(case, lung=lung, lung_source="model", lung_model=predictor.checkpoint.fingerprint)


class _Scan:
    """What is seen of a scan in passing: its lowest and highest HU, and how many voxels are denser than air and lung."""

    def __init__(self) -> None:
        self.low, self.high, self.dense = np.inf, -np.inf, 0

    def watch(self, slices: Iterable[CaseSlice]) -> Iterator[CaseSlice]:
        for piece in slices:
            self.low, self.high = min(self.low, float(piece.hu.min())), max(self.high, float(piece.hu.max()))
            self.dense += int(np.count_nonzero(piece.hu >= AIR_HU))
            yield replace(piece, lung=np.ones(piece.hu.shape, dtype=bool))  # the whole slice is looked at


def _without_small(pieces: Pieces, lungs: PackedMask) -> PackedMask:
    """The lungs without the pieces of less than ``LEAST_SHARE`` of the largest."""
    sizes, packed = pieces.sizes(), dict(lungs.packed)
    kept = sizes >= LEAST_SHARE * sizes.max(initial=0)
    for index, place in pieces.slices():
        if not kept[place].all():
            packed[index] = pack(pieces.spread(index, kept, lungs.slice(index)))
    return PackedMask(lungs.geometry, packed)


def _close_pieces(mask: Bool[np.ndarray, "row column"], pixel_mm: tuple[float, ...]) -> Bool[np.ndarray, "row column"]:
    """Each piece of a slice closed and filled by itself, so that two lungs are not joined across the middle."""
    labels, _ = ndimage.label(mask)
    closed = mask.copy()
    margin = [int(np.ceil(CLOSING_MM / mm)) + 1 for mm in pixel_mm]
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        window = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(place, margin, strict=True))
        closed[window] |= close_lung(labels[window] == number, pixel_mm)
    return closed
