"""CT series as scanners and archives keep them: a folder of DICOM files, or one multi-frame file.

Values become HU by each slice's own rescale; slices are ordered by position; the result is canonical (slices foot to head,
rows front to back, columns right to left). Voxels that the file declares to be padding become air (-1024 HU), and that is
logged; values below -1024 that nothing declares are logged and kept. HU beyond int16 are cut off at its ends.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, cast

import numpy as np
from jaxtyping import Bool

from lungshift.ct.case import CaseSlice
from lungshift.ct.geometry import Geometry
from lungshift.ct.packed import AnyMask
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import IntensityError, SeriesError
from lungshift.files import digest, sha256
from lungshift.io.dicom_decode import decode
from lungshift.io.dicom_header import Frame
from lungshift.io.dicom_series import Choices, SeriesInfo, Stack, describe_series, find_stack, scan_folder
from lungshift.io.header import Header
from lungshift.io.nifti import read_mask
from lungshift.io.orientation import Layout, layout_of, nearest_plane, resample
from lungshift.io.pairs import FlipCheck
from lungshift.io.voxels import ONE_LABEL, Labels
from lungshift.memory import require_memory

AIR_HU = -1024
_LOG = logging.getLogger("lungshift")
_INT16 = np.iinfo(np.int16)


def list_series(folder: str | Path) -> list[SeriesInfo]:
    """Every DICOM series below a folder, readable or not, by number.

    Raises:
        SeriesError: The folder does not exist.
    """
    return describe_series(scan_folder(Path(folder)), Choices())


def read_series(
    folder: str | Path,
    *,
    series_uid: str | None = None,
    oblique: Literal["refuse", "resample"] = "refuse",
    uneven: Literal["refuse", "interpolate"] = "refuse",
    allow_derived: bool = False,
    min_slices: int = 10,
) -> Volume:
    """Read one CT series in HU, int16 (float32 if a rescale is not whole), on its canonical grid.

    Args:
        folder: Searched with its subfolders; or one multi-frame file.
        series_uid: The series to read where there are several (see ``list_series``).
        oblique: What to do with a grid that is turned or sheared (gantry tilt) against the patient.
        uneven: What to do with missing or unequally spaced slices.
        allow_derived: Read images whose ImageType is DERIVED.
        min_slices: Refuse series of fewer slices.

    Raises:
        SeriesError: ``E_SERIES`` (none or several), ``E_GAP``, ``E_DUP``, ``E_SPACING``, ``E_FEW``, ``E_ORIENTATION``, ...
        IntensityError: Values that are not HU (``E_NOT_HU``).
        GeometryError: ``E_TILT`` or ``E_OBLIQUE``, unless resampled.
        FileFormatError: Pixels that are cut off (``E_TRUNCATED``) or cannot be decoded (``E_DECODE``).
    """
    choices = Choices(series_uid, oblique, uneven, allow_derived, min_slices)
    return DicomSource(folder, choices=choices).read_volume()


@dataclass(frozen=True, eq=False, repr=False)
class DicomSource:
    """A ``CaseSource`` of a DICOM series, with masks in NIfTI files on the scan's own grid.

    Attributes:
        folder: Of the series.
        series_uid: The series to read where there are several; short for ``choices``.
        lung: NIfTI file of the lung mask, if there is one.
        lesion: NIfTI file of the lesion mask, if there is one.
        lung_labels: What the values of the lung mask mean.
        lesion_labels: What the values of the lesion mask mean.
        choices: What to do with series that are not plainly regular.
        deep: Whether sub-folders are searched too.
    """

    folder: str | Path
    series_uid: str | None = None
    lung: Path | None = None
    lesion: Path | None = None
    lung_labels: Labels = ONE_LABEL
    lesion_labels: Labels = ONE_LABEL
    choices: Choices = field(default_factory=Choices)
    deep: bool = True

    def __repr__(self) -> str:
        return f"DicomSource({Path(self.folder).name!r})"

    @cached_property
    def stack(self) -> Stack:
        """The ordered slices, known from the headers."""
        choices = self.choices if self.series_uid is None else replace(self.choices, series_uid=self.series_uid)
        stack = find_stack(scan_folder(Path(self.folder), deep=self.deep), choices)
        for note in stack.notes:
            _LOG.warning("%s: %s", Path(self.folder).name, note)
        return stack

    @cached_property
    def _grid(self) -> Header:
        """The stored grid in the form that ``orientation`` takes: axes (i, j, k) are column, row, slice."""
        affine = self.stack.affine[:, [2, 1, 0, 3]]
        return cast(Header, _Grid(Path(self.folder), self.stack.shape[::-1], affine))

    @cached_property
    def _layout(self) -> Layout:
        return layout_of(self._grid, self.choices.oblique)

    @property
    def geometry(self) -> Geometry:
        """The scan's grid, from the headers."""
        return self._layout.geometry

    @property
    def has_lung(self) -> bool:
        """Whether a lung mask was given."""
        return self.lung is not None

    @property
    def has_lesion(self) -> bool:
        """Whether a lesion mask was given."""
        return self.lesion is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """What was taken with a warning: files passed over, compression with loss, a grid that was resampled."""
        return (*self.stack.notes, *self._layout.notes)

    @property
    def resampled(self) -> bool:
        """Whether the canonical grid has other voxels than the files."""
        return self._layout.resample or self.stack.between is not None

    def stored_slices(self, mask: AnyMask) -> Iterator[Bool[np.ndarray, "row column"]]:
        """A mask of the canonical grid in the files' own order of slices (along their normal), rows and columns, a slice at a time.

        Where the scan was resampled, each of the files' voxels takes the value of the nearest voxel of the mask.
        """
        layout = self._layout
        if not self.resampled and layout.streams:
            order = range(mask.geometry.shape[0])[:: -1 if layout.flipped[0] else 1]
            yield from (np.ascontiguousarray(layout.turn_plane_back(mask.slice(index))) for index in order)
            return
        whole = mask if isinstance(mask, Mask) else mask.mask()
        yield from _nearest(whole, self.stack) if self.resampled else layout.turn_back(whole.voxels)

    def read(self) -> tuple[Volume, Mask | None, Mask | None]:
        """The whole scan with its lung and lesion masks.

        Raises:
            InputError: Whatever keeps a file from being read, or a mask from fitting.
        """
        lung, lesion = self._masks()
        volume = self.read_volume()
        check = FlipCheck(self.geometry.shape)
        for part in _parts(volume.hu, lung, lesion):
            check.see(part.index, part.hu, part.lung, part.lesion)
        check.finish(self.lung, self.lesion)
        return volume, lung, lesion

    def read_volume(self) -> Volume:
        """The whole scan."""
        layout, stack = self._layout, self.stack
        voxels_needed = 2 * math.prod(stack.stored_shape) * np.dtype(_dtype(stack.frames)).itemsize
        require_memory(
            voxels_needed, f"The series, {' x '.join(map(str, stack.stored_shape))} voxels (slices, rows, columns),"
        )
        if not layout.resample and stack.between is None:
            voxels = np.empty(layout.geometry.shape, _dtype(stack.frames))
            _fill(layout.turn_back(voxels), stack)
            return Volume(voxels, layout.geometry)
        stored = np.empty(stack.stored_shape, _dtype(stack.frames))
        _fill(stored, stack)
        stored = stored if stack.between is None else _interpolate(stored, stack.between)
        if layout.resample:
            return Volume(
                resample(stored, self._grid, layout.geometry, nearest=False, background=AIR_HU), layout.geometry
            )
        return Volume(np.ascontiguousarray(layout.turn(stored)), layout.geometry)

    def slices(self) -> Iterator[CaseSlice]:
        """Every slice from foot to head; the scan in constant memory if its files are axial and need no resampling.

        What only the whole series shows (values that are not HU, mirrored masks) is raised in the end: trust nothing of a
        case before the iteration is over.

        Raises:
            InputError: Whatever keeps a file from being read, or a mask from fitting.
        """
        check = FlipCheck(self.geometry.shape)
        for part in _parts(self._planes(), *self._masks()):
            check.see(part.index, part.hu, part.lung, part.lesion)
            yield part
        check.finish(self.lung, self.lesion)

    def checksums(self) -> dict[str, str]:
        """SHA-256 of every file of the series and of the masks, by what they are and base name."""
        scans = [("scan", path) for path in dict.fromkeys(frame.path for frame in self.stack.frames)]
        masks = [(role, path) for role, path in (("lung", self.lung), ("lesion", self.lesion)) if path]
        sums: dict[str, str] = {}
        for role, path in (*scans, *masks):
            name, n = f"{role} {path.name}", 2
            while name in sums:
                name, n = f"{role} {path.name} ({n})", n + 1
            sums[name] = sha256(path)
        choices = self.choices if self._layout.resample else replace(self.choices, oblique="refuse")
        return sums | {"how it is read": digest((self.lung_labels, self.lesion_labels, choices))}

    def _masks(self) -> tuple[Mask | None, Mask | None]:
        return self._mask(self.lung, self.lung_labels), self._mask(self.lesion, self.lesion_labels)

    def _mask(self, path: Path | None, labels: Labels) -> Mask | None:
        if path is None:
            return None
        chosen, declared = labels.chosen, labels.declared
        return read_mask(path, self.geometry, labels=chosen, declared=declared, oblique=self.choices.oblique)

    def _planes(self) -> Iterator[np.ndarray]:
        layout = self._layout
        if not layout.streams or self.stack.between is not None:
            yield from self.read_volume().hu
            return
        for _, hu in _hu_slices(self.stack, backwards=layout.flipped[0]):
            yield layout.turn_plane(hu)


