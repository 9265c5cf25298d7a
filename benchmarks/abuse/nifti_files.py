"""Damaged NIfTI files by their number: headers with wrong bytes in sound files, and gzip streams with wrong bytes around a sound header.

The same number gives the same file on every machine, whatever was made before it.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import nibabel as nib
import numpy as np

SEED = 20261128
_SHAPE = (7, 6, 5)
_FLOATS = (
    *(np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, 2.0, -1024.0, 352.0, 368.0, 1e-3, 1e3),
    *(1e-6, 1e6, 1e-30, 1e30, 3.4e38, -3.4e38, 1e-44, 32767.0, 1e9, 0.7071),
)
_WHOLE = (*range(-1, 9), 16, 32, 64, 100, 128, 256, 512, 768, 1024, 1280, 1536, 2048, 2304, 1 << 14)
_TYPES = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")


@dataclass(frozen=True)
class DamagedFile:
    """One file: its bytes and name, what was done to it, and whether it is to be read as a scan or as a mask of one.

    ``truth`` is what the file holds where that is known from how it was made; else the oracle works it out.
    """

    data: bytes
    name: str
    kind: str
    mask: bool = False
    truth: bytes | None = None


def rng_of(suite: str, number: int) -> np.random.Generator:
    """The random numbers of one case."""
    return np.random.default_rng([SEED, zlib.crc32(suite.encode()), number])


# --- headers


@cache
def _orientations() -> tuple[np.ndarray, ...]:
    """Every axis order and flip, at an anisotropic size and some place."""
    from itertools import permutations, product

    turns = []
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        affine = np.zeros((4, 4))
        for axis, (world, sign, size) in enumerate(zip(order, signs, (0.7, 0.8, 2.5), strict=True)):
            affine[world, axis] = sign * size
        affine[:, 3] = (-31.25, 17.5, -400.0, 1)
        turns.append(affine)
    return tuple(turns)


@cache
def _sound_file(source: int) -> tuple[bytes, bool]:
    """The bytes of one of the files that headers are damaged in, and whether it is a mask."""
    rng = np.random.default_rng([SEED, source])
    mask = source % 5 == 4
    dtype = np.dtype(_TYPES[1] if mask else _TYPES[source % len(_TYPES)])
    order = "<>"[source // 3 % 2]
    kind = (nib.Nifti1Image, nib.Nifti1Image, nib.Nifti2Image)[source % 3]
    affine = np.diag([-0.7, -0.8, 2.5, 1.0]) if mask else _orientations()[source % 48]
    header = kind.header_class(endianness=order)
    header.set_data_dtype(dtype.newbyteorder(order))
    image = kind(_values(rng, dtype, mask).astype(dtype.newbyteorder(order)), affine, header)
    image.header.set_xyzt_units(("mm", "unknown")[source % 2])
    image.set_sform(affine, code=(1, 0, 2)[source // 2 % 3])
    image.set_qform(affine, code=(1, 1, 0)[source // 4 % 3] if image.header["sform_code"] else 1)
    if source % 7 == 6:
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 40))
    data = bytearray(image.to_bytes())
    if dtype.kind in "iu" and not mask and dtype.itemsize < 2:
        at, form = ((112, "2f"), (176, "2d"))[kind is nib.Nifti2Image]
        struct.pack_into(order + form, data, at, 8.0, -1024.0 if dtype.kind == "u" else 0.0)
    return bytes(data), mask


def _values(rng: np.random.Generator, dtype: np.dtype, mask: bool) -> np.ndarray:
    if mask:
        return rng.integers(0, 2, _SHAPE)
    low, high = {"i1": (-128, 50), "u1": (0, 180)}.get(dtype.str[1:], (-1000, 500))
    values = rng.integers(low, high, _SHAPE)
    values[0, 0, 0] = low
    return values + 1024 if dtype.kind == "u" and dtype.itemsize > 1 else values


def damaged_header(number: int) -> DamagedFile:
    """A sound file but for its header; every fourth is compressed afterwards, so that its gzip stream is sound."""
    rng = rng_of("header", number)
    data, mask = _sound_file(int(rng.integers(0, 240)))
    kind, damage = list(_HEADER_DAMAGES.items())[int(rng.choice(len(_HEADER_DAMAGES), p=_SHARES))]
    damaged = bytes(damage(bytearray(data), rng))
    compressed = number % 4 == 3
    return DamagedFile(
        gzip.compress(damaged, 1, mtime=0) if compressed else damaged,
        "scan.nii.gz" if compressed else "scan.nii",
        kind,
        mask,
        damaged,
    )


def _header_of(data: bytes) -> np.ndarray:
    """The header as a record whose fields can be set in place."""
    size = 540 if data[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else 348
    order = "<" if data[0] else ">"
    kind = {348: nib.Nifti1Header, 540: nib.Nifti2Header}[size]
    return np.frombuffer(data, kind.template_dtype.newbyteorder(order), 1)


def _random_bytes(data: bytearray, rng: np.random.Generator) -> bytearray:
    for where in rng.integers(4, _header_of(data).nbytes, rng.integers(1, 7)):
        data[where] = rng.integers(0, 256)
    return data


def _flipped_bits(data: bytearray, rng: np.random.Generator) -> bytearray:
    for where in rng.integers(0, _header_of(data).nbytes, rng.integers(1, 5)):
        data[where] ^= 1 << int(rng.integers(0, 8))
    return data


_FIELDS = (
    *("dim", "datatype", "bitpix", "pixdim", "vox_offset", "scl_slope", "scl_inter", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "magic"),
)  # fmt: skip


def _extreme_fields(data: bytearray, rng: np.random.Generator) -> bytearray:
    header = _header_of(data)
    for name in rng.choice(_FIELDS, rng.integers(1, 4)):
        flat = header[str(name)].reshape(-1)
        if flat.dtype.kind == "S":
            flat[0] = (b"ni1", b"n+2", b"n+1", b"", b"\xff")[rng.integers(0, 5)]
        else:
            flat[rng.integers(0, len(flat))] = _extreme(flat.dtype, rng)
    return data


def _extreme(dtype: np.dtype, rng: np.random.Generator) -> float | int:
    if dtype.kind == "f":
        return float(rng.choice(_FLOATS)) if rng.random() < 0.8 else float(rng.normal(0, 10 ** rng.uniform(-3, 4)))
    limits = np.iinfo(dtype)
    choices = [n for n in _WHOLE if limits.min <= n <= limits.max] + [int(limits.max), int(limits.min)]
    return choices[rng.integers(0, len(choices))]


def _other_affine(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Rows that are all plausible numbers: turned, sheared, nearly singular, tiny, huge, or simply another orientation."""
    header = _header_of(data)
    affine = _orientations()[rng.integers(0, 48)].copy()
    way = rng.integers(0, 6)
    if way == 0:
        affine[:3, :3] += rng.normal(0, 10 ** rng.uniform(-6, 0), (3, 3))
    elif way == 1:
        affine[:3, :3] *= 10 ** rng.uniform(-3, 3, 3)
    elif way == 2:
        affine[:3, rng.integers(0, 3)] = affine[:3, rng.integers(0, 3)] * rng.uniform(0.5, 2)
    elif way == 3:
        affine[:3, :3] = rng.normal(0, 10 ** rng.uniform(-2, 3), (3, 3))
    elif way == 4:
        affine[:3, 3] = rng.normal(0, 10 ** rng.uniform(0, 30), 3)
    with np.errstate(over="ignore"):
        for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
            header[name][0] = affine[row]
    header["sform_code"][0] = 1
    return data


