"""Stored pixel values of DICOM frames; what is compressed is decoded in a worker process that may die without harm.

Decoders are C and C++ libraries that a corrupt stream can abort, hang or make allocate without end. One worker decodes one
series: it limits its own memory, the parent gives it so many seconds for each frame, and its death becomes one typed error.
The same file is the worker's program (``python -m lungshift.io.dicom_decode``).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from threading import Timer
from time import monotonic
from typing import IO, BinaryIO

import numpy as np

from lungshift.errors import FileFormatError, LungshiftError, MissingError
from lungshift.io.dicom_header import Frame, quiet_pydicom, read_pixels

WORKER = (sys.executable, "-P", "-m", "lungshift.io.dicom_decode")
START_LIMIT_S = 60.0
FRAME_LIMIT_S = 8.0
_MEMORY_BYTES = 3 << 30

_ANSWER = struct.Struct("<c3sII")
_READY, _PIXELS, _FAILED = b"R", b"P", b"F"
_REASON = struct.Struct("<64s")
_MISSING = "missing "

PLUGINS = {
    "1.2.840.10008.1.2.4.50": "gdcm",  # JPEG baseline, 8 bit
    "1.2.840.10008.1.2.4.57": "gdcm",  # JPEG Lossless
    "1.2.840.10008.1.2.4.70": "gdcm",  # JPEG Lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": "pyjpegls",  # JPEG-LS
    "1.2.840.10008.1.2.4.81": "pyjpegls",  # JPEG-LS, near lossless
    "1.2.840.10008.1.2.4.90": "pylibjpeg",  # JPEG 2000, lossless
    "1.2.840.10008.1.2.4.91": "pylibjpeg",  # JPEG 2000
    "1.2.840.10008.1.2.4.201": "pylibjpeg",  # High-Throughput JPEG 2000, lossless
    "1.2.840.10008.1.2.4.202": "pylibjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg",
    "1.2.840.10008.1.2.5": "pydicom",  # RLE
}
"""The decoder for each compressed transfer syntax; others are refused."""


def decode(frames: Sequence[Frame], *, frame_limit_s: float = FRAME_LIMIT_S) -> Generator[np.ndarray, None, None]:
    """The stored values of each frame, (row, column), in the order asked for, one at a time.

    Args:
        frames: What to decode. Uncompressed files are read here; if any is compressed, all go through one worker.
        frame_limit_s: Seconds that one frame may take in the worker.

    Raises:
        FileFormatError: A file is cut off (``E_TRUNCATED``), or its pixels cannot be decoded (``E_DECODE``).
        MissingError: The package that decodes them is not installed (``E_DECODER``).
    """
    planes = _in_worker(frames, frame_limit_s) if any(frame.compressed for frame in frames) else _here(frames)
    for frame, plane in zip(frames, planes, strict=True):
        if plane.shape != (frame.rows, frame.columns):
            raise _undecodable(frame, f"decoded to {plane.shape} instead of the header's rows and columns")
        yield plane


def _here(frames: Sequence[Frame]) -> Iterator[np.ndarray]:
    reader = _Reader()
    for frame in frames:
        try:
            yield reader.plane(frame.path, frame.index)
        except Exception as error:  # pydicom raises whatever the damage leads to
            raise _failure(frame, type(error).__name__) from None


class _Reader:
    """Reads planes of files, keeping the last file open in memory for the next frame of it."""

    def __init__(self) -> None:
        self._path: Path | None = None

    def plane(self, path: Path, index: int) -> np.ndarray:
        from pydicom.pixels.decoders.base import get_decoder

        with quiet_pydicom(), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            if path != self._path:
                self._dataset = read_pixels(path)
                self._path = path
            if "PixelData" not in self._dataset:
                raise EOFError
            syntax = self._dataset.file_meta.TransferSyntaxUID
            decoder, plugin = get_decoder(syntax), PLUGINS.get(str(syntax), "")
            if plugin and plugin not in decoder.available_plugins:
                raise MissingDecoderError(plugin)
            plane, _ = decoder.as_array(self._dataset, index=index, raw=True, decoding_plugin=plugin)
        _require_right_size([str(warning.message) for warning in said])
        return plane


def _require_right_size(warned: list[str]) -> None:
    """Refuse run lengths that decode to more than the picture, as they do where one is damaged; writers may pad it by a byte."""
    for decoded, expected in re.findall(r"non-conformant padding - (\d+) vs\. (\d+) bytes", "\n".join(warned)):
        if int(decoded) > int(expected) + 1:
            raise CorruptDataError


def _in_worker(frames: Sequence[Frame], frame_limit_s: float) -> Iterator[np.ndarray]:
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        WORKER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as worker:
        try:
            with contextlib.suppress(BrokenPipeError):  # a worker that died is noticed when it does not answer
                _ask(worker, frames)
            _answer(worker, frames[0], START_LIMIT_S)
            for frame in frames:
                yield _answer(worker, frame, frame_limit_s)
        finally:
            worker.kill()


def _ask(worker: subprocess.Popen[bytes], frames: Sequence[Frame]) -> None:
    """Send the whole list of work; by the pipe, as arguments can be seen by every user of the machine."""
    if worker.stdin:
        jobs = [[str(frame.path.absolute()), frame.index] for frame in frames]
        worker.stdin.write(json.dumps(jobs).encode() + b"\n")
        worker.stdin.flush()


def _answer(worker: subprocess.Popen[bytes], frame: Frame, limit_s: float) -> np.ndarray:
    timer, start = Timer(limit_s, worker.kill), monotonic()
    timer.start()
    try:
        if worker.stdout is None:
            raise EOFError
        return _receive(worker.stdout, frame)
    except EOFError:
        reason = (
            f"the decoder did not end within {limit_s:g} s" if monotonic() - start >= limit_s else "the decoder crashed"
        )
        raise _undecodable(frame, reason) from None
    finally:
        timer.cancel()


def _receive(stream: IO[bytes], frame: Frame) -> np.ndarray:
    kind, dtype, rows, columns = _ANSWER.unpack(_exactly(stream, _ANSWER.size))
    if kind == _FAILED:
        (reason,) = _REASON.unpack(_exactly(stream, _REASON.size))
        raise _failure(frame, reason.rstrip(b"\0").decode("ascii", "replace"))
    if kind == _READY:
        return np.empty(0)
    if (rows, columns) != (frame.rows, frame.columns):
        raise _undecodable(frame, f"decoded to {(rows, columns)} instead of the header's rows and columns")
    data = _exactly(stream, rows * columns * np.dtype(dtype.decode()).itemsize)
    return np.frombuffer(data, dtype.decode()).reshape(rows, columns)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _failure(frame: Frame, reason: str) -> LungshiftError:
    if reason.startswith(_MISSING):
        return MissingError(
            f"{frame.path.name} is compressed in a way that needs {reason.removeprefix(_MISSING)}, which is not installed. "
            "Run lungshift doctor: it says how to get it.",
            code="E_DECODER",
        )
    # an uncompressed file with too few bytes raises ValueError, one without pixels EOFError
    if reason == "EOFError" or (reason == "ValueError" and not frame.compressed):
        return FileFormatError(
            f"{frame.path.name} holds fewer pixels than its header says: it is cut off. Copy it again from its source.",
            code="E_TRUNCATED",
        )
    return _undecodable(frame, f"the decoder gave up ({reason})")


def _undecodable(frame: Frame, reason: str) -> FileFormatError:
    return FileFormatError(
        f"The pixels of {frame.path.name} (frame {frame.index + 1}) cannot be decoded: {reason}. The file is damaged or "
        "unusually compressed; copy it again from its source.",
        code="E_DECODE",
    )


def main() -> None:
    """Be the worker: read one line of jobs, answer each with its pixels, in order."""
    _limit_resources()
    with os.fdopen(os.dup(1), "wb") as answers, _Complaints() as complaints:
        jobs = json.loads(sys.stdin.buffer.readline())
        _load_decoders()
        answers.write(_ANSWER.pack(_READY, b"", 0, 0))
        answers.flush()
        reader = _Reader()
        for path, index in jobs:
            _send(answers, reader, complaints, Path(path), index)


def _load_decoders() -> None:
    import pydicom.pixels.decoders  # noqa: F401 - half a second that should not count as a frame's


def _send(answers: BinaryIO, reader: _Reader, complaints: _Complaints, path: Path, index: int) -> None:
    try:
        plane = np.ascontiguousarray(reader.plane(path, index))
        rows, columns = plane.shape
        complaints.require_none()
    except Exception as error:  # whatever a decoder raises is the answer
        reason = f"{_MISSING}{error}" if isinstance(error, MissingDecoderError) else type(error).__name__
        answers.write(_ANSWER.pack(_FAILED, b"", 0, 0) + _REASON.pack(reason.encode()))
    else:
        answers.write(_ANSWER.pack(_PIXELS, plane.dtype.str.encode(), rows, columns))
        answers.write(plane.data)
    answers.flush()


class _Complaints:
    """What decoders print goes here: never among the answers, and never to the user.

    libjpeg only prints that it met corrupt data, and goes on with pixels it made up.
    """

    def __enter__(self) -> _Complaints:
        self._file = tempfile.TemporaryFile()
        os.dup2(self._file.fileno(), 1)
        os.dup2(self._file.fileno(), 2)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def require_none(self) -> None:
        self._file.seek(0)
        said = self._file.read()
        self._file.seek(0)
        self._file.truncate()
        if b"Corrupt" in said:
            raise CorruptDataError


class MissingDecoderError(Exception):
    """The package that decodes a transfer syntax is not installed."""


class CorruptDataError(Exception):
    """A decoder said that its input is corrupt."""


def _limit_resources() -> None:
    """Cap the worker's memory, and leave no core dump: it would hold a patient's scan."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))


if __name__ == "__main__":
    main()
