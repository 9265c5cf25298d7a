"""Damaged DICOM files by their number, over every transfer syntax that is read: one slice of a small series, with wrong bytes somewhere."""

from __future__ import annotations

import io
import struct
import tempfile
import zlib
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from benchmarks.abuse.htj2k import HTJ2K
from benchmarks.abuse.nifti_files import rng_of

SLICES, DAMAGED = 5, 2
ROWS, COLUMNS = 34, 32
STEP_MM, ROW_MM, COLUMN_MM = 2.5, 0.7, 0.6
_U = "1.2.840.10008.1.2"
EXPLICIT = f"{_U}.1"
SYNTAXES = {
    "implicit": _U,
    "explicit": EXPLICIT,
    "big endian": f"{_U}.2",
    "deflated": f"{_U}.1.99",
    "without preamble": _U,
    "multi-frame": EXPLICIT,
    "RLE": f"{_U}.5",
    "RLE multi-frame": f"{_U}.5",
    "JPEG-LS": f"{_U}.4.80",
    "JPEG-LS near lossless": f"{_U}.4.81",
    "JPEG 2000 lossless": f"{_U}.4.90",
    "JPEG 2000": f"{_U}.4.91",
    "HTJ2K lossless": f"{_U}.4.201",
    "HTJ2K": f"{_U}.4.203",
    "JPEG lossless": f"{_U}.4.57",
    "JPEG lossless, first order": f"{_U}.4.70",
}
"""What the sources are called, and their transfer syntaxes."""
COMPRESSED = tuple(name for name, uid in SYNTAXES.items() if ".4." in uid or uid.endswith(".5"))


@dataclass(frozen=True)
class DamagedDicom:
    """One file of ``source``: its bytes and what was done to it."""

    data: bytes
    source: str
    kind: str


def plane(k: int) -> np.ndarray:
    """Stored values of a slice: a bright disc with a brighter spot on a pattern, HU + 1024."""
    y, x = np.mgrid[:ROWS, :COLUMNS]
    spot = 600 * ((y - 12) ** 2 + (x - 11) ** 2 < 14) * (k == DAMAGED)
    return (40 + (y * 7 + x * 5) % 37 + 900 * ((y - 17) ** 2 + (x - 16) ** 2 < 120) + spot).astype(np.uint16)


@cache
def sound_file(source: str, k: int) -> bytes:
    """One slice (or for a multi-frame source the whole series) as a file."""
    uid = SYNTAXES[source]
    if "multi-frame" in source:
        return _written(_enhanced(), uid)
    ds = _slice(k)
    if source.startswith("HTJ2K"):
        ds.PixelData = encapsulate([b64decode(HTJ2K)])
        return _written(ds, uid, compress=False)
    if source == "without preamble":
        out = io.BytesIO()
        pydicom.dcmwrite(out, ds, implicit_vr=True, little_endian=True)
        return out.getvalue()
    return _by_gdcm(ds, uid) if source.startswith("JPEG lossless") else _written(ds, uid)


def _slice(k: int) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", f"1.2.3.4.{k + 1}"
    _identify(ds)
    ds.ImagePositionPatient = [-120, -200, -300 + k * STEP_MM]
    ds.ImageOrientationPatient, ds.PixelSpacing = [1, 0, 0, 0, 1, 0], [ROW_MM, COLUMN_MM]
    ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = 1, -1024, "HU"
    _describe(ds)
    ds.PixelData = plane(k).tobytes()
    return ds


