"""What a NIfTI file and a gzip stream declare, worked out from their bytes alone: no reader of lungshift's, no nibabel.

Field offsets and the quaternion are those of nifti1.h and nifti2.h (https://nifti.nimh.nih.gov/), members and trailers those of RFC 1952.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np

_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_FIELDS = {
    348: {
        "dim": (40, "8h"), "datatype": (70, "h"), "pixdim": (76, "8f"), "vox_offset": (108, "f"), "slope": (112, "f"), "inter": (116, "f"),
        "units": (123, "B"), "qform": (252, "h"), "sform": (254, "h"), "quatern": (256, "3f"), "offset": (268, "3f"), "srow": (280, "12f"),
    },
    540: {
        "dim": (16, "8q"), "datatype": (12, "h"), "pixdim": (104, "8d"), "vox_offset": (168, "q"), "slope": (176, "d"), "inter": (184, "d"),
        "units": (500, "i"), "qform": (344, "i"), "sform": (348, "i"), "quatern": (352, "3d"), "offset": (376, "3d"), "srow": (400, "12d"),
    },
}  # fmt: skip
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


class NothingDeclaredError(Exception):
    """The bytes declare no volume."""


@dataclass(frozen=True)
class Declared:
    """A volume as its file declares it: true values by (k, j, i), and (i, j, k, 1) to LPS mm."""

    values: np.ndarray
    affine: np.ndarray
    whole: bool


def declared_volume(data: bytes) -> Declared:
    """The volume of the bytes of a whole, inflated NIfTI file."""
    size, order = next(
        ((size, order) for order in "<>" for size in _FIELDS if data[:4] == struct.pack(order + "i", size)), (0, "")
    )
    if not size or len(data) < size:
        raise NothingDeclaredError
    field = {name: struct.unpack_from(order + form, data, at) for name, (at, form) in _FIELDS[size].items()}
    shape = [int(n) for n in field["dim"][1:4]]
    code = field["datatype"][0]
    if min(shape) < 1 or code not in _TYPES or not np.isfinite(field["vox_offset"][0]):
        raise NothingDeclaredError
    dtype = np.dtype(_TYPES[code]).newbyteorder(order)
    start = int(field["vox_offset"][0]) or size + 4
    count = shape[0] * shape[1] * shape[2]
    if start < 0 or start + count * dtype.itemsize > len(data):
        raise NothingDeclaredError
    stored = np.frombuffer(data, dtype, count, start).reshape(shape[::-1])
    slope, inter = field["slope"][0], field["inter"][0]
    if slope and np.isfinite(slope):
        with np.errstate(all="ignore"):
            stored = stored.astype(np.longdouble) * slope + inter
    return Declared(stored, _affine(field, single=size == 348), dtype.kind != "f")


def _affine(field: dict[str, tuple], *, single: bool) -> np.ndarray:
    affine = np.eye(4)
    if field["sform"][0] > 0:
        affine[:3] = np.reshape(field["srow"], (3, 4))
    elif field["qform"][0] > 0:
        affine[:3] = _of_quaternion(field, 4e-7 if single else 1e-7)
    else:
        raise NothingDeclaredError
    affine[:3] *= _MM.get(int(field["units"][0]) & 7, 1.0)
    return _LPS @ affine


def _of_quaternion(field: dict[str, tuple], rounding: float) -> np.ndarray:
    b, c, d = (float(x) for x in field["quatern"])
    square = 1 - (b * b + c * c + d * d)
    a = square**0.5 if square > 0 else 0.0
    if square < rounding:  # half a turn: the vector alone decides, and is taken as one of length 1
        a, (b, c, d) = 0.0, np.array([b, c, d]) / np.linalg.norm([b, c, d])
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    sizes = np.array(field["pixdim"][1:4], float) * [1, 1, -1 if field["pixdim"][0] < 0 else 1]
    return np.column_stack([turn * sizes, field["offset"]])


@dataclass(frozen=True)
class Stream:
    """What a gzip stream holds: its bytes, whether every member is sound, and what follows the last one."""

    data: bytes
    sound: bool
    trailing: bytes


def inflated(stream: bytes, most: int) -> Stream:
    """Inflate every member up to ``most`` bytes in all, with CRC and length checked."""
    out, at = b"", 0
    while stream[at : at + 2] == b"\x1f\x8b":
        try:
            at = _after_header(stream, at)
            inflater = zlib.decompressobj(-15)
            data = inflater.decompress(stream[at:], most - len(out) + 1)
        except (zlib.error, IndexError, ValueError):
            return Stream(out, sound=False, trailing=b"")
        at = len(stream) - len(inflater.unused_data)
        if not inflater.eof or stream[at : at + 8] != struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF):
            return Stream(out + data, sound=False, trailing=b"")
        out, at = out + data, at + 8
        zeros = len(stream) - at - len(stream[at:].lstrip(b"\0"))
        at += zeros
    return Stream(out, sound=bool(at), trailing=stream[at:])


def _after_header(stream: bytes, at: int) -> int:
    method, flags = stream[at + 2], stream[at + 3]
    if method != 8 or flags & 0xE0:
        raise ValueError
    end = at + 10
    if flags & 4:
        end += 2 + struct.unpack_from("<H", stream.ljust(end + 2, b"\0"), end)[0]
    for flag in (8, 16):
        if flags & flag:
            end = stream.index(b"\0", end) + 1
    if flags & 2:
        if stream[end : end + 2] != struct.pack("<H", zlib.crc32(stream[at:end]) & 0xFFFF):
            raise ValueError
        end += 2
    if end > len(stream):
        raise ValueError
    return end
