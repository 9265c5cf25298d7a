r"""Point tables: a row ``x,y,z,value`` for every voxel of a mask, as CSV, the way the source paper hands scans to ParaView.

The bytes are those of Python's ``csv.writer`` for the same numbers, coordinates with two decimals (0.01 mm), lines ending in
``\r\n``; they are made for thousands of rows at a time. Every number is a word of eight bytes from a table of texts, a row is
four such words, and what fills the words up is deleted in one go.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt64

from lungshift.ct.geometry import Geometry
from lungshift.errors import GeometryError, IntensityError
from lungshift.files import crc32, write_file

HEADER = b"x,y,z,value\r\n"
_HUNDREDTHS = 100
_FURTHEST_MM = 1e7
_ROWS = 8192
"""Rows made at a time: 256 KiB, which stay in the cache."""
_WORD = 8
_TOGETHER = 16
"""Pieces written by one call."""
_READ_BYTES = 1 << 18
_ONE = 1
"""The value of a lesion's voxel."""

Slice = tuple[int, np.ndarray | None, Bool[np.ndarray, "row column"]]
"""Index of a slice, its HU (None writes 1 as value), and which of its voxels are written."""


Piece = tuple[bytes | bytearray, int]
"""Part of the file, and how many rows it is."""


def write_points(path: Path, geometry: Geometry, slices: Iterable[Slice], *, z_step_mm: float | None = None) -> int:
    """Write the voxels of a mask as a table of points in LPS millimetres; memory does not grow with the number of slices.

    Args:
        path: The CSV file.
        geometry: Grid of the slices.
        slices: Index, HU and mask of one slice after another. HU that are not whole are rounded.
        z_step_mm: What the source paper does: z is the number of the slice times this, whatever the scan's own z is.

    Returns:
        The number of points.

    Raises:
        GeometryError: The grid lies further than 10 km from the origin.
        IntensityError: HU that 16 bits do not hold.
        ResourceError: The disk is full or the folder cannot be written.

    Source: Maganaris et al., arXiv 2205.02152, section on the 3-D representation.
    """
    rows, written, checksum = 0, 0, 0
    texts = _Texts.of(geometry, z_step_mm)

    def write(temporary: Path) -> None:
        nonlocal rows, written, checksum
        with open(temporary, "wb", buffering=0) as stream:
            for pieces in _batches(_pieces(texts, slices)):
                for piece, count in pieces:
                    checksum = crc32(piece, checksum)
                    written += len(piece)
                    rows += count
                _write_all(stream, [piece for piece, _ in pieces])

    write_file(path, write, lambda temporary: (written, checksum) == _read_back(temporary))
    return rows


@dataclass(frozen=True, eq=False)
class _Axis:
    """One coordinate as text: the same all over a slice, the same in all slices, or another for every voxel.

    Attributes:
        words: Texts of each slice, of each pixel, or of all numbers from ``lowest`` on: (text, words of a text).
        kind: Which of the three.
        lowest: The first number, in hundredths of a millimetre.
        step: Hundredths of a millimetre from slice to slice.
        plane: Hundredths of a millimetre of each pixel of slice 0.
    """

    words: UInt64[np.ndarray, "text word"]
    kind: Literal["slice", "pixel", "voxel"]
    lowest: int
    step: float
    plane: Float64[np.ndarray, " pixel"]

    @classmethod
    def of(cls, row: Float64[np.ndarray, "4"], shape: tuple[int, int, int]) -> _Axis:
        """The coordinate that a row of an affine gives."""
        slices, rows, columns = shape
        step, by_row, by_column, start = (float(part) for part in row * _HUNDREDTHS)
        if by_row == by_column == 0:
            numbers = np.rint(start + step * np.arange(slices)).astype(np.int64)
            return cls(_words(numbers, 2, b","), "slice", 0, step, np.zeros(0))
        plane = (start + by_row * np.arange(rows)[:, None] + by_column * np.arange(columns)).reshape(-1)
        reach = min(0.0, step * (slices - 1)), max(0.0, step * (slices - 1))
        lowest, highest = math.floor(plane.min() + reach[0]), math.ceil(plane.max() + reach[1])
        words = _words(np.arange(lowest, highest + 1), 2, b",")
        if step == 0:
            return cls(words[np.rint(plane).astype(np.int64) - lowest], "pixel", lowest, step, plane)
        return cls(words, "voxel", lowest, step, plane)

    def put(self, into: UInt64[np.ndarray, "point word"], index: int, pixels: Int64[np.ndarray, " point"]) -> None:
        """Write the texts of some pixels of a slice."""
        if self.kind == "slice":
            into[:] = self.words[index]
        elif self.kind == "pixel":
            _take(self.words, pixels, into)
        else:
            here = self.plane.take(pixels)
            here += index * self.step - self.lowest + 0.5  # positive, so cutting off rounds to the nearest
            _take(self.words, here.astype(np.int64), into)


