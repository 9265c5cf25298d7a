"""Masks as DICOM segmentations (SEG): written for a CT series, and read back onto a scan's grid by geometry alone.

Written are BINARY objects, Explicit VR Little Endian, by highdicom. Frames lie where the series' own slices lie: in its own order of
rows and columns, however it lies in the patient. What of the series' header goes along is an allow-list; without
``keep_identity`` every UID is replaced by a hash of it, the same for the same UID, and patient and dates are empty.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from pydicom.dataset import Dataset
from pydicom.uid import UID

from lungshift.ct.geometry import Geometry
from lungshift.ct.packed import AnyMask
from lungshift.ct.volume import Mask
from lungshift.errors import AnnotationError, FileFormatError, GeometryError, SeriesError
from lungshift.files import write_file
from lungshift.io.dicom import DicomSource
from lungshift.io.dicom_header import Frame, quiet_pydicom, read_identity, read_seg_file
from lungshift.io.dicom_series import MAX_VOXELS, Stack

_LOG = logging.getLogger("lungshift")
_SEGMENTATIONS = {"1.2.840.10008.5.1.4.1.1.66.4": "BINARY", "1.2.840.10008.5.1.4.1.1.66.7": "LABELMAP"}
_NO_DATE, _NO_TIME = "19000101", "000000"
_OFF_MM, _OFF_VOXEL = 0.25, 0.25
_UIDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
_PATIENT = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("AccessionNumber", "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName"),
)


@dataclass(frozen=True)
class Segment:
    """What a mask shows, by name and code.

    Attributes:
        label: Its name.
        code: Value, coding scheme and meaning of the property.
        category: The same of the property's category.
        colour: Recommended display colour as CIELab.
    """

    label: str
    code: tuple[str, str, str]
    category: tuple[str, str, str]
    colour: tuple[float, float, float]


_ABNORMAL = ("49755003", "SCT", "Morphologically Abnormal Structure")
_ANATOMY = ("123037004", "SCT", "Anatomical Structure")
GROUND_GLASS = Segment("ground-glass opacity", ("112120", "DCM", "Ground glass opacity"), _ABNORMAL, (70.0, 10.0, 60.0))
CONSOLIDATION = Segment("consolidation", ("95436008", "SCT", "Lung consolidation"), _ABNORMAL, (50.0, 60.0, 40.0))
LUNG = Segment("lung", ("39607008", "SCT", "Lung"), _ANATOMY, (70.0, -20.0, -30.0))


@dataclass(frozen=True)
class Drawn:
    """A mask of one segment, and what drew it.

    Attributes:
        segment: What it shows.
        mask: On the canonical grid of the series; packed, if there are many slices.
        method: The model or rule that made it, or ``given by the user``.
        kind: ``AUTOMATIC``, or ``SEMIAUTOMATIC`` where somebody else drew it.
    """

    segment: Segment
    mask: AnyMask
    method: str
    kind: str = "AUTOMATIC"


def hashed_uid(uid: str) -> str:
    """The UID that stands for another in everything that leaves without identity: the same for the same, and no way back.

    The first 128 bits of SHA-256 as a UUID-derived UID (``2.25.…``, PS3.5 B.2). Whoever takes the identity off the CT series in the
    same way gets a series that the segmentation refers to.
    """
    return f"2.25.{uuid.UUID(bytes=hashlib.sha256(uid.encode()).digest()[:16], version=5).int}"


def write_seg(
    drawn: Sequence[Drawn],
    source: DicomSource,
    path: Path,
    *,
    keep_identity: bool = False,
    version: str = "",
    serial: str = "none",
    description: str = "Research use only",
) -> None:
    """Write masks of a CT series as one DICOM SEG, which is read back before it counts.

    Args:
        drawn: The masks, in the order of their segment numbers; a segment without a voxel has no frame.
        source: The series, read before.
        path: Where; an existing file is replaced only once the new one is whole.
        keep_identity: Refer to the series' own images, and take over patient and study; else both are taken off.
        version: Of lungshift.
        serial: What tells one model from another, such as a checkpoint's fingerprint.
        description: For who reads the object's header.

    Raises:
        GeometryError: A mask is not on the series' grid.
        SeriesError: The series has no UIDs to refer to (``E_SEG``).
        ResourceError: The disk is full or the folder cannot be written; ``path`` is as it was.
    """
    for one in drawn:
        source.geometry.require_same(one.mask.geometry, f"Series and {one.segment.label} mask")
    with quiet_pydicom():
        # the planes are gone once it is built, before it is read back
        seg = _build(
            drawn,
            *_images_and_planes(drawn, source, keep_identity=keep_identity),
            keep_identity,
            version,
            serial,
            description,
        )

    def same(written: Path) -> bool:
        again = read_seg(written, source.geometry)
        return all(_equal(again[one.segment.label], one.mask) for one in drawn)

    def write(temporary: Path) -> None:
        with quiet_pydicom():
            seg.save_as(temporary)

    write_file(path, write, None if source.resampled else same)


def _images_and_planes(
    drawn: Sequence[Drawn], source: DicomSource, *, keep_identity: bool
) -> tuple[list[Dataset], np.ndarray]:
    """What highdicom takes for the series' images, and for each of them its planes of (row, column, segment)."""
    frames = _one_for_each_slice(source.stack)
    if _is_multiframe(source.stack):
        every, image = _multiframe(frames[0].path, keep_identity=keep_identity)
        places = [frame.index for frame in frames]
        return [image], _planes(drawn, source, len(every), places, list(range(len(frames))))
    used = _used(drawn, source, len(frames))
    images = [_image(frames[n], keep_identity=keep_identity) for n in used]
    return images, _planes(drawn, source, len(used), list(range(len(used))), used)