def _parts(slices: Iterable[np.ndarray], lung: Mask | None, lesion: Mask | None) -> Iterator[CaseSlice]:
    for index, hu in enumerate(slices):
        yield CaseSlice(
            index,
            hu,
            None if lung is None else lung.voxels[index],
            None if lesion is None else lesion.voxels[index],
        )


@dataclass(frozen=True, eq=False)
class _Grid:
    path: Path
    shape: tuple[int, ...]
    affine: np.ndarray


def _dtype(frames: tuple[Frame, ...]) -> type[np.int16] | type[np.float32]:
    """int16 where every rescale is whole, as it nearly always is."""
    numbers = {number for frame in frames for number in (frame.slope or 0.0, frame.intercept or 0.0)}
    return np.int16 if all(number.is_integer() for number in numbers) else np.float32


def _fill(stored: np.ndarray, stack: Stack) -> None:
    for slot, hu in _hu_slices(stack):
        stored[slot] = hu


def _interpolate(stored: np.ndarray, between: np.ndarray) -> np.ndarray:
    """Slices at fractional places between the stored ones, linear, in the dtype of ``stored``."""
    wanted = np.empty((len(between), *stored.shape[1:]), stored.dtype)
    for index, place in enumerate(between):
        low = min(int(place), len(stored) - 2)
        share = np.float32(place - low)
        plane = stored[low] * (1 - share) + stored[low + 1] * share
        wanted[index] = np.rint(plane) if stored.dtype == np.int16 else plane
    return wanted