def _identify(ds: Dataset) -> None:
    ds.Modality, ds.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.SeriesNumber = "1.2.3.4", "1.2.3", 3
    ds.PatientName, ds.PatientID, ds.SpecificCharacterSet = "Doe^Jane", "4711", "ISO_IR 100"
    ds.SliceThickness, ds.ConvolutionKernel = 2.5, "B30f"
    inner = Dataset()
    inner.CodeValue, inner.CodeMeaning = "113100", "Basic"
    code = Dataset()
    code.PurposeOfReferenceCodeSequence = Sequence([inner, inner])
    code.ReferencedSOPInstanceUID = "1.2.3.9"
    ds.ReferencedImageSequence = Sequence([code, code])
    ds["ReferencedImageSequence"].is_undefined_length = True
    ds.RequestAttributesSequence = Sequence([inner])
    ds.add_new(0x00290010, "LO", "PRIVATE")
    ds.add_new(0x00291001, "OB", bytes(range(64)))
    ds.add_new(0x00291002, "UN", b"unknown " * 8)


def _describe(ds: Dataset) -> None:
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = ROWS, COLUMNS, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0


def _enhanced() -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2.1", "1.2.3.4.1"
    _identify(ds)
    _describe(ds)
    ds.NumberOfFrames = SLICES
    shared = Dataset()
    shared.PlaneOrientationSequence = Sequence([_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])])
    shared.PixelMeasuresSequence = Sequence([_item(PixelSpacing=[ROW_MM, COLUMN_MM], SliceThickness=2.5)])
    shared.PixelValueTransformationSequence = Sequence(
        [_item(RescaleSlope=1, RescaleIntercept=-1024, RescaleType="HU")]
    )
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for k in range(SLICES):
        frame = Dataset()
        frame.PlanePositionSequence = Sequence([_item(ImagePositionPatient=[-120, -200, -300 + k * STEP_MM])])
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    ds.PixelData = b"".join(plane(k).tobytes() for k in range(SLICES))
    return ds


def _item(**values: object) -> Dataset:
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


def _written(ds: Dataset, uid: str, *, compress: bool = True) -> bytes:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = EXPLICIT
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    encapsulated = pydicom.uid.UID(uid).is_encapsulated
    if encapsulated and compress:
        lossy = {f"{_U}.4.81": {"jls_error": 2}, f"{_U}.4.91": {"j2k_cr": [4]}}.get(uid, {})
        ds.compress(uid, generate_instance_uid=False, **lossy)
        if lossy:
            ds.LossyImageCompression = "01"
    if uid == SYNTAXES["big endian"]:
        ds.PixelData = np.frombuffer(ds.PixelData, np.uint16).byteswap().tobytes()
    ds.file_meta.TransferSyntaxUID = uid
    ds["PixelData"].VR = "OB" if encapsulated else "OW"
    ds["PixelData"].is_undefined_length = encapsulated
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, enforce_file_format=True)
    return out.getvalue()


def _by_gdcm(ds: Dataset, uid: str) -> bytes:
    """Pydicom has no encoder for JPEG lossless; gdcm works on files."""
    ds.StudyDate, ds.StudyTime = "20200101", "120000.000000"  # else gdcm writes the time of day
    import gdcm

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.dcm"
        path.write_bytes(_written(ds, EXPLICIT))
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(uid)))
        if not reader.Read():
            raise OSError("gdcm cannot read what was written")
        change.SetInput(reader.GetImage())
        if not change.Change():
            raise OSError("gdcm cannot encode")
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(path))
        if not writer.Write():
            raise OSError("gdcm cannot write")
        return path.read_bytes()


# --- where things are in a file


def _pixels_at(data: bytes, source: str) -> int:
    """Where the value of the pixel element begins; the length of the file if it cannot be found in plain sight."""
    tag = b"\x7f\xe0\x00\x10" if source == "big endian" else b"\xe0\x7f\x10\x00"
    at = data.rfind(tag)
    return len(data) if at < 0 else at + (8 if source in ("implicit", "without preamble") else 12)


def _meta_end(data: bytes) -> int:
    """Where the file meta information ends."""
    return 144 + struct.unpack_from("<I", data, 140)[0] if data[128:132] == b"DICM" else 0