def _used(drawn: Sequence[Drawn], source: DicomSource, slices: int) -> list[int]:
    """The series' slices on which anything is drawn; one if there are none, for an object refers to something."""
    any_drawn = np.zeros(slices, np.bool_)
    for one in drawn:
        any_drawn |= [bool(plane.any()) for plane in source.stored_slices(one.mask)]
    return np.flatnonzero(any_drawn).tolist() or [0]


def _planes(
    drawn: Sequence[Drawn], source: DicomSource, count: int, places: list[int], slices: list[int]
) -> UInt8[np.ndarray, "plane row column segment"]:
    """``count`` planes with the chosen slices of every mask at their places."""
    planes = np.zeros((count, *source.stack.stored_shape[1:], len(drawn)), np.uint8)
    place_of = dict(zip(slices, places, strict=True))
    for number, one in enumerate(drawn):
        for index, plane in enumerate(source.stored_slices(one.mask)):
            if index in place_of:
                planes[place_of[index], :, :, number] = plane
    return planes


def _equal(one: AnyMask, other: AnyMask) -> bool:
    return all(np.array_equal(one.slice(index), other.slice(index)) for index in range(one.geometry.shape[0]))


def _one_for_each_slice(stack: Stack) -> list[Frame]:
    """Of images that are there twice, the first."""
    first = dict(zip(reversed(stack.slots), reversed(stack.frames), strict=True))
    return [first[slot] for slot in sorted(first)]


def _is_multiframe(stack: Stack) -> bool:
    return len({frame.path for frame in stack.frames}) == 1 and len(stack.frames) > 1


def _image(frame: Frame, *, keep_identity: bool) -> Dataset:
    """What a segmentation may know of a single image: its place and, hashed or not, its UIDs."""
    image = _identity(frame, keep_identity=keep_identity)
    image.Modality, image.Rows, image.Columns = "CT", frame.rows, frame.columns
    image.ImagePositionPatient, image.ImageOrientationPatient = (
        _decimals(frame.position_mm),
        _decimals(frame.orientation),
    )
    image.PixelSpacing = _decimals(frame.spacing_mm)
    image.SliceThickness = f"{frame.thickness_mm:.6g}" if frame.thickness_mm else None
    if frame.lossy:
        image.LossyImageCompression = "01"
    return image


