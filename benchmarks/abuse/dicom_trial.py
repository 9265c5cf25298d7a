"""What lungshift makes of one damaged DICOM file, judged by the undamaged slice and by what pydicom finds declared.

Uncompressed files are read as a user reads them, the damaged slice among four sound ones. Starting a decoder's process for each compressed file would
take an hour, so their headers are read as always, and their pixels go through the same process with the same limits, many files to a process.
"""

from __future__ import annotations

import io
import subprocess
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from benchmarks.abuse.dicom_files import (
    COMPRESSED,
    DAMAGED,
    SLICES,
    DamagedDicom,
    damaged_dicom,
    damaged_real,
    sound_file,
)
from lungshift.errors import LungshiftError
from lungshift.io import dicom_decode
from lungshift.io.dicom import DicomSource
from lungshift.io.dicom_header import Frame
from lungshift.io.dicom_series import Choices, find_stack, scan_folder

FOLDERS = 40
"""Compressed files to one decoder's process."""
_CHOICES = Choices(min_slices=2)


@dataclass
class Told:
    """What became of one file; ``seconds`` is what reading it took, its share of a process's start not counted."""

    number: int
    file: DamagedDicom
    verdict: str = ""
    words: str = ""
    seconds: float = 0.0

    def as_line(self) -> dict:
        """What is said of it."""
        return {
            "number": self.number, "source": self.file.source, "kind": self.file.kind,
            "verdict": self.verdict, "words": self.words, "seconds": round(self.seconds, 3),
        }  # fmt: skip


def try_dicom(first: int, last: int, folder: Path) -> Iterator[dict]:
    """Judge the files of these numbers; a number alone is said before its file is touched."""
    waiting: list[tuple[Told, Path, list[Frame]]] = []
    for number in range(first, last):
        yield {"began": number}
        told = Told(number, damaged_dicom(number))
        place = _series(told.file, folder / str(number % FOLDERS))
        began = time.monotonic()
        compressed = told.file.source in COMPRESSED
        frames = _headers(told, place) if compressed else _whole(told, place)
        told.seconds = time.monotonic() - began
        if frames:
            waiting.append((told, place, frames))
        else:
            yield told.as_line()
        if len(waiting) == FOLDERS - 1 or (number + 1) % FOLDERS == 0 or number == last - 1:
            yield from _decoded(waiting)
            waiting = []


def _series(file: DamagedDicom, place: Path) -> Path:
    """The damaged file among sound slices, or alone where it is the whole series."""
    place.mkdir(parents=True, exist_ok=True)
    for path in place.iterdir():
        path.unlink()
    if "multi-frame" not in file.source:
        for k in range(SLICES):
            if k != DAMAGED:
                (place / f"{k}.dcm").write_bytes(sound_file("explicit", k))
    (place / f"{DAMAGED}.dcm").write_bytes(file.data)
    return place


def _refusal(told: Told, error: Exception) -> None:
    if isinstance(error, LungshiftError):
        told.verdict, told.words = ("refused" if error.exit_code == 1 else "resources"), error.code
    else:
        told.verdict, told.words = "untyped", f"{type(error).__name__}: {error}"[:200]


# --- as a user reads them


def try_whole(first: int, last: int, folder: Path) -> Iterator[dict]:
    """Judge the compressed files among these numbers, each read whole with a decoder's process of its own."""
    for number in range(first, last):
        told = Told(number, damaged_dicom(number))
        if told.file.source not in COMPRESSED:
            continue
        yield {"began": number}
        place = _series(told.file, folder / "whole")
        began = time.monotonic()
        try:
            volume = DicomSource(place, choices=_CHOICES).read_volume()
        except Exception as error:  # that is what is looked for
            _refusal(told, error)
        else:
            same = volume.hu.shape[0] == SLICES and not _difference(volume, *_decoded_points(told.file.source))
            told.verdict, told.words = ("accepted", "unchanged") if same else ("other", "other pixels, without a sign")
        told.seconds = time.monotonic() - began
        yield told.as_line()


