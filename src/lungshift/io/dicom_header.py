"""One DICOM file's header as frozen values: read with bounds, and without anything that names a person.

Only the elements listed here are ever parsed; names, patient ids, dates and descriptions stay in the file. Meant for files
that may be damaged or hostile: reads are counted and bounded, a deflated data set is inflated up to a limit.
"""

from __future__ import annotations

import io
import logging
import math
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import _read_file_meta_info, read_partial, read_preamble
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from lungshift.errors import FileFormatError

_INFLATED_BYTES = 64 << 20
_HEADER_BYTES = 64 << 20
_HEADER_READS, _MOST_READS = 60_000, 150_000
"""A header takes three reads an element; of a large file, which may have very many frames, one more a KiB."""
_PIXEL_GROUP, _PIXEL_DATA = 0x7FE00008, 0x7FE00010
_UNDEFINED = 0xFFFFFFFF
_TAIL_BYTES = 1 << 20
_UNCOMPRESSED = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)

_HEADER = """
SOPClassUID Modality ImageType SeriesInstanceUID SeriesNumber FrameOfReferenceUID Rows Columns NumberOfFrames SamplesPerPixel
PhotometricInterpretation BitsAllocated BitsStored PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit
ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness GantryDetectorTilt ConvolutionKernel
RescaleSlope RescaleIntercept RescaleType LossyImageCompression BurnedInAnnotation
SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence DetectorInformationSequence
""".split()  # noqa: SIM905 - a list would fill the page
_PIXELS = """
Rows Columns NumberOfFrames SamplesPerPixel PhotometricInterpretation PlanarConfiguration BitsAllocated BitsStored HighBit
PixelRepresentation PixelData ExtendedOffsetTable ExtendedOffsetTableLengths
""".split()  # noqa: SIM905

_IDENTITY = """
SpecificCharacterSet SOPClassUID SOPInstanceUID SeriesInstanceUID StudyInstanceUID FrameOfReferenceUID
PatientID IssuerOfPatientID PatientName PatientBirthDate PatientSex PatientAge
AccessionNumber StudyID StudyDate StudyTime StudyDescription ReferringPhysicianName
""".split()  # noqa: SIM905
_SEG_BYTES = 2 << 30


@dataclass(frozen=True, repr=False)
class Frame:
    """One image plane of a file: what of its header a reader of CT needs; what is missing is None or empty.

    Attributes:
        path: The file.
        index: Number of the frame in the file, from 0.
        position_mm: Centre of the first voxel, LPS.
        orientation: Direction cosines of increasing column, then of increasing row.
        spacing_mm: Distance of rows, distance of columns.
        slope: HU per stored unit.
        intercept: HU of stored 0.
        padding: Lowest and highest stored value that the file declares to be no measurement.
        oddity: What is wrong about the size of its pixels, though they can be read; empty if nothing.
    """

    path: Path
    index: int
    series_uid: str
    series_number: int | None
    modality: str
    sop_class: str
    image_type: tuple[str, ...]
    frame_of_reference: str
    rows: int
    columns: int
    samples: int
    photometric: str
    bits_stored: int
    signed: bool
    position_mm: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing_mm: tuple[float, ...] | None
    thickness_mm: float | None
    tilt_degrees: float | None
    kernel: str
    slope: float | None
    intercept: float | None
    rescale_type: str
    padding: tuple[int, int] | None
    transfer_syntax: str
    lossy: bool
    burned_in: bool
    oddity: str

    def __repr__(self) -> str:
        return f"Frame({self.path.name!r}, {self.index})"

    @property
    def compressed(self) -> bool:
        """Whether the pixels need a decoder."""
        return self.transfer_syntax not in _UNCOMPRESSED