def _elements(data: bytes, source: str) -> list[int]:
    """Where elements of the data set begin, roughly: places of tags of groups that the file has."""
    order = ">" if source == "big endian" else "<"
    start, end = _meta_end(data), min(len(data), _pixels_at(data, source))
    groups = {0x0008, 0x0010, 0x0018, 0x0020, 0x0028, 0x0029, 0x0040, 0x5200, 0x7FE0}
    return [at for at in range(start, end - 8, 2) if struct.unpack_from(order + "H", data, at)[0] in groups]


# --- damages

_Damage = Callable[[bytearray, str, np.random.Generator], bytes | bytearray]


def _struck(data: bytearray, start: int, end: int, rng: np.random.Generator) -> bytearray:
    """Some bytes or bits between two places, or a run of them."""
    start = min(start, max(0, len(data) - 1))
    end = max(start + 1, min(end, len(data)))
    way = rng.integers(0, 4)
    places = rng.integers(start, end, rng.integers(1, 6))
    if way == 0:
        for at in places:
            data[at] = rng.integers(0, 256)
    elif way == 1:
        for at in places:
            data[at] ^= 1 << int(rng.integers(0, 8))
    else:
        at, length = int(places[0]), int(min(rng.integers(1, 40), end - places[0]))
        data[at : at + length] = bytes(length) if way == 2 else rng.bytes(length)
    return data


def _header_bytes(data: bytearray, source: str, rng: np.random.Generator) -> bytearray:
    return _struck(data, _meta_end(data), _pixels_at(data, source), rng)


def _meta_bytes(data: bytearray, _: str, rng: np.random.Generator) -> bytearray:
    return _struck(data, 128, max(200, _meta_end(data)), rng)


def _codes_at(data: bytearray, source: str) -> int:
    """Where the bytes begin that pixels are decoded from."""
    return _meta_end(data) if source == "deflated" else _pixels_at(data, source) + (16 if source in COMPRESSED else 0)


def _pixel_bytes(data: bytearray, source: str, rng: np.random.Generator) -> bytearray:
    return _struck(data, _codes_at(data, source), len(data), rng)


def _one_pixel_bit(data: bytearray, source: str, rng: np.random.Generator) -> bytearray:
    data[rng.integers(min(_codes_at(data, source), len(data) - 1), len(data))] ^= 1 << int(rng.integers(0, 8))
    return data


def _stream_head(data: bytearray, source: str, rng: np.random.Generator) -> bytearray:
    """The first bytes of the pixel element: lengths and offsets of items, and the head of the codestream."""
    at = _pixels_at(data, source)
    return _struck(data, at - 8, at + 90, rng)


def _cut(data: bytearray, source: str, rng: np.random.Generator) -> bytearray:
    at = _pixels_at(data, source)
    return data[: rng.integers(0, len(data)) if rng.random() < 0.4 else rng.integers(at, len(data) + 1) - 1]


def _longer(data: bytearray, _: str, rng: np.random.Generator) -> bytearray:
    return data + (rng.bytes(int(rng.integers(1, 3000))) if rng.random() < 0.7 else bytes(int(rng.integers(1, 3000))))


def _lost_or_added(data: bytearray, _: str, rng: np.random.Generator) -> bytearray:
    at, length = int(rng.integers(0, len(data))), int(rng.integers(1, 9))
    if rng.random() < 0.5:
        del data[at : at + length]
    else:
        data[at:at] = rng.bytes(length)
    return data


def _some_element(data: bytearray, source: str, rng: np.random.Generator) -> int | None:
    places = _elements(data, source)
    return int(rng.choice(places)) if places else None


def _length(data: bytearray, source: str, rng: np.random.Generator) -> bytearray:
    """The length of an element that is another, up to 4 GiB or undefined."""
    at = _some_element(data, source, rng)
    if at is None:
        return _header_bytes(data, source, rng)
    order = ">" if source == "big endian" else "<"
    wide = source in ("implicit", "without preamble")
    value = int(
        rng.choice([0, 1, 3, 255, 65_534, 65_535, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, int(rng.integers(0, 3000))])
    )
    if wide or bytes(data[at + 4 : at + 6]) in (b"SQ", b"OB", b"OW", b"UN", b"UT"):
        struct.pack_into(order + "I", data, at + (4 if wide else 8), value)
    else:
        struct.pack_into(order + "H", data, at + 6, value & 0xFFFF)
    return data