def _other_quaternion(data: bytearray, rng: np.random.Generator) -> bytearray:
    header = _header_of(data)
    header["sform_code"][0], header["qform_code"][0] = 0, 1
    parts = rng.normal(0, 1, 4)
    parts /= np.linalg.norm(parts) * (1 if rng.random() < 0.5 else rng.uniform(0.3, 3))
    if rng.random() < 0.5:
        parts = np.eye(4)[rng.integers(0, 4)] * rng.choice([1, -1, 0.9999999, 1.0000001, 1.001])
    for name, value in zip(("quatern_b", "quatern_c", "quatern_d"), parts[1:], strict=True):
        header[name][0] = value
    header["pixdim"][0, 0] = rng.choice([1, -1, 0, np.nan, 2, -0.5, 1e-40])
    return data


def _other_shape(data: bytearray, rng: np.random.Generator) -> bytearray:
    """Dimensions with the same number of voxels, or of ranks and lengths that no scan has."""
    dim = _header_of(data)["dim"][0]
    way = rng.integers(0, 5)
    if way == 0:
        dim[1:4] = rng.permutation(dim[1:4])
    elif way == 1:
        dim[1:4] = rng.permutation([1, dim[1], dim[2] * dim[3]])
    elif way == 2:
        dim[0] = rng.integers(-2, 9)
    elif way == 3:
        dim[rng.integers(1, 8)] = rng.choice([-1, 0, 1, 2, 3, 32767])
    else:
        dim[1:4] = rng.integers(1, 40, 3)
    return data


