"""A cohort as integer pictures on disk: made once in one pass, then read as memory maps."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast, get_args

import numpy as np
from jaxtyping import Bool, Int16

from lungshift.ct.case import CaseRecord, CaseSlice, Cohort, LungSource
from lungshift.errors import CohortError, ProtocolError
from lungshift.files import new_folder, require_room, reserve, sweep, write_json
from lungshift.memory import keep_freed_memory
from lungshift.prepare.grid import AIR_HU, Interpolation, SliceGrid
from lungshift.prepare.lungmask import threshold_lungs
from lungshift.prepare.slices import SLICE_DTYPE, describe_slice

_FORMAT = 2
_TOP_HU = 3071
_LUNG, _LESION = 1, 2
Place = tuple[slice, slice]
"""Rows and columns of a part of a picture."""
WHOLE: Place = (slice(None), slice(None))
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedCase:
    """A case of a prepared cohort: who it is, and the size of its own slices."""

    case_id: str
    patient_id: str
    slices: int
    rows: int
    columns: int
    spacing_mm: tuple[float, float, float]
    lung_source: LungSource
    site: str = ""

    @property
    def packed_bytes(self) -> int:
        """Bytes of a mask of one of its slices, eight pixels in each."""
        return _packed(self.rows, self.columns)


@dataclass(frozen=True, eq=False)
class PreparedCohort:
    """Every slice of a cohort as a square picture in HU with its masks, memory-mapped.

    Attributes:
        folder: Where it lies.
        key: SHA-256 of what it was made from and how; two cohorts of one key are the same pictures.
        table: One row per slice, see ``SLICE_DTYPE``.
        checksums: SHA-256 of the files that each case was read from.
        size: Rows and columns of the pictures.
    """

    folder: Path
    name: str
    key: str
    size: int
    interpolation: Interpolation
    cases: tuple[PreparedCase, ...]
    table: np.ndarray
    checksums: dict[str, dict[str, str]]
    licence: str = ""

    def __getstate__(self) -> dict[str, Any]:
        """Without what was read since: another process opens the files itself."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _pictures(self) -> Int16[np.ndarray, "slice size size"]:
        return _load(self.folder / "hu.npy", mmap_mode="r")

    @cached_property
    def _masks(self) -> np.ndarray:
        return _load(self.folder / "masks.npy", mmap_mode="r")

    @cached_property
    def _native(self) -> np.ndarray:
        return np.memmap(self.folder / "native.bin", dtype=np.uint8, mode="r")

    @cached_property
    def _first_byte(self) -> np.ndarray:
        """Where each case begins in the file of lesions on their own pixels, and its end."""
        return np.cumsum([0, *(case.slices * case.packed_bytes for case in self.cases)])

    @cached_property
    def _first(self) -> np.ndarray:
        """Row at which each case begins, and the end of the last."""
        return np.cumsum([0, *(case.slices for case in self.cases)])

    @cached_property
    def patients(self) -> np.ndarray:
        """Patient of every slice of the table."""
        return np.array([case.patient_id for case in self.cases])[self.table["case"]]

    @cached_property
    def case_ids(self) -> np.ndarray:
        """Case of every slice of the table."""
        return np.array([case.case_id for case in self.cases])[self.table["case"]]

    def hu(self, row: int | np.integer, place: Place = WHOLE) -> Int16[np.ndarray, "row column"]:
        """A picture in HU, or a part of it."""
        return self._pictures[(row, *place)]

    def lung(self, row: int | np.integer, place: Place = WHOLE) -> Bool[np.ndarray, "row column"]:
        """The lung mask of a picture, or a part of it."""
        return self._masks[(row, *place)] & _LUNG != 0

    def lesion(self, row: int | np.integer, place: Place = WHOLE) -> Bool[np.ndarray, "row column"]:
        """The lesion mask of a picture, or a part of it."""
        return self._masks[(row, *place)] & _LESION != 0

    def native_lesion(self, row: int | np.integer) -> Bool[np.ndarray, "row column"]:
        """The lesion mask of a slice on the scan's own pixels."""
        number = int(self.table["case"][row])
        case = self.cases[number]
        start = int(self._first_byte[number]) + int(self.table["index"][row]) * case.packed_bytes
        bits = np.unpackbits(self._native[start : start + case.packed_bytes], count=case.rows * case.columns)
        return bits.view(bool).reshape(case.rows, case.columns)

    def neighbour(self, row: int | np.integer, distance_mm: float) -> int:
        """The slice that far towards the head (below 0: the foot), at least the next one; the last of the scan at its end."""
        number = int(self.table["case"][row])
        steps = slices_away(distance_mm, self.cases[number].spacing_mm[0])
        return int(np.clip(row + steps, self._first[number], self._first[number + 1] - 1))