def _representation(data: bytearray, source: str, rng: np.random.Generator) -> bytearray:
    """Another two letters where the value representation stands."""
    at = _some_element(data, source, rng)
    if at is None:
        return _header_bytes(data, source, rng)
    vrs = (b"SQ", b"UN", b"OB", b"OW", b"DS", b"US", b"UI", b"PN", b"FD", b"AT", b"UT", b"??", b"\0\0", b"ss")
    data[at + 4 : at + 6] = vrs[rng.integers(0, len(vrs))]
    return data


def _syntax_claim(data: bytearray, source: str, rng: np.random.Generator) -> bytearray:
    """Another transfer syntax in the meta information, or none that exists."""
    claims = [*SYNTAXES.values(), f"{_U}.4.50", f"{_U}.4.51", f"{_U}.4.100", "1.2.840", "", "../../etc/passwd"]
    claim = claims[rng.integers(0, len(claims))]
    own = SYNTAXES[source].encode()
    at = data.find(b"\x02\x00\x10\x00UI")
    if at < 0:
        return _header_bytes(data, source, rng)
    size = struct.unpack_from("<H", data, at + 6)[0]
    value = claim.encode() + b"\0" * (len(claim) % 2)
    if rng.random() < 0.5 and len(claim) <= len(own):
        data[at + 8 : at + 8 + size] = claim.encode().ljust(size, b"\0")
        return data
    data[at + 6 : at + 8 + size] = struct.pack("<H", len(value)) + value
    group = struct.unpack_from("<I", data, 140)[0]
    struct.pack_into("<I", data, 140, group + len(value) - size)
    return data


_EXTREMES: dict[str, tuple] = {
    "Rows": (0, 1, 33, 35, 68, 60_000, 65_535),
    "Columns": (0, 1, 16, 31, 64, 65_535),
    "BitsAllocated": (0, 1, 8, 12, 32, 64, 65_535),
    "BitsStored": (0, 1, 8, 10, 12, 15, 17, 32, 255),
    "HighBit": (0, 7, 11, 14, 16, 255),
    "PixelRepresentation": (1, 2, 65_535),
    "SamplesPerPixel": (0, 2, 3, 4, 255),
    "PhotometricInterpretation": ("MONOCHROME1", "RGB", "YBR_FULL", "PALETTE COLOR", "", "x" * 17),
    "PlanarConfiguration": (0, 1, 7),
    "NumberOfFrames": ("0", "-1", "2", "1000000000", "abc", "", "1e9"),
    "RescaleSlope": ("nan", "inf", "1e400", "0", "-1", "2", "", "one", "1e-30", "1\\2"),
    "RescaleIntercept": ("nan", "-inf", "1e300", "", "-1024.5", "1\\2"),
    "ImagePositionPatient": ("nan\\nan\\nan", "1e308\\1e308\\1e308", "0\\0", "a\\b\\c", "-120\\-200\\-297.5", "-120\\-200\\1e7"),
    "ImageOrientationPatient": ("0\\0\\0\\0\\0\\0", "1\\0\\0\\1\\0\\0", "nan\\0\\0\\0\\1\\0", "0\\1\\0\\1\\0\\0", "1\\0\\0"),
    "PixelSpacing": ("0\\0", "-1\\1", "1e-30\\1", "1e30\\1e30", "0.7", "nan\\nan", "0.6\\0.7"),
    "PixelPaddingValue": (0, 40, 940, 65_535),
    "Modality": ("MR", "", "CT\\MR", "x" * 64),
    "ImageType": ("DERIVED\\PRIMARY", "LOCALIZER", "", "\\" * 50),
    "SOPClassUID": ("1.2.840.10008.5.1.4.1.1.4", "", "../../x", "1" * 64),
    "SeriesInstanceUID": ("1.2.3.5", "", "../../x", "x" * 200),
}  # fmt: skip