def _nearest(mask: Mask, stack: Stack) -> Bool[np.ndarray, "slice row column"]:
    """The mask at the voxels of the files, each by its own position."""
    stored = np.zeros(stack.stored_shape, np.bool_)
    row, column = stack.affine[:3, 1], stack.affine[:3, 2]
    for slot, frame in zip(stack.slots, stack.frames, strict=True):
        stored[slot] = nearest_plane(mask, np.asarray(frame.position_mm), row, column, stored.shape[1:])
    return stored


def _hu_slices(stack: Stack, *, backwards: bool = False) -> Iterator[tuple[int, np.ndarray]]:
    """Each slice's number and HU (row, column), each once; doubled images are compared.

    Raises:
        SeriesError: Two different images at one position (``E_DUP``).
        IntensityError: No value below 0 (``E_NOT_HU``).
    """
    way = slice(None, None, -1 if backwards else 1)
    frames, slots = stack.frames[way], stack.slots[way]
    tally, last = _Tally(_dtype(stack.frames)), -1
    before = frames[0], np.empty(0)
    with closing(decode(frames)) as planes:
        for frame, slot, stored in zip(frames, slots, planes, strict=True):
            hu = tally.to_hu(stored, frame)
            if slot == last:
                _require_identical(before, (frame, hu))
                continue
            yield slot, hu
            before, last = (frame, hu), slot
    tally.close(frames[0].path.parent.name)