class Bounded(io.BufferedReader):
    """A file that never reads past its end, however long an element claims to be, nor more often or more than it may.

    Raises:
        FileFormatError: More reads or bytes than any header has (``E_HEADER``).
    """

    def __init__(self, path: Path, *, bytes_: int = _HEADER_BYTES) -> None:
        raw = io.FileIO(path)
        super().__init__(raw)
        self._end = os.fstat(raw.fileno()).st_size
        self._reads = min(_MOST_READS, _HEADER_READS + (self._end >> 10))
        self._bytes = bytes_

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to ``size`` bytes, or all that is left."""
        left = max(0, self._end - self.tell())
        size = left if size is None or size < 0 else min(size, left)
        self._reads -= 1
        self._bytes -= size
        if self._reads < 0 or self._bytes < 0:
            raise FileFormatError("the header is larger than any CT header", code="E_HEADER")
        return super().read(size)


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom from warning and logging, for its messages quote values of the header."""
    logger, mode = logging.getLogger("pydicom"), pydicom.config.settings.reading_validation_mode
    was_disabled, logger.disabled = logger.disabled, True
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = was_disabled
        pydicom.config.settings.reading_validation_mode = mode


def name_of(uid: str) -> str:
    """The standard's name of a UID, or nothing; never the UID itself, as a damaged one may hold anything."""
    name = UID(uid, pydicom.config.IGNORE).name
    return "" if name == uid else name


def read_frames(path: Path) -> list[Frame]:
    """The planes of one file: one for a classic image or an object that is no image, several for a multi-frame image.

    Raises:
        FileFormatError: Not DICOM (``E_NOT_DICOM``), or a header that cannot be read (``E_HEADER``). The message is the
            reason alone, without the file's name.
        OSError: The file cannot be opened.
    """
    with quiet_pydicom():
        try:
            header, oddity = _read_and_look(path, _HEADER, pixels=False)
            if "SOPClassUID" not in header and "Modality" not in header and "Rows" not in header:
                raise FileFormatError("not a DICOM file, or its header is cut off", code="E_NOT_DICOM")
            return list(_frames(path, header, oddity))
        except FileFormatError:
            raise
        except Exception as error:  # pydicom raises whatever the damage leads to, OSError too
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise FileFormatError(f"a damaged header ({type(error).__name__})", code="E_HEADER") from None


def read_pixels(path: Path) -> Dataset:
    """The elements of one file that its pixels are decoded from, and nothing else, in memory.

    Raises:
        FileFormatError: The header cannot be read.
    """
    return _read(path, _PIXELS, pixels=True)


def read_identity(path: Path) -> Dataset:
    """Who and what one file says it shows: UIDs, patient and study. For objects that refer to it, and for nothing else.

    Raises:
        FileFormatError: The header cannot be read.
    """
    with quiet_pydicom():
        return _read(path, _IDENTITY, pixels=False)


def read_seg_file(path: Path) -> Dataset:
    """A whole segmentation object with its pixels, uncompressed or run-length encoded, in memory.

    Raises:
        FileFormatError: Not DICOM, too large, damaged, or compressed in another way.
    """
    try:
        if path.stat().st_size > _SEG_BYTES:
            raise FileFormatError(f"{path.name} is larger than any segmentation.", code="E_TOO_LARGE")
        seg = pydicom.dcmread(path)
    except FileFormatError:
        raise
    except FileNotFoundError:
        raise FileFormatError(f"There is no file {path}.", code="E_NO_FILE") from None
    except Exception as error:  # pydicom raises whatever the damage leads to
        raise FileFormatError(
            f"{path.name} cannot be read as DICOM ({type(error).__name__}).", code="E_NOT_DICOM"
        ) from None
    syntax = str(seg.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian))
    if syntax not in (*_UNCOMPRESSED, RLELossless):
        raise FileFormatError(
            f"{path.name} is compressed ({name_of(syntax) or 'unknown'}). Store the segmentation uncompressed.",
            code="E_SYNTAX",
        )
    return seg


def _read(path: Path, keywords: list[str], *, pixels: bool) -> Dataset:
    return _read_and_look(path, keywords, pixels=pixels)[0]


def _read_and_look(path: Path, keywords: list[str], *, pixels: bool) -> tuple[Dataset, str]:
    """The elements; and without pixels, what is odd about their size."""
    limits = {"bytes_": 1 << 40} if pixels else {}
    tags: list[BaseTag | int] = [Tag(keyword) for keyword in keywords]
    with Bounded(path, **limits) as stream:
        syntax = _transfer_syntax(stream)
        source = _inflate(stream) if syntax == DeflatedExplicitVRLittleEndian else stream
        at_pixels = None if pixels else _AtPixels(source)
        dataset = read_partial(source, at_pixels, force=True, specific_tags=tags)
        dataset.file_meta.TransferSyntaxUID = syntax if syntax and source is stream else _encoding(dataset)
        return dataset, at_pixels.oddity(dataset) if at_pixels else ""