def _extreme_value(data: bytearray, source: str, rng: np.random.Generator) -> bytes:
    """One or two elements with values that no image has, or that another image would have."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    ds = pydicom.dcmread(io.BytesIO(bytes(data)), force=True)
    implicit, little = ds.original_encoding
    for keyword in rng.choice(list(_EXTREMES), rng.integers(1, 3), replace=False):
        tag = Tag(tag_for_keyword(str(keyword)) or 0)
        choices = _EXTREMES[str(keyword)]
        value = choices[rng.integers(0, len(choices))]
        raw = struct.pack("<H" if little else ">H", value) if isinstance(value, int) else value.encode()
        raw += b" " * (len(raw) % 2)
        holder = ds if "multi-frame" not in source or tag in ds else _some_item(ds, rng)
        holder[tag] = RawDataElement(tag, dictionary_VR(tag).split(" ")[0], len(raw), raw, 0, implicit, little)
    out = io.BytesIO()
    if source == "without preamble":
        pydicom.dcmwrite(out, ds, implicit_vr=True, little_endian=True)
    else:
        pydicom.dcmwrite(out, ds)
    return out.getvalue()


def _some_item(ds: Dataset, rng: np.random.Generator) -> Dataset:
    groups = ds.SharedFunctionalGroupsSequence[0] if rng.random() < 0.5 else ds.PerFrameFunctionalGroupsSequence[2]
    return groups[next(iter(groups.keys()))][0]


def _hostile_sequence(data: bytearray, source: str, rng: np.random.Generator) -> bytearray:
    """Sequences nested deeply or with very many items, lengths of 4 GiB, ends that never come; before the image or in it."""
    order = ">" if source == "big endian" else "<"
    wide = source in ("implicit", "without preamble")

    def element(group: int, number: int, vr: bytes, length: int) -> bytes:
        if wide:
            return struct.pack(order + "HHI", group, number, length)
        return struct.pack(order + "HH2s2xI", group, number, vr, length)

    item = struct.pack(order + "HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    empty = struct.pack(order + "HHI", 0xFFFE, 0xE000, 0)
    open_ = element(0x0008, 0x1140, b"SQ", 0xFFFFFFFF)
    ways = (
        (open_ + item) * int(rng.choice([10, 500, 20_000])),
        open_ + empty * int(rng.choice([1000, 200_000])),
        open_ + item + element(0x0008, 0x1150, b"UN", 0xFFFFFFFF) + bytes(1 << 16),
        element(0x0029, 0x1010, b"UN", 0xFFFFFFFF) + (item + open_) * 300,
        element(0x0008, 0x1140, b"SQ", 0xFFFFFFF0) + item,
        element(0x0029, 0x1010, b"OB", 0x7FFFFFFF),
        element(0x0008, 0x1140, b"SQ", 8) + empty + bytes(int(rng.integers(0, 64))),
        b"".join(element(0x0029, 0x1000 + n % 255, b"UN", 0) for n in range(200_000)),
    )
    hostile = ways[rng.integers(0, len(ways))]
    places = _elements(data, source) or [_meta_end(data)]
    at = int(rng.choice(places)) if rng.random() < 0.7 else places[0]
    if source == "deflated":
        start = _meta_end(data)
        inner = zlib.decompress(bytes(data[start:]), -15)
        return data[:start] + _deflated(hostile + inner)
    data[at:at] = hostile
    return data


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def _inner(data: bytearray, source: str, rng: np.random.Generator) -> bytes | bytearray:
    """For a deflated file: sound deflate of damaged elements. For others: two fields of the data set exchanged."""
    if source == "deflated":
        start = _meta_end(data)
        inner = bytearray(zlib.decompress(bytes(data[start:]), -15))
        return data[:start] + _deflated(bytes(_struck(inner, 0, len(inner), rng)))
    places = _elements(data, source)
    one, other = (int(x) for x in rng.choice(places, 2)) if len(places) > 1 else (140, 150)
    data[one : one + 8], data[other : other + 8] = data[other : other + 8], data[one : one + 8]
    return data


def _bomb(data: bytearray, source: str, rng: np.random.Generator) -> bytes | bytearray:
    """Little that claims, or becomes, very much."""
    if source == "deflated":
        start = _meta_end(data)
        zeros = zlib.compressobj(9, zlib.DEFLATED, -15)
        body = b"".join(zeros.compress(bytes(1 << 20)) for _ in range(int(rng.choice([70, 300]))))
        return data[:start] + body + zeros.flush()
    at = _pixels_at(data, source)
    if "JPEG 2000" in source or "HTJ2K" in source:
        siz = data.find(b"\xff\x51", at)
        struct.pack_into(">II", data, siz + 6, *(int(x) for x in rng.choice([40_000, 0x7FFFFFFF, 0xFFFFFFFF], 2)))
    elif "JPEG" in source:
        for marker in (b"\xff\xf7", b"\xff\xc3", b"\xff\xc0"):
            frame = data.find(marker, at)
            if frame > 0:
                struct.pack_into(">HH", data, frame + 5, *(int(x) for x in rng.choice([0, 1, 40_000, 65_535], 2)))
                break
    elif "RLE" in source:
        offsets = [int(x) for x in rng.choice([0, 1, 64, 70, 5000, 0x7FFFFFFF, 0xFFFFFFFF], 3)]
        struct.pack_into("<IIII", data, at + 16, int(rng.choice([0, 1, 2, 3, 15, 16, 0xFFFFFFFF])), *offsets)
    else:
        return _struck(data, at - 8, at, rng)
    return data


DAMAGES: dict[str, tuple[float, _Damage]] = {
    "header bytes": (0.15, _header_bytes),
    "meta bytes": (0.06, _meta_bytes),
    "pixel bytes": (0.13, _pixel_bytes),
    "one pixel bit": (0.10, _one_pixel_bit),
    "head of the pixel element": (0.08, _stream_head),
    "cut off": (0.09, _cut),
    "longer": (0.02, _longer),
    "bytes lost or added": (0.05, _lost_or_added),
    "length of an element": (0.07, _length),
    "value representation": (0.03, _representation),
    "transfer syntax": (0.04, _syntax_claim),
    "extreme values": (0.09, _extreme_value),
    "hostile sequence": (0.04, _hostile_sequence),
    "exchanged, or inside the deflate": (0.02, _inner),
    "bomb": (0.03, _bomb),
}
"""What is done to a file, and how often."""


def damaged_dicom(number: int) -> DamagedDicom:
    """The slice in the middle of a small series, damaged; sources take turns."""
    rng = rng_of("dicom", number)
    source = list(SYNTAXES)[number % len(SYNTAXES)]
    shares = np.array([share for share, _ in DAMAGES.values()])
    kind = list(DAMAGES)[int(rng.choice(len(DAMAGES), p=shares / shares.sum()))]
    data = DAMAGES[kind][1](bytearray(sound_file(source, DAMAGED)), source, rng)
    return DamagedDicom(bytes(data), source, kind)


def damaged_real(data: bytes, number: int) -> DamagedDicom:
    """A file of a real series of JPEG Lossless, damaged in its header, its pixels or its length."""
    rng = rng_of("real", number)
    kinds = (
        "header bytes",
        "pixel bytes",
        "one pixel bit",
        "head of the pixel element",
        "cut off",
        "bytes lost or added",
    )
    kind = kinds[number % len(kinds)]
    return DamagedDicom(bytes(DAMAGES[kind][1](bytearray(data), "JPEG lossless", rng)), "a real series", kind)
