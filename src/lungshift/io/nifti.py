"""NIfTI files to volumes, masks and cases: whole, or slice by slice in constant memory.

Every byte is inflated by isal with CRC and length checked, every header judged first (``header.py``), every axis order and
flip turned to the canonical one (``orientation.py``). Only permutations and flips are done silently; nothing is resampled
unless asked for.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Literal

import numpy as np

from lungshift.ct.case import CaseSlice
from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import AnnotationError, FileFormatError, GeometryError
from lungshift.files import digest, sha256
from lungshift.io.gzip import ByteStream
from lungshift.io.header import DEFAULT_INTAKE, Header, Intake, read_header
from lungshift.io.orientation import Layout, layout_of, resample
from lungshift.io.pairs import FlipCheck
from lungshift.io.voxels import ONE_LABEL, Converter, IntensityGate, Labels, label_selector, undeclared
from lungshift.memory import require_memory

_AIR_HU = -1024.0


def read_volume(
    path: Path | str,
    *,
    oblique: Literal["refuse", "resample"] = "refuse",
    nan: Literal["refuse"] | float = "refuse",
    require_hu: bool = True,
    max_voxels: int = 2**30,
    strict: bool = False,
    assume_spacing: bool = False,
) -> Volume:
    """Read a scan, turned to the canonical orientation.

    Whole numbers on disk become int16 HU, with slope and intercept applied and rounded (off by at most 0.5 HU); floating
    point becomes float32. The keywords are those of ``Intake``.

    Raises:
        FileFormatError: The file is not NIfTI, damaged, truncated, too large, or not one scan.
        GeometryError: No orientation, an impossible affine, or an oblique or sheared grid.
        IntensityError: NaN, one value everywhere, or values that are not Hounsfield units.
    """
    intake = Intake(oblique, nan, require_hu, max_voxels, strict, assume_spacing)
    file = _File.open(Path(path), intake)
    return Volume(_whole_hu(file, IntensityGate(file.header, intake)), file.layout.geometry)


def read_mask(
    path: Path | str,
    geometry: Geometry,
    *,
    labels: frozenset[int] = frozenset({1}),
    declared: frozenset[int] | None = None,
    oblique: Literal["refuse", "resample"] = "refuse",
) -> Mask:
    """Read the voxels of a mask file that hold one of ``labels``, on the scan's grid.

    Args:
        path: The mask file, in any axis order.
        geometry: The grid of the scan it belongs to.
        labels: Values that belong to the structure.
        declared: Every value that may occur besides 0; by default ``labels``.
        oblique: As for the scan; an oblique mask is resampled with its nearest neighbours.

    Raises:
        GeometryError: ``E_MASK_SHAPE`` or ``E_MASK_AFFINE``: not on the scan's grid.
        AnnotationError: ``E_LABELS``: values that are not whole or not declared, with their counts.
    """
    file = _File.open(Path(path), Intake(oblique=oblique))
    _require_same_grid(file, geometry)
    return Mask(_whole_mask(file, Labels(labels, labels if declared is None else declared)), geometry)


def count_labels(path: Path | str) -> dict[float, int]:
    """How often each value occurs in a mask file."""
    file = _File.open(Path(path), Intake())
    counts: Counter[float] = Counter()
    for plane in file.planes(lambda stored: stored):
        values, numbers = np.unique(
            plane.astype(np.float64) * file.header.slope + file.header.inter, return_counts=True
        )
        counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
    return dict(counts)


@dataclass(frozen=True, eq=False)
class NiftiSource:
    """A case in up to three NIfTI files; a ``lungshift.ct.case.CaseSource``.

    Attributes:
        volume: The scan.
        lung: Its lung mask, if there is one.
        lesion: Its lesion mask, if there is one.
        lung_labels: What the values of the lung mask mean.
        lesion_labels: What the values of the lesion mask mean.
        intake: How strictly the files are taken in.
    """

    volume: Path
    lung: Path | None = None
    lesion: Path | None = None
    lung_labels: Labels = ONE_LABEL
    lesion_labels: Labels = ONE_LABEL
    intake: Intake = DEFAULT_INTAKE

    @property
    def geometry(self) -> Geometry:
        """The scan's grid, from its header alone."""
        return self._scan.layout.geometry

    @property
    def has_lung(self) -> bool:
        """Whether a lung mask exists."""
        return self.lung is not None

    @property
    def has_lesion(self) -> bool:
        """Whether a lesion mask exists."""
        return self.lesion is not None

    @property
    def streams(self) -> bool:
        """Whether its slices come one by one without the scan in memory, as often as they are asked for."""
        return self._scan.layout.streams

    @property
    def notes(self) -> tuple[str, ...]:
        """What of the header was taken with a warning, and that its grid was resampled."""
        return (*self._scan.header.notes, *self._scan.layout.notes)

    @property
    def resampled(self) -> bool:
        """Whether the canonical grid has other voxels than the file."""
        return self._scan.layout.resample

    def read(self) -> tuple[Volume, Mask | None, Mask | None]:
        """The whole scan with its lung and lesion masks.

        Raises:
            InputError: Whatever keeps a file from being read, or a mask from fitting.
        """
        lung_file, lesion_file = self._masks
        hu = _whole_hu(self._scan, IntensityGate(self._scan.header, self.intake))
        lung = _whole_mask(lung_file, self.lung_labels) if lung_file else None
        lesion = _whole_mask(lesion_file, self.lesion_labels) if lesion_file else None
        check = FlipCheck(self.geometry.shape)
        for part in _slices_of(hu, lung, lesion):
            check.see(part.index, part.hu, part.lung, part.lesion)
        self._finish(check)
        masks = [None if mask is None else Mask(mask, self.geometry) for mask in (lung, lesion)]
        return Volume(hu, self.geometry), masks[0], masks[1]

    def slices(self) -> Iterator[CaseSlice]:
        """Every slice once, in the order of the file, in constant memory where the file holds slice after slice.

        Damage, a range that is not HU, and mirrored masks can only be known in the end, and are raised then: trust nothing
        of a case before the iteration is over.

        Raises:
            InputError: Whatever keeps a file from being read, or a mask from fitting.
        """
        if not self.streams:
            volume, lung, lesion = self.read()
            yield from _slices_of(
                volume.hu, None if lung is None else lung.voxels, None if lesion is None else lesion.voxels
            )
            return
        gate, check = IntensityGate(self._scan.header, self.intake), FlipCheck(self.geometry.shape)
        lung_file, lesion_file = self._masks
        order = self._scan.order
        parts = zip(
            order,
            self._scan.slices(gate),
            _mask_slices(lung_file, self.lung_labels, order),
            _mask_slices(lesion_file, self.lesion_labels, order),
            strict=True,
        )
        for index, hu, lung_slice, lesion_slice in parts:
            check.see(index, hu, lung_slice, lesion_slice)
            yield CaseSlice(index, hu, lung_slice, lesion_slice)
        gate.finish()
        self._finish(check)

    def checksums(self) -> dict[str, str]:
        """SHA-256 of the scan and its masks by what they are, folder and file name, and of labels and intake.

        That a scan might have been resampled makes no difference where it was not.
        """
        paths = {"scan": self.volume, "lung": self.lung, "lesion": self.lesion}
        files = {
            f"{role} {path.resolve().parent.name}/{path.name}": sha256(path) for role, path in paths.items() if path
        }
        plain = self.intake.oblique == "refuse" or not self.resampled
        intake = replace(self.intake, oblique="refuse") if plain else self.intake
        return files | {"how it is read": digest((self.lung_labels, self.lesion_labels, intake))}

    def _finish(self, check: FlipCheck) -> None:
        if not self.intake.allow_mirrored:
            check.finish(self.lung, self.lesion)

    @cached_property
    def _scan(self) -> _File:
        return _File.open(self.volume, self.intake)

    @property
    def _masks(self) -> list[_File | None]:
        """The mask files, each known to be on the scan's grid."""
        files = [None if path is None else _File.open(path, self.intake) for path in (self.lung, self.lesion)]
        for file in filter(None, files):
            _require_same_grid(file, self.geometry)
        return files


