"""The bytes of one ``.nii`` or ``.nii.gz`` file, read once from front to back and checked to the last.

Inflation is isal's (``isal.igzip_lib`` of python-isal), which checks CRC and length of every gzip member.
Neither nibabel nor SimpleITK notices a flipped bit, so no voxel is read in any other way.
"""

from __future__ import annotations

import logging
from io import FileIO
from pathlib import Path
from types import TracebackType

from isal import igzip_lib

from lungshift.errors import FileFormatError

_LOG = logging.getLogger("lungshift")
_PIECE = 1 << 16
_MAGIC = b"\x1f\x8b"
_BEYOND = 1 << 20
"""How far past the declared end a stream is inflated to find out what is there."""
_MOST_EMPTY = 1000
"""Members of a gzip stream that may hold nothing; each costs its time, and a file of nothing else would take minutes."""
_MOST_PADDING = 1 << 20
"""Zeros after a gzip stream that are taken for padding, as of a tape; more are bytes that do not belong there."""
_MOST_PER_BYTE = 1032
"""No deflate stream holds more than 1032 bytes in one (RFC 1951: 258 bytes in 2 bits)."""

_KNOWN = (
    (_MAGIC, "gzip data"),
    (b"PK\x03\x04", "a zip archive"),
    (b"<", "a web page, perhaps an error page saved by a download"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (b"\x5c\x01\0\0", "an uncompressed NIfTI file"),
    (b"\0\0\x01\x5c", "an uncompressed NIfTI file"),
    (b"\x1c\x02\0\0", "an uncompressed NIfTI file"),
    (b"\0\0\x02\x1c", "an uncompressed NIfTI file"),
)


class ByteStream:
    """A file's bytes in order, inflated where the name ends in ``.gz``; use it in a ``with`` block.

    Raises:
        FileFormatError: ``E_NO_FILE``, ``E_NOT_NIFTI`` (name and content disagree), ``E_TRUNCATED``, ``E_CRC``, ``E_SIZE``, ``E_GZIP``, or
            ``E_READ`` where the disk fails.
    """

    def __init__(self, path: Path, *, strict: bool = False) -> None:
        self.path = path
        self._strict = strict
        compressed = path.name.endswith(".gz")
        _require_named_right(path, compressed)
        self._file = path.open("rb", buffering=0)
        self._members = _Members(path, self._file) if compressed else None

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes, no more and no fewer."""
        data = self.take_up_to(count)
        if len(data) < count:
            raise FileFormatError(
                f"{self.path} ends {count - len(data)} bytes before its header says: it is truncated. Copy or download it again.",
                code="E_TRUNCATED",
            )
        return data

    def take_up_to(self, count: int) -> bytes:
        """The next ``count`` bytes, or what there is."""
        parts, missing = [], count
        while missing and (more := self._next(missing)):
            parts.append(more)
            missing -= len(more)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def finish(self) -> None:
        """Check what follows the last voxel: CRC and length of the gzip stream, and that nothing else comes.

        Bytes after the end of the gzip stream are ignored with a warning, or refused if ``strict``.
        """
        if self.take_up_to(_BEYOND):
            raise FileFormatError(
                f"{self.path} holds more bytes than its header declares: header and voxels do not belong together.",
                code="E_SIZE",
            )
        if self._members and self._members.trailing:
            words = f"{self.path} has bytes that are not gzip data after the end of its gzip stream"
            if self._strict:
                raise FileFormatError(f"{words}. Copy or download it again.", code="E_TRAILING")
            _LOG.warning("%s; they were ignored.", words)

    def _next(self, count: int) -> bytes:
        return self._members.read(count) if self._members else _read(self._file, count, self.path)


def _read(file: FileIO, count: int, path: Path) -> bytes:
    """Up to ``count`` bytes of a file; a disk that fails is an error of that file."""
    try:
        return file.read(count) or b""
    except OSError as error:
        raise FileFormatError(
            f"{path} cannot be read ({error.strerror}): the disk it is on fails.", code="E_READ"
        ) from error


class _Members:
    """The inflated bytes of the gzip members of a file, one after another as the standard allows (RFC 1952)."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self._path, self._file = path, file
        self._input = b""
        self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
        self._holds_nothing, self._empty = True, 0
        self.trailing = False

    def read(self, count: int) -> bytes:
        """Up to ``count`` bytes; none only at the end."""
        while not self._member.eof or self._next_member():
            if self._member.needs_input and not self._input:
                self._input = _read(self._file, _PIECE, self._path)
                self._require_input()
            if data := self._inflate(count):
                self._holds_nothing = False
                return data
        return b""

    def _inflate(self, count: int) -> bytes:
        given, self._input = self._input, b""
        try:
            data: bytes = self._member.decompress(given, count)
        except igzip_lib.IsalError as error:  # type: ignore[misc]
            raise FileFormatError(
                f"{self._path} is damaged: {error}. At least one bit has changed; copy or download it again.",
                code="E_CRC",
            ) from error
        return data

    def _require_input(self) -> None:
        if not self._input:
            raise FileFormatError(
                f"{self._path} ends in the middle of its gzip stream: it is truncated. Copy or download it again.",
                code="E_TRUNCATED",
            )

    def _next_member(self) -> bool:
        """Whether another member follows; zeros may pad the file, anything else is noted as ``trailing``."""
        if self.trailing:
            return False
        self._count_if_empty()
        rest = self._after_padding(self._member.unused_data)
        if rest.startswith(_MAGIC):
            self._input, self._member = rest, igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            self._holds_nothing = True
            return True
        self.trailing = bool(rest)
        return False

    def _after_padding(self, rest: bytes) -> bytes:
        """What comes after zeros, enough of it to know a member by; nothing if the file ends with them."""
        padding = len(rest)
        rest = rest.lstrip(b"\0")
        while len(rest) < len(_MAGIC) and padding <= _MOST_PADDING and (more := _read(self._file, _PIECE, self._path)):
            padding += len(more)
            rest = (rest + more).lstrip(b"\0")
        return rest if padding <= _MOST_PADDING else rest or b"\0"

    def _count_if_empty(self) -> None:
        self._empty += self._holds_nothing
        self._holds_nothing = False
        if self._empty > _MOST_EMPTY:
            raise FileFormatError(
                f"{self._path} is gzip data in more than {_MOST_EMPTY} parts that hold nothing, as nobody compresses a scan. Compress it again.",
                code="E_GZIP",
            )


def require_room(path: Path, needed: int) -> None:
    """Refuse, without inflating, a file that cannot hold the bytes that its header declares.

    Raises:
        FileFormatError: ``E_TRUNCATED`` for too small a file, ``E_SIZE`` for an uncompressed one that is too large.
    """
    size = path.stat().st_size
    compressed = path.name.endswith(".gz")
    if size * (_MOST_PER_BYTE if compressed else 1) < needed:
        raise FileFormatError(
            f"{path} has {size} bytes, too few for the {needed} that its header declares: it is truncated, or its header is wrong.",
            code="E_TRUNCATED",
        )
    if not compressed and size > needed:
        raise FileFormatError(
            f"{path} has {size} bytes where its header declares {needed}: header and voxels do not belong together.",
            code="E_SIZE",
        )


def describe_bytes(start: bytes) -> str:
    """In words, what a file that begins with these bytes seems to be."""
    if not start:
        return "an empty file"
    if start[128:132] == b"DICM":
        return "a DICOM file; give the folder of its series instead"
    for magic, words in _KNOWN:
        if start.lstrip().startswith(magic):
            return words
    return f"unknown data (it begins with {start[:8].hex(' ')})"


def _require_named_right(path: Path, compressed: bool) -> None:
    if not path.is_file():
        raise FileFormatError(f"There is no file {path}.", code="E_NO_FILE")
    with open(path, "rb") as stream:
        start = stream.read(348)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise FileFormatError(
            f"{path} is not named .nii or .nii.gz; it is {describe_bytes(start)}. Name the NIfTI file, or a folder of DICOM files.",
            code="E_NOT_NIFTI",
        )
    if start.startswith(_MAGIC) != compressed:
        expected = "gzip data" if compressed else "an uncompressed NIfTI file"
        raise FileFormatError(
            f"{path} is {describe_bytes(start)}, but its name promises {expected}. Rename it, or download it again.",
            code="E_NOT_NIFTI",
        )