def _multiframe(path: Path, *, keep_identity: bool) -> tuple[list[Frame], Dataset]:
    from lungshift.io.dicom_header import read_frames

    frames = read_frames(path)
    image = _image(frames[0], keep_identity=keep_identity)
    shared, image.NumberOfFrames = Dataset(), len(frames)
    shared.PixelMeasuresSequence = [_only(image, "PixelSpacing", "SliceThickness")]
    shared.PlaneOrientationSequence = [_only(image, "ImageOrientationPatient")]
    image.SharedFunctionalGroupsSequence = [shared]
    image.PerFrameFunctionalGroupsSequence = [_frame_groups(frame) for frame in frames]
    for name in ("PixelSpacing", "SliceThickness", "ImageOrientationPatient", "ImagePositionPatient"):
        delattr(image, name)
    return frames, image


def _frame_groups(frame: Frame) -> Dataset:
    groups, place = Dataset(), Dataset()
    place.ImagePositionPatient = _decimals(frame.position_mm or (0.0, 0.0, 0.0))
    groups.PlanePositionSequence = [place]
    return groups


def _only(image: Dataset, *keywords: str) -> Dataset:
    part = Dataset()
    for keyword in keywords:
        setattr(part, keyword, image.get(keyword))
    return part


def _decimals(numbers: Sequence[float] | None) -> list[str]:
    """Decimal strings of at most 16 characters, as exact as they can be."""
    from pydicom.valuerep import format_number_as_ds

    return [format_number_as_ds(float(number)) for number in numbers or ()]


def _identity(frame: Frame, *, keep_identity: bool) -> Dataset:
    """UIDs, patient and study of an image, or what stands for them."""
    header = read_identity(frame.path)
    image = Dataset()
    image.SOPClassUID = header.get("SOPClassUID") or ""
    for keyword, uid in (_real_uids if keep_identity else _hashed_uids)(frame, header).items():
        setattr(image, keyword, uid)
    for keyword in _PATIENT:
        setattr(image, keyword, header.get(keyword) or "" if keep_identity else "")
    if keep_identity:
        _keep_valid(image, header)
    return image


def _real_uids(frame: Frame, header: Dataset) -> dict[str, str]:
    uids = {keyword: str(header.get(keyword) or "") for keyword in _UIDS}
    # a series without a frame of reference is one of its own
    uids["FrameOfReferenceUID"] = uids["FrameOfReferenceUID"] or hashed_uid(uids["SeriesInstanceUID"])
    wrong = [keyword for keyword, uid in uids.items() if not UID(uid).is_valid]
    if wrong:
        raise SeriesError(
            f"{frame.path.name} has no valid {', '.join(wrong)}, so no segmentation can refer to it. Export the original images "
            "again, or leave the identity out: references are hashed then.",
            code="E_SEG",
        )
    return uids


def _hashed_uids(frame: Frame, header: Dataset) -> dict[str, str]:
    """Hashes of the UIDs; what is missing, as anonymisers leave it, is made of the series and of the image's place."""
    series = str(header.get("SeriesInstanceUID") or frame.series_uid)
    missing = {"SOPInstanceUID": f"{series} {frame.index} {frame.position_mm}"}
    return {keyword: hashed_uid(str(header.get(keyword) or missing.get(keyword, series))) for keyword in _UIDS}


def _keep_valid(image: Dataset, header: Dataset) -> None:
    """Leave out, with a word, what the standard does not allow and no writer would take."""
    from pydicom.valuerep import DA, TM

    kinds: Mapping[str, Any] = {"PatientBirthDate": DA, "StudyDate": DA, "StudyTime": TM}
    for keyword, kind in kinds.items():
        try:
            kind(image.get(keyword) or "")
        except ValueError:
            setattr(image, keyword, "")
            _LOG.warning("%s of the series is malformed and was left out of the segmentation", keyword)
    if image.PatientSex not in ("", "M", "F", "O"):
        image.PatientSex = ""
        _LOG.warning("PatientSex of the series is malformed and was left out of the segmentation")
    if "SpecificCharacterSet" in header:
        image.SpecificCharacterSet = header.SpecificCharacterSet
    for keyword in ("PatientAge", "StudyDescription", "IssuerOfPatientID"):
        if keyword in header:
            setattr(image, keyword, header.get(keyword))