@dataclass(frozen=True, eq=False)
class _File:
    """One NIfTI file, judged by its header."""

    path: Path
    header: Header
    layout: Layout
    strict: bool = False

    @classmethod
    def open(cls, path: Path, intake: Intake) -> _File:
        header = read_header(path, intake)
        return cls(path, header, layout_of(header, intake.oblique, intake.max_voxels), intake.strict)

    @property
    def order(self) -> range:
        """The canonical indices of the stored slices."""
        count = self.header.shape[2]
        return range(count - 1, -1, -1) if self.layout.flipped[0] else range(count)

    def planes(self, convert: Converter) -> Iterator[np.ndarray]:
        """The stored (j, i) planes, each converted; CRC and length are checked after the last one."""
        shape = self.header.shape[1::-1]
        with ByteStream(self.path, strict=self.strict) as stream:
            if stream.take(self.header.offset)[: len(self.header.block)] != self.header.block:
                raise FileFormatError(f"{self.path} has changed while it was read; start again.", code="E_CHANGED")
            for _ in range(self.header.shape[2]):
                data = stream.take(self.header.plane_bytes)
                yield convert(np.frombuffer(data, self.header.dtype).reshape(shape))
            stream.finish()

    def slices(self, convert: Converter) -> Iterator[np.ndarray]:
        """The canonical slices in stored order."""
        return map(self.layout.turn_plane, self.planes(convert))

    def _require_memory(self, dtype: np.dtype) -> None:
        """The array, and as much again where it is turned or resampled; known from the header, before anything is taken."""
        slices, rows, columns = self.header.shape[::-1]
        voxels = slices * rows * columns
        copies = 1 if self.layout.streams and not self.layout.flipped[0] else 2
        needed = copies * voxels * dtype.itemsize
        if self.layout.resample:  # SimpleITK takes both grids in float32, and the result is turned back
            needed = (voxels + math.prod(self.layout.geometry.shape)) * (dtype.itemsize + 4)
        require_memory(needed, f"{self.path}, {slices} x {rows} x {columns} voxels (slices, rows, columns),")

    def whole(self, convert: Converter, dtype: type, background: float = 0) -> np.ndarray:
        """The canonical array."""
        self._require_memory(np.dtype(dtype))
        stored = np.empty(self.header.shape[::-1], dtype)
        for plane, values in zip(stored, self.planes(convert), strict=True):
            plane[:] = values
        if not self.layout.resample:
            return np.ascontiguousarray(self.layout.turn(stored))
        return resample(stored, self.header, self.layout.geometry, nearest=dtype is np.bool_, background=background)