def slices_away(distance_mm: float, slice_mm: float) -> int:
    """How many slices make a distance, at least one; below 0 towards the foot."""
    steps = max(1, round(abs(distance_mm) / slice_mm))
    return steps if distance_mm > 0 else -steps


def prepare_cohort(
    cohort: Cohort,
    folder: Path,
    *,
    size: int = 320,
    interpolation: Interpolation = "linear",
    progress: Callable[[int, int], None] | None = None,
) -> PreparedCohort:
    """Bring every slice of a cohort to a picture of ``size`` x ``size`` in whole HU, in one pass and constant memory.

    A cohort that was prepared before from the same files and with the same settings is opened, not made again. HU are
    rounded to int16 and kept between -1024 and 3071, so every level of a window of whole HU survives. Cases without a lung
    mask get one by threshold, which is recorded as such.

    Args:
        cohort: What to prepare.
        folder: Holds one folder for each prepared cohort; it is made where it is missing.
        size: Rows and columns of the pictures.
        interpolation: How CT values are resized.
        progress: Is told slices done and slices in all.

    Raises:
        ResourceError: The disk is full; nothing half-made is left.
        InputError: A file of the cohort cannot be used, named in the message.
    """
    if size < 16:
        raise ProtocolError(f"Pictures have at least 16 x 16 pixels; got a size of {size}.")
    keep_freed_memory()
    checksums = {case.case_id: case.checksums for case in cohort.cases}
    key = _key(cohort, checksums, size, interpolation)
    target = folder / f"{cohort.name}-{key[:12]}"
    sweep(folder)
    if not (target / "cohort.json").is_file():
        require_room(target, _takes(cohort, size))
        with new_folder(target, overwrite=True) as part:
            cases = _write_pictures(cohort, part, size, interpolation, progress)
            _write_description(part, cohort, key, size, interpolation, cases, checksums)
    return open_prepared(target)


def _takes(cohort: Cohort, size: int) -> int:
    """Bytes that the pictures, the masks and the lesions on their own pixels take."""
    shapes = [case.source.geometry.shape for case in cohort.cases]
    return sum(n * (3 * size * size + _packed(rows, columns)) for n, rows, columns in shapes)