def _build(
    drawn: Sequence[Drawn],
    images: list[Dataset],
    planes: np.ndarray,
    keep_identity: bool,
    version: str,
    serial: str,
    description: str,
) -> Any:
    import highdicom as hd

    key = hashlib.sha256(planes.data)
    key.update(f"{images[0].SOPInstanceUID} {serial} {version}".encode())
    uids = {part: hashed_uid(f"{part} {key.hexdigest()}") for part in ("series", "instance", "dimension")}
    if keep_identity:
        uids = {part: hd.UID() for part in uids}
    seg = _frugal(hd)(
        images,
        planes,
        hd.seg.SegmentationTypeValues.BINARY,
        [_describe(number, one, version) for number, one in enumerate(drawn, start=1)],
        series_instance_uid=uids["series"],
        series_number=900,
        sop_instance_uid=uids["instance"],
        instance_number=1,
        manufacturer="lungshift",
        manufacturer_model_name="lungshift",
        software_versions=version or "0",
        device_serial_number=serial[:64],
        content_label="LESIONS",
        content_description=description[:64],
        series_description="lungshift lesions, research use only",
        **({} if keep_identity else {"content_date": _NO_DATE, "content_time": _NO_TIME}),
    )
    _finish(seg, uids["dimension"], keep_identity=keep_identity)
    return seg


def _frugal(hd: Any) -> Any:
    """Highdicom's segmentation, which asks whether segments overlap slice by slice and not with 8 bytes for every voxel."""

    class Frugal(hd.seg.Segmentation):  # type: ignore[misc]
        @classmethod
        def _check_and_cast_pixel_array(cls, pixel_array: np.ndarray, *_: Any, **__: Any) -> tuple[np.ndarray, Any]:
            overlap = any((plane.sum(axis=-1, dtype=np.uint8) > 1).any() for plane in pixel_array)
            return pixel_array, hd.seg.SegmentsOverlapValues.YES if overlap else hd.seg.SegmentsOverlapValues.NO

    return Frugal


def _finish(seg: Any, dimension: str, *, keep_identity: bool) -> None:
    """What highdicom draws by lot or takes from the clock becomes a function of the content, and identity is marked as taken off."""
    seg.DimensionOrganizationSequence[0].DimensionOrganizationUID = dimension
    for item in seg.DimensionIndexSequence:
        item.DimensionOrganizationUID = dimension
    if not keep_identity:
        seg.InstanceCreationDate, seg.InstanceCreationTime = _NO_DATE, _NO_TIME
        for item in seg.get("ContributingEquipmentSequence") or ():
            item.ContributionDateTime = f"{_NO_DATE}{_NO_TIME}"
        seg.PatientIdentityRemoved = "YES"
        seg.DeidentificationMethod = "lungshift: allow-list of elements, UIDs hashed"
        seg.PatientID = f"anonymous-{seg.StudyInstanceUID[-12:]}"
        seg.PatientName = f"Anonymous^{seg.StudyInstanceUID[-12:]}"


def _describe(number: int, one: Drawn, version: str) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    segment = one.segment
    code, category = (hd.sr.CodedConcept(*triple) for triple in (segment.code, segment.category))
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.label,
        segmented_property_category=category,
        segmented_property_type=code,
        algorithm_type=one.kind,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=one.method[:64], family=codes.DCM.ArtificialIntelligence, version=version or "0"
        ),
        display_color=hd.color.CIELabColor(*segment.colour),
    )