def _swapped(data: bytearray, rng: np.random.Generator) -> bytearray:
    """One field in the other byte order, or the bytes of one field in another's place."""
    header = _header_of(data)
    where = {name: (dtype.itemsize, at) for name, (dtype, at, *_) in header.dtype.fields.items()}
    size, at = where[str(rng.choice(_FIELDS))]
    if rng.random() < 0.5:
        data[at : at + size] = data[at : at + size][::-1]
    else:
        size_from, start = where[str(rng.choice(_FIELDS))]
        part = data[start : start + min(size, size_from)]
        data[at : at + len(part)] = part
    return data


def _cut(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: rng.integers(0, len(data))]


def _longer(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data + rng.bytes(int(rng.integers(1, 3000)))


def _noise(data: bytearray, rng: np.random.Generator) -> bytearray:
    """A header of noise that calls itself one."""
    size = _header_of(data).nbytes
    data[4 : size - 4] = rng.bytes(size - 8)
    if rng.random() < 0.5:
        _header_of(data)["dim"][0, :4] = (3, 7, 6, 5)
    return data


def _spread(data: bytearray, rng: np.random.Generator) -> bytearray:
    """A run of bytes that became zero, 255 or noise, as of a bad block."""
    start = int(rng.integers(0, _header_of(data).nbytes))
    length = int(rng.integers(1, 64))
    data[start : start + length] = (bytes(length), b"\xff" * length, rng.bytes(length))[rng.integers(0, 3)]
    return data


_HEADER_DAMAGES: dict[str, Callable[[bytearray, np.random.Generator], bytearray]] = {
    "random bytes": _random_bytes,
    "flipped bits": _flipped_bits,
    "extreme values": _extreme_fields,
    "another affine": _other_affine,
    "another quaternion": _other_quaternion,
    "another shape": _other_shape,
    "swapped bytes": _swapped,
    "cut off": _cut,
    "longer": _longer,
    "noise": _noise,
    "a bad run": _spread,
}
_SHARES = np.array([15, 12, 25, 13, 8, 8, 6, 3, 2, 3, 5]) / 100


# --- gzip streams


@cache
def _payload(source: int) -> bytes:
    """An inflated scan of 60 to 130 KB: noise, smooth, or mostly air."""
    rng = np.random.default_rng([SEED, 7, source])
    shape = (40, 32, int(rng.integers(24, 50)))
    values = rng.integers(-1000, 400, shape)
    if source % 3 == 1:
        values = np.sort(values, axis=0)
    elif source % 3 == 2:
        values[:, :, : shape[2] // 2] = -1000
    image = nib.Nifti1Image(values.astype(np.int16), np.diag([-0.7, -0.7, 2.5, 1]))
    image.header.set_xyzt_units("mm")
    return bytes(image.to_bytes())


def member(data: bytes, *, level: int = 6, strategy: int = 0, flags: int = 0, text: bytes = b"scan") -> bytes:
    """One gzip member with the optional fields that ``flags`` asks for (RFC 1952)."""
    packer = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    head = b"\x1f\x8b\x08" + bytes([flags]) + b"\x01\x02\x03\x04\x00\x03"
    head += struct.pack("<H", len(text)) + text if flags & 4 else b""
    head += (text + b"\0") * bool(flags & 8) + (text + b"\0") * bool(flags & 16)
    head += struct.pack("<H", zlib.crc32(head) & 0xFFFF) if flags & 2 else b""
    tail = struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
    return head + packer.compress(data) + packer.flush() + tail


@cache
def _sound_stream(source: int) -> tuple[bytes, bytes]:
    """A sound gzip stream, in one or several members, and what it inflates to."""
    payload = _payload(source % 6)
    level, strategy = ((6, 0), (1, 0), (9, 0), (0, 0), (6, zlib.Z_FIXED), (6, zlib.Z_HUFFMAN_ONLY))[source // 6 % 6]
    flags = (0, 8, 4 | 8 | 16, 2 | 8, 0)[source % 5]
    parts = (1, 1, 1, 2, 5)[source // 5 % 5]
    cuts = [len(payload) * part // parts for part in range(parts + 1)]
    members = [member(payload[a:b], level=level, strategy=strategy, flags=flags) for a, b in pairwise(cuts)]
    return b"".join(members), payload


def damaged_stream(number: int) -> DamagedFile:
    """A gzip stream with something wrong, or something unusual that is not wrong."""
    rng = rng_of("stream", number)
    stream, payload = _sound_stream(int(rng.integers(0, 180)))
    kinds = list(_STREAM_DAMAGES)
    kind = kinds[number % len(kinds)]
    damaged, truth = _STREAM_DAMAGES[kind](bytearray(stream), payload, rng)
    return DamagedFile(bytes(damaged), "scan.nii.gz", kind, truth=truth)


_Damaged = tuple[bytes | bytearray, bytes | None]


def _bit(stream: bytearray, _: bytes, rng: np.random.Generator) -> _Damaged:
    stream[rng.integers(0, len(stream))] ^= 1 << int(rng.integers(0, 8))
    return stream, None


def _bits(stream: bytearray, _: bytes, rng: np.random.Generator) -> _Damaged:
    for where in rng.integers(0, len(stream), rng.integers(2, 30)):
        stream[where] ^= 1 << int(rng.integers(0, 8))
    return stream, None


def _head_bits(stream: bytearray, _: bytes, rng: np.random.Generator) -> _Damaged:
    for where in rng.integers(0, 40, rng.integers(1, 4)):
        stream[where] ^= 1 << int(rng.integers(0, 8))
    return stream, None


def _cut_stream(stream: bytearray, _: bytes, rng: np.random.Generator) -> _Damaged:
    keep = rng.integers(0, len(stream)) if rng.random() < 0.7 else len(stream) - rng.integers(1, 20)
    return stream[:keep], None


def _lost_or_added(stream: bytearray, _: bytes, rng: np.random.Generator) -> _Damaged:
    at, length = int(rng.integers(0, len(stream))), int(rng.integers(1, 20))
    if rng.random() < 0.5:
        del stream[at : at + length]
    else:
        stream[at:at] = rng.bytes(length)
    return stream, None


def _run(stream: bytearray, _: bytes, rng: np.random.Generator) -> _Damaged:
    at, length = int(rng.integers(0, len(stream))), int(rng.integers(1, 4096))
    stream[at : at + length] = bytes(len(stream[at : at + length]))
    return stream, None


def _trailer(stream: bytearray, _: bytes, rng: np.random.Generator) -> _Damaged:
    way = rng.integers(0, 4)
    if way == 0:
        stream[-rng.integers(1, 9)] ^= 1 << int(rng.integers(0, 8))
    elif way == 1:
        stream[-8:] = rng.bytes(8)
    elif way == 2:
        stream[-8:] = bytes(8)
    else:
        stream[-8:-4], stream[-4:] = stream[-4:], stream[-8:-4]
    return stream, None


def _trailing(stream: bytearray, _: bytes, rng: np.random.Generator) -> _Damaged:
    zeros = bytes(int(rng.choice([0, 1, 512, 70_000])))
    way = rng.integers(0, 7)
    tail = (
        rng.bytes(int(rng.integers(1, 2000))),
        b"\x1f",
        b"\x1f\x8b",
        b"HTTP/1.1 200 OK\r\n",
        member(b"more voxels")[:-3],
        member(b"more voxels than declared"),
        b"",
    )[way]
    return stream + zeros + tail, None


def _bomb(stream: bytearray, payload: bytes, rng: np.random.Generator) -> _Damaged:
    """Far more than the header declares: in one member, in a second one, or in very many."""
    way = rng.integers(0, 4)
    if way == 0:
        return _zeros(int(rng.integers(20, 400)) << 20, payload), b""
    if way == 1:
        return bytes(stream) + _zeros(int(rng.integers(20, 400)) << 20), b""
    if way == 2:
        return _huge(rng) + _zeros(64 << 20), b""
    return bytes(stream) + member(bytes(5)) * int(rng.integers(1000, 20_000)), b""


def _many_members(stream: bytearray, payload: bytes, rng: np.random.Generator) -> _Damaged:
    """Sound, but in very many members, of which many hold nothing."""
    size = int(rng.choice([1, 7, 100, 4096]))
    if size == 1:
        sound = rng.random() < 0.5
        return member(b"") * int(rng.integers(1, 900) if sound else rng.integers(1100, 100_000)) + bytes(
            stream
        ), payload if sound else b""
    return b"".join(member(payload[at : at + size]) for at in range(0, len(payload), size)), payload


def _long_head(_: bytearray, payload: bytes, rng: np.random.Generator) -> _Damaged:
    """Sound, but its gzip header is longer than any piece that is read at a time."""
    flags = int(rng.choice([8, 16, 4 | 8, 2 | 4 | 8 | 16]))
    text = bytes(rng.integers(1, 256, int(rng.integers(1, 65_535)), dtype=np.uint8))
    return member(payload, flags=flags, text=text), payload


def _split_magic(_: bytearray, payload: bytes, rng: np.random.Generator) -> _Damaged:
    """Sound, with a member that begins on one of the last bytes of a piece of 64 KiB."""
    half = len(payload) // 2
    first = member(payload[:half], level=0, flags=8)
    text = b"x" * (((1 << 16) - int(rng.integers(0, 6)) - len(first)) % (1 << 16) + 4)
    return member(payload[:half], level=0, flags=8, text=text) + member(payload[half:]), payload


def _huge(rng: np.random.Generator) -> bytes:
    data = bytearray(_payload(0)[:352])
    _header_of(data)["dim"][0, :4] = (3, *rng.integers(2000, 32_767, 3))
    return member(bytes(data))


@cache
def _zero_blocks(count: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(bytes(count)) + packer.flush(zlib.Z_FULL_FLUSH)


def _zeros(count: int, start: bytes = b"") -> bytes:
    """A sound member of ``start`` and zeros, made without deflating them all."""
    block = 1 << 20
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    crc, blocks = zlib.crc32(start), count // block
    for _ in range(blocks):
        crc = zlib.crc32(bytes(block), crc)
    body += _zero_blocks(block) * blocks + b"\x03\x00"
    head = b"\x1f\x8b\x08\x00\x01\x02\x03\x04\x00\x03"
    return head + body + struct.pack("<II", crc, (len(start) + blocks * block) & 0xFFFFFFFF)


_STREAM_DAMAGES: dict[str, Callable[[bytearray, bytes, np.random.Generator], _Damaged]] = {
    "one flipped bit": _bit,
    "flipped bits": _bits,
    "flipped bits in the first 40 bytes": _head_bits,
    "cut off": _cut_stream,
    "bytes lost or added": _lost_or_added,
    "a run of zeros": _run,
    "trailer": _trailer,
    "trailing bytes": _trailing,
    "bomb": _bomb,
    "very many members, some sound": _many_members,
    "long header (sound)": _long_head,
    "a member across two pieces (sound)": _split_magic,
    "one flipped bit again": _bit,
    "cut off again": _cut_stream,
}