class _AtPixels:
    """Stops the reading at the pixels, and looks whether they have the size that the header declares."""

    def __init__(self, source: io.BytesIO | Bounded) -> None:
        self._source = source
        self._start, self._length = 0, _UNDEFINED

    def __call__(self, tag: BaseTag, vr: str | None, length: int) -> bool:  # noqa: ARG002 - pydicom's signature
        if int(tag) == _PIXEL_DATA:
            self._start, self._length = self._source.tell(), length
        return int(tag) >= _PIXEL_GROUP

    def oddity(self, header: Dataset) -> str:
        """In words, bytes that do not belong there: the pixels before them may be shifted."""
        if self._length == _UNDEFINED or header.file_meta.TransferSyntaxUID not in _UNCOMPRESSED:
            return ""
        parts = [_whole([header], name) or 1 for name in ("NumberOfFrames", "SamplesPerPixel", "BitsAllocated")]
        excess = self._length - (_size([header], "Rows") * _size([header], "Columns") * math.prod(parts) + 7) // 8
        if excess > 1:
            return f"{excess} bytes more in its pixels than its header declares"
        self._source.seek(self._start + self._length)
        rest = self._source.read(_TAIL_BYTES)
        padding = not rest.strip(b"\0") and len(rest) % 2 == 0
        if padding or _begins_an_element(rest, little=bool(header.original_encoding[1])):
            return ""
        return "bytes after its pixels that are no DICOM element"


def _begins_an_element(rest: bytes, *, little: bool) -> bool:
    """Whether an element may follow the pixels that begins so; elements are in the order of their tags."""
    return len(rest) >= 8 and struct.unpack("<HH" if little else ">HH", rest[:4]) > divmod(_PIXEL_DATA, 1 << 16)


def _transfer_syntax(stream: Bounded) -> UID | None:
    """Read the file meta information; leave the stream at its start, or after the meta group if what follows is deflated."""
    start = stream.peek(132)
    if start[128:132] != b"DICM" and not _looks_like_a_data_set(start):
        raise FileFormatError("not a DICOM file", code="E_NOT_DICOM")
    read_preamble(stream, force=True)
    syntax: UID | None = _read_file_meta_info(stream).get("TransferSyntaxUID")
    if syntax != DeflatedExplicitVRLittleEndian:
        stream.seek(0)
    return syntax


def _looks_like_a_data_set(start: bytes) -> bool:
    """Whether the first element is of group 2 or 8, in either byte order: a file written without a preamble."""
    if len(start) < 8:
        return False
    little, big = struct.unpack("<H", start[:2])[0], struct.unpack(">H", start[:2])[0]
    return little in (2, 8) or big in (2, 8)


def _inflate(stream: Bounded) -> io.BytesIO:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    data = inflater.decompress(stream.read(), _INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise FileFormatError(f"deflated to more than {_INFLATED_BYTES >> 20} MiB", code="E_HEADER")
    if not inflater.eof:
        raise FileFormatError("its deflated data are cut off", code="E_TRUNCATED")
    return io.BytesIO(data)


def _encoding(dataset: Dataset) -> UID:
    implicit, little = dataset.original_encoding
    if implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _frames(path: Path, header: Dataset, oddity: str) -> Iterator[Frame]:
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    if not per_frame:
        yield _frame(path, 0, header, [header], oddity)
        return
    if (declared := _whole([header], "NumberOfFrames")) != len(per_frame):
        raise FileFormatError(f"{declared} frames are declared and {len(per_frame)} described", code="E_HEADER")
    shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
    for index, groups in enumerate(per_frame):
        yield _frame(path, index, header, [_macros(groups), _macros(shared[0]), header], oddity)


_MACROS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType"),
    "CTImageFrameTypeSequence": ("FrameType",),
    "CTReconstructionSequence": ("ConvolutionKernel",),
}
"""Functional groups, and what of each says where a frame is and what its values mean; the same element elsewhere says nothing."""