def _whole_hu(file: _File, gate: IntensityGate) -> np.ndarray:
    hu = file.whole(gate, gate.dtype, _AIR_HU)
    gate.finish()
    return hu


def _whole_mask(file: _File, labels: Labels) -> np.ndarray:
    return file.whole(_selector(file, labels), np.bool_)


def _selector(file: _File, labels: Labels) -> Converter:
    def on_undeclared() -> AnnotationError:
        return undeclared(file.path, count_labels(file.path), labels)

    return label_selector(file.header, labels, on_undeclared)


def _mask_slices(file: _File | None, labels: Labels, order: range) -> Iterator[np.ndarray | None]:
    """The canonical slices of a mask in the scan's order; streamed if the file has that order, else from memory."""
    if file is None:
        return repeat(None, len(order))
    if file.layout.streams and file.order == order:
        return file.slices(_selector(file, labels))
    whole = _whole_mask(file, labels)
    return (whole[index] for index in order)


def _slices_of(hu: np.ndarray, lung: np.ndarray | None, lesion: np.ndarray | None) -> Iterator[CaseSlice]:
    for index, plane in enumerate(hu):
        yield CaseSlice(index, plane, None if lung is None else lung[index], None if lesion is None else lesion[index])


def _require_same_grid(file: _File, geometry: Geometry) -> None:
    own = file.layout.geometry
    if difference := geometry.difference(own):
        raise GeometryError(
            f"{file.path} is not on the grid of its scan: {difference}. Resample it to the scan first, if they belong together.",
            code="E_MASK_SHAPE" if own.shape != geometry.shape else "E_MASK_AFFINE",
        )