@cache
def _decoded_points(source: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every voxel of the undamaged series, decoded by pydicom."""
    ds = _parsed(sound_file(source, DAMAGED))
    ds.decompress()
    files = [ds] if "multi-frame" in source else [ds, *_neighbours()]
    parts = [part for one in files for part in _points_of(one)]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))  # type: ignore[return-value]


def _neighbours() -> list[Dataset]:
    return [_parsed(sound_file("explicit", k)) for k in range(SLICES) if k != DAMAGED]


def try_real(first: int, last: int, folder: Path, *, series: Path) -> Iterator[dict]:
    """Judge damages to the third of five slices of a real series, read whole."""
    paths = sorted(series.iterdir(), key=lambda path: float(pydicom.dcmread(path).ImagePositionPatient[2]))[20:25]
    sound = None
    for number in range(first, last):
        yield {"began": number}
        for path in paths:
            (folder / path.name).write_bytes(path.read_bytes())
        if sound is None:
            sound = DicomSource(folder, choices=_CHOICES).read_volume()
        file = damaged_real(paths[2].read_bytes(), number)
        (folder / paths[2].name).write_bytes(file.data)
        told, began = Told(number, file), time.monotonic()
        try:
            volume = DicomSource(folder, choices=_CHOICES).read_volume()
        except Exception as error:  # that is what is looked for
            _refusal(told, error)
        else:
            same = np.array_equal(volume.hu, sound.hu) and not volume.geometry.difference(sound.geometry)
            told.verdict, told.words = ("accepted", "unchanged") if same else ("other", "other pixels, without a sign")
        told.seconds = time.monotonic() - began
        yield told.as_line()


# --- uncompressed


def _whole(told: Told, place: Path) -> list[Frame]:
    try:
        source = DicomSource(place, choices=_CHOICES)
        volume, noted = source.read_volume(), any("pixels" in note for note in source.notes)
    except Exception as error:  # that is what is looked for
        _refusal(told, error)
        return []
    told.verdict, told.words = _judge(volume, told.file)
    told.words += ", and a note says so" if noted else ""
    return []


def _judge(volume: object, file: DamagedDicom) -> tuple[str, str]:
    points, values, padded = _sound_points(file.source)
    if not _difference(volume, points, values, padded):
        return "accepted", "unchanged"
    try:
        points, values, padded = _declared_points(file)
    except Exception as error:  # pydicom raises whatever the damage leads to
        return "wrong", f"accepted, but pydicom finds no image ({type(error).__name__})"
    difference = _difference(volume, points, values, padded)
    return ("wrong", difference) if difference else ("other", "as the damaged file declares")


def _difference(volume, points: np.ndarray, values: np.ndarray, padded: np.ndarray) -> str:  # type: ignore[no-untyped-def]
    """In words, where voxels are not at points, or have other values than these."""
    from scipy.spatial import cKDTree

    if volume.hu.size != len(values):
        return f"{volume.hu.size} voxels for {len(values)}"
    world = volume.geometry.world_mm(np.indices(volume.geometry.shape).reshape(3, -1).T)
    distance, nearest = cKDTree(points).query(world)
    if distance.max() > 0.15:
        return f"a voxel {distance.max():.3g} mm from where it is declared"
    off = np.abs(volume.hu.reshape(-1) - values[nearest].clip(-32768, 32767))
    off[padded[nearest] & (volume.hu.reshape(-1) == -1024)] = 0
    return "" if off.max() <= 0.501 else f"HU off by {off.max():.3g}"


@cache
def _sound_points(source: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return _declared_points(DamagedDicom(sound_file(source, DAMAGED), source, ""))


def _declared_points(file: DamagedDicom) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every voxel of the series as pydicom and the standard have it: where it is, its HU, and whether it is declared padding."""
    files = [file.data]
    if "multi-frame" not in file.source:
        files += [sound_file("explicit", k) for k in range(SLICES) if k != DAMAGED]
    parts = [part for data in files for part in _points_of(_parsed(data))]
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))  # type: ignore[return-value]


def _parsed(data: bytes) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(io.BytesIO(data), force=True)


def _points_of(ds: Dataset) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    rows, columns = int(ds.Rows), int(ds.Columns)
    for index in range(len(ds.get("PerFrameFunctionalGroupsSequence") or [None])):
        stored = _stored(ds, index, rows, columns)
        position, cosines, spacing, slope, intercept = (np.array(x, float) for x in _place(ds, index))
        row, column = np.indices((rows, columns)).reshape(2, -1)
        points = position + column[:, None] * cosines[:3] * spacing[1] + row[:, None] * cosines[3:] * spacing[0]
        padded = np.zeros(stored.size, bool)
        if "PixelPaddingValue" in ds:
            padded = stored.reshape(-1) == ds.PixelPaddingValue
        yield points, stored.reshape(-1) * slope + intercept, padded


def _stored(ds: Dataset, index: int, rows: int, columns: int) -> np.ndarray:
    if ds.BitsAllocated != 16:
        raise ValueError
    order = "<" if ds.original_encoding[1] else ">"
    data = np.frombuffer(ds.PixelData, f"{order}u2", rows * columns, 2 * rows * columns * index).astype(np.int64)
    data &= (1 << ds.BitsStored) - 1
    if ds.PixelRepresentation == 1:
        data -= (data >> (ds.BitsStored - 1)) << ds.BitsStored
    return data


