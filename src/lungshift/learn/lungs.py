"""Lungs by a network that was trained on readers' lung masks, for scans without one; recorded as ``lung_source="model"``.

What the network says of a slice is cleaned up lightly: each piece is closed and filled as the threshold's are, and pieces in space
that are too small beside the largest are dropped. Which those are is known only when the last slice was seen. Until then each slice is kept packed, in
a kilobyte or two, so the scan itself need not be in memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool
from scipy import ndimage

from lungshift.ct.case import Case, CaseSlice
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import GeometryError
from lungshift.learn.prediction import Predictor, predict_stream
from lungshift.prepare.grid import SliceGrid
from lungshift.prepare.lungmask import AIR_HU, CLOSING_MM, close_lung, require_hu, require_lungs

LEAST_SHARE = 0.1
"""Pieces smaller than this part of the largest are no lung: gas in stomach and bowel, air beside the patient."""


@dataclass(frozen=True, eq=False)
class PackedLungs:
    """The lungs of a scan on its own grid, packed slice by slice.

    Attributes:
        geometry: The scan's grid.
        packed: Each slice's mask by its number, eight pixels in a byte, compressed.
        voxels: How many voxels of the scan are lung.
        model: Fingerprint of the checkpoint that found them.
    """

    geometry: Geometry
    packed: dict[int, bytes]
    voxels: int
    model: str

    @property
    def volume_ml(self) -> float:
        """Volume of the lungs in millilitres."""
        return self.voxels * self.geometry.voxel_ml

    def slice(self, index: int) -> Bool[np.ndarray, "row column"]:
        """The lungs of one slice."""
        return _unpack(self.packed[index], self.geometry)

    def lay(self, slices: Iterable[CaseSlice]) -> Iterator[CaseSlice]:
        """The slices with these lungs, for a second pass over the scan."""
        return (replace(piece, lung=self.slice(piece.index)) for piece in slices)

    def mask(self) -> Mask:
        """The lungs of the whole scan, in memory."""
        return Mask(np.stack([self.slice(index) for index in range(self.geometry.shape[0])]), self.geometry)


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


def find_lungs(predictor: Predictor, slices: Iterable[CaseSlice], geometry: Geometry) -> PackedLungs:
    """The lungs of a scan that comes slice by slice, from either end to the other; its own lung masks are not looked at.

    Args:
        predictor: Of a checkpoint that finds lungs.
        slices: Every slice of the scan.
        geometry: The scan's grid.

    Raises:
        CheckpointError, IntensityError: As for ``predict_lungs``.
        GeometryError: Slices are missing; or nothing of the size of lungs was found (code ``E_NO_LUNG``).
    """
    grid, scan, pieces = SliceGrid(*geometry.shape[1:], predictor.checkpoint.size), _Scan(), _Pieces()
    packed: dict[int, bytes] = {}
    for index, found in predict_stream(predictor, scan.watch(slices), grid, geometry.spacing_mm[0], "lung"):
        mask = _close_pieces(found, geometry.spacing_mm[1:])
        pieces.add(index, mask)
        packed[index] = _pack(mask)
    if len(packed) != geometry.shape[0]:
        raise GeometryError(f"The scan has {geometry.shape[0]} slices and {len(packed)} came; give all of them.")
    require_hu(scan.low, scan.high)
    voxels = pieces.drop_small(packed, geometry)
    require_lungs(voxels * geometry.voxel_ml, (voxels + scan.dense) * geometry.voxel_ml, geometry)
    return PackedLungs(geometry, packed, voxels, predictor.checkpoint.fingerprint)


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


class _Pieces:
    """Pieces in space, put together from those of each slice that touch the slice before; no more than two slices are held."""

    def __init__(self) -> None:
        self._joined: list[int] = []
        self._voxels: list[int] = []
        self._first: dict[int, int] = {}
        self._last: tuple[int, np.ndarray] | None = None

    def add(self, index: int, mask: Bool[np.ndarray, "row column"]) -> None:
        """Add the pieces of a slice."""
        labels, count = ndimage.label(mask)
        first = self._first[index] = len(self._joined)
        self._joined += range(first, first + count)
        self._voxels += np.bincount(labels.ravel(), minlength=count + 1)[1:].tolist()
        if self._last and abs(self._last[0] - index) == 1:
            before = self._first[self._last[0]]
            for one, other in _touching(labels, self._last[1]):
                self._joined[self._root(first + one - 1)] = self._root(before + other - 1)
        self._last = index, labels

    def drop_small(self, packed: dict[int, bytes], geometry: Geometry) -> int:
        """Clear the pieces of less than ``LEAST_SHARE`` of the largest in place; how many voxels are left."""
        roots = [self._root(number) for number in range(len(self._joined))]
        whole = np.bincount(roots, weights=self._voxels) if roots else np.zeros(1)
        kept = whole[roots] >= LEAST_SHARE * whole.max() if roots else np.zeros(0, bool)
        ends = [*list(self._first.values())[1:], len(kept)]
        for (index, first), end in zip(self._first.items(), ends, strict=True):
            if not kept[first:end].all():
                labels, _ = ndimage.label(_unpack(packed[index], geometry))
                packed[index] = _pack(np.concatenate([[False], kept[first:end]])[labels])
        return int(np.array(self._voxels, dtype=np.int64)[kept].sum())

    def _root(self, number: int) -> int:
        while self._joined[number] != number:
            self._joined[number] = self._joined[self._joined[number]]
            number = self._joined[number]
        return number


def _close_pieces(mask: Bool[np.ndarray, "row column"], pixel_mm: tuple[float, ...]) -> Bool[np.ndarray, "row column"]:
    """Each piece of a slice closed and filled by itself, so that two lungs are not joined across the middle."""
    labels, _ = ndimage.label(mask)
    closed = mask.copy()
    margin = [int(np.ceil(CLOSING_MM / mm)) + 1 for mm in pixel_mm]
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        window = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(place, margin, strict=True))
        closed[window] |= close_lung(labels[window] == number, pixel_mm)
    return closed


def _touching(labels: np.ndarray, others: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of pieces of two slices that share a pixel."""
    step = int(others.max()) + 1
    pairs = np.where((labels > 0) & (others > 0), labels.astype(np.int64) * step + others, 0).ravel()
    starts = pairs[np.flatnonzero(np.diff(pairs, prepend=0))]  # a run of one pair is looked at once
    return [divmod(int(pair), step) for pair in np.unique(starts[starts > 0])]


def _pack(mask: Bool[np.ndarray, "row column"]) -> bytes:
    return zlib.compress(np.packbits(mask).tobytes(), 1)


def _unpack(packed: bytes, geometry: Geometry) -> Bool[np.ndarray, "row column"]:
    rows, columns = geometry.shape[1:]
    bits = np.frombuffer(zlib.decompress(packed), dtype=np.uint8)
    return np.unpackbits(bits, count=rows * columns).view(bool).reshape(rows, columns)