def _packed(rows: int, columns: int) -> int:
    """Bytes of a mask of a slice, eight pixels in each."""
    return -(-rows * columns // 8)


def require_interpolation(name: str) -> Interpolation:
    """The interpolation of that name.

    Raises:
        ProtocolError: There is none.
    """
    for known in get_args(Interpolation):
        if name == known:
            return cast(Interpolation, known)
    raise ProtocolError(f"Interpolation is nearest or linear; got {name!r}.")


def open_prepared(folder: Path) -> PreparedCohort:
    """Open what ``prepare_cohort`` made.

    Raises:
        CohortError: There is no prepared cohort of this version in the folder.
    """
    try:
        text = json.loads((folder / "cohort.json").read_text())
        if text["format"] != _FORMAT:
            raise CohortError(
                f"{folder} was prepared in format {text['format']}, this version reads {_FORMAT}; prepare it again."
            )
        cases = tuple(PreparedCase(**case | {"spacing_mm": tuple(case["spacing_mm"])}) for case in text["cases"])
        names = ("name", "key", "size", "interpolation", "checksums", "licence")
        described = {name: text[name] for name in names}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CohortError(
            f"{folder} holds no prepared cohort (no readable cohort.json); run lungshift prepare."
        ) from error
    return PreparedCohort(folder=folder, cases=cases, table=_load(folder / "table.npy"), **described)


def _load(path: Path, mmap_mode: Literal["r"] | None = None) -> np.ndarray:
    """An array of plain numbers; one of objects would have to be unpickled, which may run code."""
    try:
        return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CohortError(
            f"{path} is damaged or not an array of numbers ({error}); prepare the cohort again."
        ) from error


def _key(cohort: Cohort, checksums: dict[str, dict[str, str]], size: int, interpolation: Interpolation) -> str:
    who = [(case.case_id, case.patient_id, case.lung_source) for case in cohort.cases]
    settings = [_FORMAT, cohort.name, who, checksums, size, interpolation]
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def _write_pictures(
    cohort: Cohort, folder: Path, size: int, interpolation: Interpolation, progress: Callable[[int, int], None] | None
) -> list[PreparedCase]:
    total = sum(case.source.geometry.shape[0] for case in cohort.cases)
    table, cases, first = np.zeros(total, dtype=SLICE_DTYPE), [], 0
    with (
        _SliceFile(folder / "hu.npy", np.dtype("<i2"), (total, size, size)) as pictures,
        _SliceFile(folder / "masks.npy", np.dtype("u1"), (total, size, size)) as masks,
        open(folder / "native.bin", "wb") as native,
    ):
        for number, record in enumerate(cohort.cases):
            n, rows, columns = record.source.geometry.shape
            grid, case, start = SliceGrid(rows, columns, size), _describe_case(record), native.tell()
            native.flush()
            reserve(native.fileno(), start + n * case.packed_bytes)
            for piece in _slices_with_lung(record):
                hu, lung, lesion = _picture(piece, grid, interpolation)
                pictures.write(first + piece.index, hu)
                masks.write(first + piece.index, _pack(lung, lesion))
                table[first + piece.index] = describe_slice(number, piece.index, lung, lesion)
                if piece.lesion is not None and piece.lesion.any():
                    native.seek(start + piece.index * case.packed_bytes)
                    native.write(np.packbits(piece.lesion).tobytes())
                if progress:
                    progress(first + piece.index + 1, total)
            first += n
            native.seek(0, os.SEEK_END)
            cases.append(case)
    np.save(folder / "table.npy", table)
    return cases


def _slices_with_lung(record: CaseRecord) -> Iterator[CaseSlice]:
    """The slices of a case as they come, or after a lung mask was made for the whole scan."""
    if record.source.has_lung:
        yield from record.source.slices()
        return
    _log.info("%s has no lung mask: one is made by threshold", record.case_id)
    volume, _, lesion = record.source.read()
    lung = threshold_lungs(volume).voxels
    for index, hu in enumerate(volume.hu):
        yield CaseSlice(index, hu, lung[index], None if lesion is None else lesion.voxels[index])


def _picture(
    piece: CaseSlice, grid: SliceGrid, interpolation: Interpolation
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    nothing = np.zeros((grid.size, grid.size), dtype=bool)
    lung = nothing if piece.lung is None else grid.mask(piece.lung)
    lesion = nothing if piece.lesion is None else grid.mask(piece.lesion)
    return _whole_hu(grid.image(piece.hu, interpolation)), lung, lesion


def _whole_hu(hu: np.ndarray) -> Int16[np.ndarray, "size size"]:
    """Rounded and kept between the ends; most slices are between them already, which is quicker to see than to clip."""
    if hu.dtype != np.int16:
        hu = np.rint(hu)
    if hu.min() < AIR_HU or hu.max() > _TOP_HU:
        hu = hu.clip(AIR_HU, _TOP_HU)
    return hu.astype("<i2", copy=False)


def _pack(lung: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """One byte for both masks; numpy adds four times faster than it shifts."""
    both = lesion.view(np.uint8) + lesion.view(np.uint8)
    both += lung.view(np.uint8)
    return both


def _describe_case(record: CaseRecord) -> PreparedCase:
    geometry = record.source.geometry
    source: LungSource = record.lung_source if record.source.has_lung else "threshold"
    return PreparedCase(record.case_id, record.patient_id, *geometry.shape, geometry.spacing_mm, source, record.site)


def _write_description(
    folder: Path,
    cohort: Cohort,
    key: str,
    size: int,
    interpolation: Interpolation,
    cases: list[PreparedCase],
    checksums: dict[str, dict[str, str]],
) -> None:
    text = {
        "format": _FORMAT,
        "name": cohort.name,
        "key": key,
        "size": size,
        "interpolation": interpolation,
        "licence": cohort.licence,
        "cases": [asdict(case) for case in cases],
        "checksums": checksums,
    }
    write_json(folder / "cohort.json", text)


class _SliceFile:
    """An ``.npy`` file whose slices are written one at a time, in any order, without mapping it."""

    def __init__(self, path: Path, dtype: np.dtype, shape: tuple[int, int, int]) -> None:
        self._dtype, self._shape = dtype, shape
        self._bytes = dtype.itemsize * shape[1] * shape[2]
        self._stream: BinaryIO = open(path, "wb")  # noqa: SIM115 — closed by __exit__

    def __enter__(self) -> _SliceFile:
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._stream, header)
        self._start = self._stream.tell()
        self._stream.flush()
        reserve(self._stream.fileno(), self._start + self._shape[0] * self._bytes)
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def write(self, index: int, array: np.ndarray) -> None:
        """Put one slice in its place."""
        data = np.ascontiguousarray(array, dtype=self._dtype).data.cast("B")
        at = self._start + index * self._bytes
        while data:
            done = os.pwrite(self._stream.fileno(), data, at)
            data, at = data[done:], at + done