@dataclass(frozen=True, eq=False)
class _Texts:
    """The texts of coordinates on one grid."""

    axes: tuple[_Axis, ...]

    @classmethod
    def of(cls, geometry: Geometry, z_step_mm: float | None) -> _Texts:
        affine = np.array(geometry.affine[:3])
        if z_step_mm is not None:
            affine[2] = (z_step_mm, 0, 0, 0)
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in geometry.shape], [1])).reshape(4, -1)
        if np.abs(affine @ corners).max() > _FURTHEST_MM:
            raise GeometryError("The scan lies further than 10 km from the origin of its coordinates.", code="E_AFFINE")
        return cls(tuple(_Axis.of(row, geometry.shape) for row in affine))

    @property
    def width(self) -> int:
        """Words of a row."""
        return sum(axis.words.shape[1] for axis in self.axes) + 1


@cache
def _values() -> UInt64[np.ndarray, " value"]:
    """The texts of 0 to 32767 and -32768 to -1, which is the order of 16 bits read without sign."""
    return _words(np.arange(2**16).astype(np.int16), 0, b"\r\n")[:, 0]


def _words(numbers: np.ndarray, decimals: int, end: bytes) -> UInt64[np.ndarray, "number word"]:
    """The texts of numbers given in units of the last decimal, as whole words; bytes that a text does not need are zero."""
    size = np.abs(numbers.astype(np.int64))
    digits = max(len(str(size.max())), decimals + 1)
    width = 1 + digits + (decimals > 0) + len(end)
    texts = np.zeros((len(numbers), -(-width // _WORD) * _WORD), np.uint8)
    texts[:, 0] = (numbers < 0) * ord("-")
    for power in range(digits):
        place = digits - power + (decimals > 0 and power < decimals)
        shown = (size >= 10**power) | (power <= decimals)
        texts[:, place] = shown * (size // 10**power % 10 + ord("0"))
    if decimals:
        texts[:, digits - decimals + 1] = ord(".")
    texts[:, width - len(end) : width] = np.frombuffer(end, np.uint8)
    return texts.view(np.uint64)


def _take(words: np.ndarray, numbers: np.ndarray, into: np.ndarray) -> None:
    if words.shape[1] == 1:
        into[:, 0] = words[:, 0].take(numbers)
    else:
        into[:] = words.take(numbers, axis=0)


def _pieces(texts: _Texts, slices: Iterable[Slice]) -> Iterator[Piece]:
    """The file piece by piece, each with its number of rows."""
    yield HEADER, 0
    room = bytearray(_ROWS * texts.width * _WORD)
    table = np.frombuffer(room, np.uint64).reshape(_ROWS, texts.width)
    for index, hu, mask in slices:
        pixels = np.flatnonzero(mask)
        values = None if hu is None else _whole(hu.reshape(-1).take(pixels))
        for start in range(0, len(pixels), _ROWS):
            some = slice(start, start + _ROWS)
            count = _fill(table, texts, index, pixels[some], None if values is None else values[some])
            full = room if count == _ROWS else room[: count * texts.width * _WORD]
            yield full.translate(None, b"\0"), count


def _fill(table: np.ndarray, texts: _Texts, index: int, pixels: np.ndarray, values: np.ndarray | None) -> int:
    """Write the words of some rows; says how many."""
    count, place = len(pixels), 0
    for axis in texts.axes:
        width = axis.words.shape[1]
        axis.put(table[:count, place : place + width], index, pixels)
        place += width
    if values is None:
        table[:count, place] = _values()[_ONE]
    else:
        table[:count, place] = _values().take(values.view(np.uint16))
    return count


def _whole(hu: np.ndarray) -> np.ndarray:
    if hu.dtype == np.int16:
        return hu
    rounded = np.rint(hu)
    if len(hu) and not (rounded.min() >= -(2**15) and rounded.max() < 2**15):
        raise IntensityError(
            f"A table of points holds whole HU from -32768 to 32767; the scan has {rounded.min():g} to {rounded.max():g}."
        )
    return rounded.astype(np.int16)


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    while some := list(islice(pieces, _TOGETHER)):
        yield some


def _write_all(stream: BinaryIO, pieces: list[bytes | bytearray]) -> None:
    """Write every byte in one call, or in more where a call takes only some, as it does when the disk fills up."""
    done = os.writev(stream.fileno(), pieces)
    for piece in pieces:
        rest = memoryview(piece)[min(done, len(piece)) :]
        done -= min(done, len(piece))
        while len(rest):
            rest = rest[os.write(stream.fileno(), rest) :]


def _read_back(path: Path) -> tuple[int, int]:
    """Length and CRC-32 of a file, read in pieces."""
    length = checksum = 0
    with open(path, "rb", buffering=0) as stream:
        while piece := stream.read(_READ_BYTES):
            checksum = crc32(piece, checksum)
            length += len(piece)
    return length, checksum
