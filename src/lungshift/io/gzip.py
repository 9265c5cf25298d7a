"""The bytes of one ``.nii`` or ``.nii.gz`` file, read once from front to back and checked to the last.

Inflation is isal's (`python-isal <https://pypi.org/project/isal/>`_), which checks CRC and length of every gzip member.
Neither nibabel nor SimpleITK notices a flipped bit, so no voxel is read in any other way.
"""

from __future__ import annotations

import logging
from pathlib import Path
from types import TracebackType
from typing import Any

from isal import igzip, isal_zlib

from lungshift.errors import FileFormatError

_LOG = logging.getLogger("lungshift")
_ISAL_ERRORS: tuple[Any, ...] = (EOFError, igzip.BadGzipFile, isal_zlib.error)
_MAGIC = b"\x1f\x8b"
_BEYOND = 1 << 20
"""How far past the declared end a stream is inflated to find out what is there."""
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
        FileFormatError: ``E_NO_FILE``, ``E_NOT_NIFTI`` (name and content disagree), ``E_TRUNCATED``, ``E_CRC``, ``E_SIZE``.
    """

    def __init__(self, path: Path, *, strict: bool = False) -> None:
        self.path = path
        self._strict = strict
        self._compressed = path.name.endswith(".gz")
        _require_named_right(path, self._compressed)
        self._stream: Any = igzip.open(path, "rb") if self._compressed else path.open("rb")

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

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
        """The next ``count`` bytes, or what there is.

        Never reads ahead, so that what follows the last voxel is met in ``finish`` and not before.
        """
        try:
            data = self._stream.read1(count)
            while len(data) < count and (more := self._stream.read1(count - len(data))):
                data += more
        except _ISAL_ERRORS as error:
            raise _format_error(self.path, error) from error
        return data

    def finish(self) -> None:
        """Check what follows the last voxel: CRC and length of the gzip stream, and that nothing else comes.

        Bytes after the end of the gzip stream are ignored with a warning, or refused if ``strict``.
        """
        try:
            rest = self.take_up_to(_BEYOND)
        except FileFormatError as error:
            if error.code != "E_TRAILING" or self._strict:
                raise
            _LOG.warning("%s has bytes after the end of its gzip stream; they were ignored.", self.path)
            return
        if rest:
            raise FileFormatError(
                f"{self.path} holds more bytes than its header declares: header and voxels do not belong together.",
                code="E_SIZE",
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


def _format_error(path: Path, error: Exception) -> FileFormatError:
    """What isal raised, as one error with the reason."""
    again = "Copy or download it again."
    if isinstance(error, EOFError):
        message, code = f"{path} ends in the middle of its gzip stream: it is truncated. {again}", "E_TRUNCATED"
    elif str(error).startswith("Not a gzipped file"):
        message, code = f"{path} has bytes that are not gzip data after its gzip stream.", "E_TRAILING"
    else:
        message, code = f"{path} is damaged: {error}. At least one bit has changed. {again}", "E_CRC"
    return FileFormatError(message, code=code)