def _macros(groups: Dataset) -> Dataset:
    found = Dataset()
    for name, keywords in _MACROS.items():
        item = groups[name][0] if groups.get(name) else Dataset()
        found.update({Tag(keyword): item[keyword] for keyword in keywords if keyword in item})
    return found


def _frame(path: Path, index: int, header: Dataset, places: list[Dataset], oddity: str) -> Frame:
    signed = header.get("PixelRepresentation") == 1
    # a nuclear medicine object keeps these two in a sequence; looked up so that the refusal can say what is there
    nested = [*places, *(header.get("DetectorInformationSequence") or [])[:1]]
    return Frame(
        path=path,
        index=index,
        series_uid=_text(places, "SeriesInstanceUID"),
        series_number=_whole(places, "SeriesNumber"),
        modality=_text(places, "Modality"),
        sop_class=_text(places, "SOPClassUID"),
        image_type=tuple(_first(places, "FrameType", "ImageType") or ()),
        frame_of_reference=_text(places, "FrameOfReferenceUID"),
        rows=_whole(places, "Rows") or 0,
        columns=_whole(places, "Columns") or 0,
        samples=_whole(places, "SamplesPerPixel") or 1,
        photometric=_text(places, "PhotometricInterpretation"),
        bits_stored=_whole(places, "BitsStored") or _whole(places, "BitsAllocated") or 0,
        signed=signed,
        position_mm=_numbers(places, "ImagePositionPatient", 3),
        orientation=_numbers(nested, "ImageOrientationPatient", 6),
        spacing_mm=_numbers(places, "PixelSpacing", 2),
        thickness_mm=_number(places, "SliceThickness"),
        tilt_degrees=_number(places, "GantryDetectorTilt"),
        kernel=_text(places, "ConvolutionKernel"),
        slope=_number(places, "RescaleSlope"),
        intercept=_number(places, "RescaleIntercept"),
        rescale_type=_text(places, "RescaleType"),
        padding=_padding(places, signed=signed),
        transfer_syntax=str(header.file_meta.TransferSyntaxUID),
        lossy=_text(places, "LossyImageCompression") == "01" or _is_lossy(header.file_meta.TransferSyntaxUID),
        burned_in=_text(places, "BurnedInAnnotation") == "YES",
        oddity=oddity,
    )


_LOSSY = {"1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.81"}


def _is_lossy(syntax: UID) -> bool:
    return str(syntax) in _LOSSY


def _first(places: list[Dataset], *keywords: str) -> Any:
    for place in places:
        for keyword in keywords:
            if (value := place.get(keyword)) is not None and value != "":
                return value
    return None


def _text(places: list[Dataset], keyword: str) -> str:
    value = _first(places, keyword)
    value = value[0] if isinstance(value, (list, pydicom.multival.MultiValue)) and value else value
    return "" if value is None else str(value).strip()


def _numbers(places: list[Dataset], keyword: str, n: int) -> tuple[float, ...] | None:
    """``n`` finite numbers, or None if they are missing or are something else."""
    try:
        value = _first(places, keyword)
        numbers = tuple(float(x) for x in (value if n > 1 else [value]))
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == n and all(map(math.isfinite, numbers)) else None


def _number(places: list[Dataset], keyword: str) -> float | None:
    numbers = _numbers(places, keyword, 1)
    return numbers[0] if numbers else None


def _whole(places: list[Dataset], keyword: str) -> int | None:
    number = _number(places, keyword)
    return None if number is None else int(number)


def _size(places: list[Dataset], keyword: str) -> int:
    return _whole(places, keyword) or 0


def _padding(places: list[Dataset], *, signed: bool) -> tuple[int, int] | None:
    value = _whole(places, "PixelPaddingValue")
    if value is None:
        return None
    limit = _whole(places, "PixelPaddingRangeLimit")
    ends = [value, value if limit is None else limit]
    # scanners write a signed padding value into an unsigned element
    ends = [end - 65536 if signed and end > 32767 else end for end in ends]
    return min(ends), max(ends)