def _require_identical(one: tuple[Frame, np.ndarray], other: tuple[Frame, np.ndarray]) -> None:
    names = f"{one[0].path.name} and {other[0].path.name}"
    if not np.array_equal(one[1], other[1]):
        raise SeriesError(
            f"{names} are two different images at one position. Are there several acquisitions in the series? "
            "Put the files of one in a folder of their own.",
            code="E_DUP",
        )
    _LOG.warning("%s are the same image twice; one was dropped", names)


class _Tally:
    """Turns stored values into HU, and keeps count of what is odd about them over a whole series."""

    def __init__(self, dtype: type[np.int16] | type[np.float32]) -> None:
        self._dtype = dtype
        self._lowest, self._highest = np.inf, -np.inf
        self._voxels = self._padded = self._below_air = 0

    def to_hu(self, stored: np.ndarray, frame: Frame) -> np.ndarray:
        """HU of one slice, with declared padding set to air."""
        hu = _rescale(stored, frame, self._dtype)
        padding = _padding(stored, frame)
        if padding is not None:
            hu[padding] = AIR_HU
            self._padded += int(np.count_nonzero(padding))
        self._voxels += hu.size
        self._below_air += int(np.count_nonzero(hu < AIR_HU))
        self._lowest, self._highest = min(self._lowest, float(hu.min())), max(self._highest, float(hu.max()))
        return hu

    def close(self, folder: str) -> None:
        """Judge the whole series: log padding, refuse what cannot be HU."""
        if self._lowest >= 0:
            raise IntensityError(
                f"Values of the series in {folder} run from {self._lowest:g} to {self._highest:g}: no air, so they are not HU."
            )
        if self._padded:
            _LOG.warning("%s: %.1f %% of voxels are declared padding; set to %d HU", folder, *self._share(self._padded))
        if self._below_air:
            _LOG.warning(
                "%s: %.1f %% of voxels lie below %d HU, down to %g, and are not declared as padding; kept as they are",
                folder,
                *self._share(self._below_air),
                self._lowest,
            )

    def _share(self, n: int) -> tuple[float, int]:
        return 100 * n / self._voxels, AIR_HU


def _rescale(stored: np.ndarray, frame: Frame, dtype: type[np.int16] | type[np.float32]) -> np.ndarray:
    slope, intercept = frame.slope or 1.0, frame.intercept or 0.0
    if dtype is np.float32:
        return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    hu = stored.astype(np.int32)
    hu *= int(slope)
    hu += int(intercept)
    return np.clip(hu, _INT16.min, _INT16.max).astype(np.int16)


def _padding(stored: np.ndarray, frame: Frame) -> np.ndarray | None:
    """Which voxels the file declares to be padding; None if it declares none, or tissue by a common mistake."""
    if frame.padding is None:
        return None
    low, high = frame.padding
    if -1000 < high * (frame.slope or 1.0) + (frame.intercept or 0.0) < 3071:
        return None
    return (stored >= low) & (stored <= high)


def peek_stored(folder: str | Path, most: int = 64) -> tuple[np.ndarray, ...]:
    """Stored values of images that cannot be read as a CT series, to see what they are; nothing is rescaled or ordered.

    Args:
        folder: Searched with its subfolders; or one multi-frame file.
        most: How many images at most, of the commonest size.

    Raises:
        FileFormatError: Pixels that are cut off or cannot be decoded.
        SeriesError: The folder does not exist.
    """
    frames = [frame for series in scan_folder(Path(folder)).series.values() for frame in series]
    frames = [frame for frame in frames if frame.rows and frame.columns and frame.samples == 1]
    if not frames:
        return ()
    sizes = [(frame.rows, frame.columns) for frame in frames]
    common = max(sizes, key=sizes.count)
    picked = [frame for frame, size in zip(frames, sizes, strict=True) if size == common][:most]
    with closing(decode(picked)) as planes:
        return tuple(planes)