def _place(ds: Dataset, index: int) -> tuple:
    def first(group: str, keyword: str) -> object:
        for holder in (ds.get("PerFrameFunctionalGroupsSequence"), ds.get("SharedFunctionalGroupsSequence")):
            item = holder[index if len(holder) > 1 else 0] if holder else None
            if item is not None and group in item and keyword in item[group][0]:
                return item[group][0][keyword].value
        return ds[keyword].value

    return (
        first("PlanePositionSequence", "ImagePositionPatient"),
        first("PlaneOrientationSequence", "ImageOrientationPatient"),
        first("PixelMeasuresSequence", "PixelSpacing"),
        first("PixelValueTransformationSequence", "RescaleSlope"),
        first("PixelValueTransformationSequence", "RescaleIntercept"),
    )


# --- compressed


def _headers(told: Told, place: Path) -> list[Frame]:
    """The frames of the damaged file that are to be decoded; none if the series was refused."""
    try:
        stack = find_stack(scan_folder(place), _CHOICES)
    except Exception as error:  # that is what is looked for
        _refusal(told, error)
        return []
    frames = [frame for frame in stack.frames if frame.path.name == f"{DAMAGED}.dcm"]
    if not frames:
        told.verdict, told.words = "wrong", "a slice is missing, and the series was accepted"
    return frames


def _decoded(waiting: list[tuple[Told, Path, list[Frame]]]) -> Iterator[dict]:
    """Decode the frames of many files in as few processes as their damages allow."""
    left = list(waiting)
    while left:
        frames = [frame for _, _, several in left for frame in several]
        with subprocess.Popen(
            dicom_decode.WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as worker:
            try:
                dicom_decode._ask(worker, frames)
                dicom_decode._answer(worker, frames[0], dicom_decode.START_LIMIT_S)
                while left and worker.poll() is None:
                    told, _, several = left.pop(0)
                    yield {"began": told.number}
                    alive = _decode_one(told, worker, several)
                    yield told.as_line()
                    if not alive:
                        break
            finally:
                worker.kill()


def _decode_one(told: Told, worker: subprocess.Popen[bytes], frames: list[Frame]) -> bool:
    """Judge one file; whether the process goes on with the next."""
    began, planes, alive = time.monotonic(), [], True
    for frame in frames:
        try:
            planes.append(dicom_decode._answer(worker, frame, dicom_decode.FRAME_LIMIT_S))
        except Exception as error:  # that is what is looked for
            _refusal(told, error)
            told.words += _how(error)
            alive = "crashed" not in str(error) and "did not end" not in str(error) and "instead of" not in str(error)
            if not alive:
                break
    told.seconds += time.monotonic() - began
    if not told.verdict:
        told.verdict, told.words = _judge_planes(told.file, frames, planes)
    return alive


def _how(error: Exception) -> str:
    return next((f", {words}" for words in ("crashed", "did not end") if words in str(error)), "")


def _judge_planes(file: DamagedDicom, frames: list[Frame], planes: list[np.ndarray]) -> tuple[str, str]:
    try:
        declared = [_place(_parsed(file.data), frame.index) for frame in frames]
    except Exception as error:  # pydicom raises whatever the damage leads to
        return "wrong", f"accepted, but pydicom finds no place ({type(error).__name__})"
    own = [(f.position_mm, f.orientation, f.spacing_mm, f.slope, f.intercept) for f in frames]
    for one, other in zip(own, declared, strict=True):
        if not all(np.allclose(np.array(a, float), np.array(b, float)) for a, b in zip(one, other, strict=True)):
            return "wrong", "another place or rescale than declared"
    if len(planes) != len(_sound_planes(file.source)):
        return "other", "fewer frames, as declared"
    same = all(np.array_equal(a, b) for a, b in zip(planes, _sound_planes(file.source), strict=True))
    if not same:
        return "other", "other pixels, without a sign"
    sound = _parsed(sound_file(file.source, DAMAGED))
    moved = any(not _same(place, _place(sound, frame.index)) for place, frame in zip(declared, frames, strict=True))
    return ("other", "as the damaged file declares") if moved else ("accepted", "unchanged")


def _same(one: tuple, other: tuple) -> bool:
    return all(np.array_equal(np.array(a, float), np.array(b, float)) for a, b in zip(one, other, strict=True))


@cache
def _sound_planes(source: str) -> list[np.ndarray]:
    """The stored values of the undamaged file, by pydicom."""
    ds = _parsed(sound_file(source, DAMAGED))
    return list(ds.pixel_array.reshape(-1, ds.Rows, ds.Columns))