def read_seg(path: Path, geometry: Geometry) -> dict[str, Mask]:
    """The segments of a DICOM SEG, our own or another's, on a scan's grid; each frame goes where its position says.

    Args:
        path: The SEG file; ``BINARY`` or ``LABELMAP``, of any number of segments, overlapping or not.
        geometry: The scan's grid. Frames may run along any of its axes, either way, and be smaller than its slices.

    Returns:
        A mask for each segment by its label; labels that occur twice get their segment number behind them.

    Raises:
        FileFormatError: No DICOM, no segmentation (``E_NOT_SEG``), or one that cannot be decoded.
        GeometryError: A frame lies between the grid's voxels or outside of it (``E_MASK_AFFINE``, ``E_MASK_SHAPE``).
        AnnotationError: A fractional segmentation (``E_SEG``).
    """
    with quiet_pydicom():
        seg = read_seg_file(path)
        kind = _kind(path, seg)
        names = _labels(seg)
        masks = {number: np.zeros(geometry.shape, np.bool_) for number in names}
        for number, plane, place in _frames(path, seg, kind, names):
            _put(path, plane, place, masks[number], geometry)
    return {name: Mask(masks[number], geometry) for number, name in names.items()}


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a frame lies: its first voxel, and the steps to the next row and column, LPS mm."""

    first: np.ndarray
    row_step: np.ndarray
    column_step: np.ndarray


def _kind(path: Path, seg: Dataset) -> str:
    sop_class = str(seg.get("SOPClassUID", ""))
    if sop_class not in _SEGMENTATIONS:
        raise FileFormatError(
            f"{path.name} is no DICOM segmentation (Modality {seg.get('Modality', 'missing')}). Give a SEG, or a mask as NIfTI.",
            code="E_NOT_SEG",
        )
    kind = str(seg.get("SegmentationType", _SEGMENTATIONS[sop_class]))
    if kind not in ("BINARY", "LABELMAP"):
        raise AnnotationError(
            f"{path.name} is a segmentation of type {kind}: shares of voxels, and somebody must say from which share on a voxel "
            "belongs. Convert it to BINARY first.",
            code="E_SEG",
        )
    return kind


def _labels(seg: Dataset) -> dict[int, str]:
    """Segment numbers to labels, each label once; the background of a label map is no segment."""
    items = [(int(item.SegmentNumber), str(item.get("SegmentLabel", "")).strip()) for item in seg.SegmentSequence]
    items = [(number, label or f"segment {number}") for number, label in items if number]
    labels = [label for _, label in items]
    return {number: label if labels.count(label) == 1 else f"{label} {number}" for number, label in items}


def _frames(
    path: Path, seg: Dataset, kind: str, names: Mapping[int, str]
) -> Iterator[tuple[int, Bool[np.ndarray, "row column"], _Place]]:
    """Every plane of every segment with its place."""
    shared = (seg.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    per_frame = seg.get("PerFrameFunctionalGroupsSequence") or []
    frames = int(seg.get("NumberOfFrames") or 1)
    if len(per_frame) != frames:
        raise FileFormatError(f"{path.name} has {frames} frames and places for {len(per_frame)}.", code="E_FORMAT")
    for plane, groups in zip(_pixels(path, seg), per_frame, strict=True):
        place = _place(path, groups, shared)
        if kind == "LABELMAP":
            yield from ((number, plane == number, place) for number in names if (plane == number).any())
        else:
            yield _segment_of(groups, shared), plane.astype(np.bool_), place


def _pixels(path: Path, seg: Dataset) -> Iterator[np.ndarray]:
    """The frames one after another; bits are unpacked frame by frame, for together they are eight times the file."""
    frames, rows, columns = int(seg.get("NumberOfFrames") or 1), int(seg.Rows), int(seg.Columns)
    if frames * rows * columns > 4 * MAX_VOXELS:
        raise FileFormatError(f"{path.name} claims {frames} frames of {rows} x {columns}.", code="E_TOO_LARGE")
    if int(seg.BitsAllocated) == 1 and not seg.file_meta.TransferSyntaxUID.is_compressed:
        packed, size = np.frombuffer(seg.PixelData, np.uint8), rows * columns
        if len(packed) * 8 < frames * size:
            raise FileFormatError(f"The pixels of {path.name} are cut off.", code="E_TRUNCATED")
        for first in range(0, frames * size, size):
            bits = np.unpackbits(packed[first // 8 : -(-(first + size) // 8)], bitorder="little")
            yield bits[first % 8 : first % 8 + size].reshape(rows, columns)
        return
    try:
        pixels = seg.pixel_array
    except Exception as error:  # pydicom raises whatever the damage leads to
        raise FileFormatError(
            f"The pixels of {path.name} cannot be decoded ({type(error).__name__}).", code="E_DECODE"
        ) from None
    yield from (pixels if pixels.ndim == 3 else pixels[None])


def _segment_of(groups: Dataset, shared: Dataset) -> int:
    found = groups.get("SegmentIdentificationSequence") or shared.get("SegmentIdentificationSequence")
    return int(found[0].ReferencedSegmentNumber)


def _place(path: Path, groups: Dataset, shared: Dataset) -> _Place:
    def first(sequence: str, keyword: str) -> np.ndarray:
        found = groups.get(sequence) or shared.get(sequence)
        values = found[0].get(keyword) if found else None
        if values is None:
            raise FileFormatError(f"A frame of {path.name} does not say where it lies ({keyword}).", code="E_POSITION")
        return np.array([float(value) for value in values])

    along_row, along_column = first("PlaneOrientationSequence", "ImageOrientationPatient").reshape(2, 3)
    row_mm, column_mm = first("PixelMeasuresSequence", "PixelSpacing")
    return _Place(first("PlanePositionSequence", "ImagePositionPatient"), along_column * row_mm, along_row * column_mm)


def _put(path: Path, plane: np.ndarray, place: _Place, voxels: np.ndarray, geometry: Geometry) -> None:
    """Add a plane to the mask where it lies."""
    to_index = np.linalg.inv(geometry.affine)
    start = to_index[:3, :3] @ place.first + to_index[:3, 3]
    steps = np.stack([to_index[:3, :3] @ place.row_step, to_index[:3, :3] @ place.column_step])
    axes, signs = (
        np.abs(steps).argmax(axis=1),
        np.sign(np.round(steps[[0, 1], np.abs(steps).argmax(axis=1)])).astype(int),
    )
    whole = np.zeros((2, 3))
    whole[[0, 1], axes] = signs
    counts = np.array(plane.shape) - 1
    corners = [
        start + row * steps[0] * counts[0] + column * steps[1] * counts[1] for row in (0, 1) for column in (0, 1)
    ]
    meant = [
        np.rint(start) + row * whole[0] * counts[0] + column * whole[1] * counts[1]
        for row in (0, 1)
        for column in (0, 1)
    ]
    off = np.abs(np.array(corners) - meant).max(axis=0)
    allowed = np.minimum(_OFF_VOXEL, _OFF_MM / np.array(geometry.spacing_mm))
    if axes[0] == axes[1] or not signs.all() or (off > allowed).any():
        raise GeometryError(
            f"{path.name} does not lie on the scan's voxels: a frame is up to {off.max():.2g} voxels off. "
            "Was it drawn on another series? Resample it to this one first, if they belong together.",
            code="E_MASK_AFFINE",
        )
    if (np.array(meant) < 0).any() or (np.array(meant) >= geometry.shape).any():
        raise GeometryError(
            f"{path.name} reaches beyond the scan: a frame runs to voxel {np.array(meant).max(axis=0).astype(int).tolist()} of "
            f"{geometry.shape} (slices, rows, columns). Was it drawn on another series?",
            code="E_MASK_SHAPE",
        )
    low, high = np.min(meant, axis=0).astype(int), np.max(meant, axis=0).astype(int)
    window = voxels[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))]
    turned = plane[:: signs[0], :: signs[1]]
    turned = turned if axes[0] < axes[1] else turned.T
    window |= np.expand_dims(turned, 3 - int(axes.sum()))
