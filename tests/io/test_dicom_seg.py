"""A segmentation lies in the patient where its mask lay, whatever the series' order; and says nothing of who it is."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask
from lungshift.errors import AnnotationError, FileFormatError, GeometryError, LungshiftError, SeriesError
from lungshift.io.dicom import DicomSource, read_series
from lungshift.io.dicom_seg import CONSOLIDATION, GROUND_GLASS, LUNG, Drawn, hashed_uid, read_seg, write_seg
from lungshift.io.dicom_series import Choices
from series import TOKENS, tilted, turned, write_ct, write_enhanced

GRID = Geometry.regular((12, 20, 16), (2.5, 0.7, 0.6), (-120.0, -200.0, -300.0))
FLIPS = list(itertools.product((False, True), repeat=3))


def world() -> np.ndarray:
    """Slices that differ from each other, in HU."""
    n, rows, columns = GRID.shape
    return (np.arange(rows * columns).reshape(rows, columns) % 7 * 3 + 20 * np.arange(n)[:, None, None] - 1000).astype(
        np.int16
    )


def blob(seed: int, geometry: Geometry = GRID) -> Mask:
    """A lopsided mask: no flip and no turn of it is itself."""
    voxels = np.random.default_rng(seed).random(geometry.shape) < 0.1
    voxels[: geometry.shape[0] // 2, : geometry.shape[1] // 2] = False
    return Mask(voxels, geometry)


def flip(array: np.ndarray, flips: tuple[bool, bool, bool]) -> np.ndarray:
    return np.flip(array, [axis for axis, way in enumerate(flips) if way])


def points_of(path: Path) -> dict[str, np.ndarray]:
    """LPS mm of every voxel of every segment, by the standard's own arithmetic (PS3.3 C.7.6.2.1.1), with nothing of ours."""
    seg = pydicom.dcmread(path)
    rows, columns = seg.Rows, seg.Columns
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    frames = bits[: seg.NumberOfFrames * rows * columns].reshape(-1, rows, columns)
    shared = seg.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    row_mm, column_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    found: dict[str, list[np.ndarray]] = {item.SegmentLabel: [] for item in seg.SegmentSequence}
    names = {item.SegmentNumber: item.SegmentLabel for item in seg.SegmentSequence}
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        first = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        row, column = np.nonzero(frame)
        points = first + column[:, None] * column_mm * orientation[:3] + row[:, None] * row_mm * orientation[3:]
        identified = groups.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence
        found[names[identified[0].ReferencedSegmentNumber]].append(points)
    return {name: np.concatenate([np.zeros((0, 3)), *parts]) for name, parts in found.items()}


def same_points(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two sets of points are one, within a hundredth of a millimetre."""
    from scipy.spatial import cKDTree

    if len(one) != len(other) or not len(one):
        return len(one) == len(other)
    return bool(cKDTree(one).query(other)[0].max() < 0.01 and cKDTree(other).query(one)[0].max() < 0.01)


def drawn(lung: Mask | None = None, lesion: Mask | None = None) -> list[Drawn]:
    lesion = lesion or blob(1)
    return [
        Drawn(GROUND_GLASS, lesion, "a model"),
        Drawn(CONSOLIDATION, blob(2), "a model"),
        Drawn(LUNG, lung or blob(3), "threshold"),
    ]


@pytest.fixture
def source(tmp_path: Path) -> DicomSource:
    return DicomSource(write_ct(tmp_path / "ct", world(), GRID.affine))


@pytest.mark.parametrize("flips", FLIPS, ids=lambda flips: "".join("-+"[not one] for one in flips))
def test_an_independent_reader_finds_the_mask_where_it_is_in_the_patient(tmp_path: Path, flips: tuple) -> None:
    shuffled = np.random.default_rng(0).permutation(12).tolist()
    source = DicomSource(write_ct(tmp_path / "ct", flip(world(), flips), turned(GRID, flips), order=shuffled))
    masks = drawn()

    write_seg(masks, source, tmp_path / "seg.dcm")

    points = points_of(tmp_path / "seg.dcm")
    for one in masks:
        assert same_points(points[one.segment.label], GRID.world_mm(np.argwhere(one.mask.voxels))), one.segment.label


@pytest.mark.parametrize("flips", FLIPS[:3], ids=str)
def test_it_is_read_back_voxel_by_voxel(tmp_path: Path, flips: tuple) -> None:
    source = DicomSource(write_ct(tmp_path / "ct", flip(world(), flips), turned(GRID, flips)))
    write_seg(drawn(), source, tmp_path / "seg.dcm")

    again = read_seg(tmp_path / "seg.dcm", source.geometry)

    assert list(again) == ["ground-glass opacity", "consolidation", "lung"]
    for one in drawn():
        np.testing.assert_array_equal(again[one.segment.label].voxels, one.mask.voxels)


def test_a_coronal_series_is_segmented_in_its_own_planes(tmp_path: Path) -> None:
    affine = GRID.affine[:, [1, 0, 2, 3]]  # its slices run front to back, its rows foot to head
    source = DicomSource(write_ct(tmp_path / "ct", world().transpose(1, 0, 2), affine))
    write_seg(drawn(), source, tmp_path / "seg.dcm")

    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (seg.Rows, seg.Columns) == (12, 16)
    assert same_points(points_of(tmp_path / "seg.dcm")["lung"], GRID.world_mm(np.argwhere(blob(3).voxels)))
    np.testing.assert_array_equal(read_seg(tmp_path / "seg.dcm", source.geometry)["lung"].voxels, blob(3).voxels)


@pytest.mark.parametrize("keep_identity", [False, True])
def test_a_multi_frame_series_is_referred_to_frame_by_frame(tmp_path: Path, keep_identity: bool) -> None:
    shuffled = np.random.default_rng(0).permutation(12).tolist()
    source = DicomSource(write_enhanced(tmp_path / "ct.dcm", world(), GRID.affine, order=shuffled))
    np.testing.assert_array_equal(source.read_volume().hu, world())

    write_seg(drawn(), source, tmp_path / "seg.dcm", keep_identity=keep_identity)

    points, again = points_of(tmp_path / "seg.dcm"), read_seg(tmp_path / "seg.dcm", source.geometry)
    for one in drawn():
        assert same_points(points[one.segment.label], GRID.world_mm(np.argwhere(one.mask.voxels))), one.segment.label
        np.testing.assert_array_equal(again[one.segment.label].voxels, one.mask.voxels)
    referred = pydicom.dcmread(tmp_path / "seg.dcm").ReferencedSeriesSequence[0].ReferencedInstanceSequence
    uid = "1.2.826.0.1.12"
    assert {item.ReferencedSOPInstanceUID for item in referred} == {uid if keep_identity else hashed_uid(uid)}


def test_on_an_oblique_series_the_mask_goes_to_the_nearest_voxels_of_its_own_slices(tmp_path: Path) -> None:
    affine = tilted(GRID.affine, 20.0)
    folder = write_ct(tmp_path / "ct", world(), affine)
    source = DicomSource(folder, choices=Choices(oblique="resample"))
    centre = source.geometry.world_mm(np.array(source.geometry.shape) // 2)
    voxels = np.stack(np.meshgrid(*map(np.arange, source.geometry.shape), indexing="ij"), axis=-1)
    ball = Mask(np.linalg.norm(source.geometry.world_mm(voxels) - centre, axis=-1) < 4.0, source.geometry)

    write_seg([Drawn(LUNG, ball, "threshold")], source, tmp_path / "seg.dcm")

    points = points_of(tmp_path / "seg.dcm")["lung"]
    own = np.linalg.inv(affine) @ np.column_stack([points, np.ones(len(points))]).T
    assert np.abs(own[:3] - np.rint(own[:3])).max() < 0.01, "frames lie on the series' own voxels"
    assert np.linalg.norm(points - centre, axis=1).max() < 4.0 + 1.5
    assert abs(len(points) * 2.5 * 0.7 * 0.6 - 4 / 3 * np.pi * 4.0**3) < 30, "mm³ of the ball"
    tilted_grid = Geometry(GRID.shape, affine)
    assert read_seg(tmp_path / "seg.dcm", tilted_grid)["lung"].voxels.sum() == len(points)


def test_it_says_what_it_shows_in_the_codes_of_the_standard(source: DicomSource, tmp_path: Path) -> None:
    write_seg(drawn(), source, tmp_path / "seg.dcm", version="0.1.0", serial="f0276f")

    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    codes = [
        (
            item.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator,
            item.SegmentedPropertyTypeCodeSequence[0].CodeValue,
        )
        for item in seg.SegmentSequence
    ]
    assert codes == [("DCM", "112120"), ("SCT", "95436008"), ("SCT", "39607008")]
    categories = [item.SegmentedPropertyCategoryCodeSequence[0].CodeValue for item in seg.SegmentSequence]
    assert categories == ["49755003", "49755003", "123037004"]
    assert (seg.SegmentationType, seg.file_meta.TransferSyntaxUID, seg.DeviceSerialNumber) == (
        "BINARY",
        "1.2.840.10008.1.2.1",
        "f0276f",
    )
    assert "research use only" in seg.SeriesDescription


def test_with_identity_it_refers_to_the_series_own_images(source: DicomSource, tmp_path: Path) -> None:
    write_seg(drawn(), source, tmp_path / "seg.dcm", keep_identity=True)

    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    referred = {item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert referred == {f"1.2.826.0.1.11.{k + 1}" for k in range(12)}
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.826.0.1.11"
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID) == ("1.2.826.0.1.10", "1.2.826.0.1.10.5")
    assert (seg.PatientName, seg.PatientID, seg.StudyDate) == (
        TOKENS["PatientName"],
        TOKENS["PatientID"],
        TOKENS["StudyDate"],
    )
    assert "InstitutionName" not in seg, "only patient and study go along"
    groups = seg.PerFrameFunctionalGroupsSequence[0]
    image = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
    k = int(image.rpartition(".")[2]) - 1
    assert float(groups.PlanePositionSequence[0].ImagePositionPatient[2]) == pytest.approx(-300 + 2.5 * k), (
        "the image at that place"
    )


def test_without_identity_no_token_and_no_uid_of_the_series_is_in_the_file(source: DicomSource, tmp_path: Path) -> None:
    write_seg(drawn(), source, tmp_path / "seg.dcm")

    data = (tmp_path / "seg.dcm").read_bytes()
    assert not [token for token in (*TOKENS.values(), "1.2.826.0.1.1") if token.encode() in data]
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert seg.PatientIdentityRemoved == "YES"
    assert (seg.StudyDate, seg.AccessionNumber, seg.PatientBirthDate) == ("", "", "")


def test_hashed_references_are_those_of_a_series_whose_uids_are_hashed_alike(
    source: DicomSource, tmp_path: Path
) -> None:
    write_seg(drawn(), source, tmp_path / "seg.dcm")

    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == hashed_uid("1.2.826.0.1.11")
    assert seg.FrameOfReferenceUID == hashed_uid("1.2.826.0.1.10.5")
    assert all(
        pydicom.uid.UID(uid).is_valid for uid in (seg.StudyInstanceUID, seg.SOPInstanceUID, seg.SeriesInstanceUID)
    )


def test_equal_masks_of_one_series_give_equal_bytes(source: DicomSource, tmp_path: Path) -> None:
    for name in ("one.dcm", "two.dcm"):
        write_seg(drawn(), source, tmp_path / name)

    assert (tmp_path / "one.dcm").read_bytes() == (tmp_path / "two.dcm").read_bytes()


def test_a_segment_without_a_voxel_is_named_and_has_no_frame(source: DicomSource, tmp_path: Path) -> None:
    nothing = Mask(np.zeros(GRID.shape, bool), GRID)
    write_seg(
        [Drawn(GROUND_GLASS, nothing, "a model"), Drawn(LUNG, blob(3), "threshold")], source, tmp_path / "seg.dcm"
    )

    again = read_seg(tmp_path / "seg.dcm", source.geometry)
    assert not again["ground-glass opacity"].voxels.any()
    assert again["lung"].voxels.any()


def test_images_that_lost_their_uids_are_referred_to_by_their_place_or_not_at_all(tmp_path: Path) -> None:
    def without(ds: Dataset, k: int) -> None:
        ds.SOPInstanceUID = ""

    source = DicomSource(write_ct(tmp_path / "ct", world(), GRID.affine, change=without))
    write_seg(drawn(), source, tmp_path / "seg.dcm")

    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    referred = [item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence]
    assert len(set(referred)) == 12
    with pytest.raises(SeriesError, match="no valid SOPInstanceUID") as caught:
        write_seg(drawn(), source, tmp_path / "real.dcm", keep_identity=True)
    assert caught.value.code == "E_SEG"
    assert not (tmp_path / "real.dcm").exists()


def test_a_malformed_birth_date_is_left_out_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def odd(ds: Dataset, k: int) -> None:
        ds["PatientBirthDate"]._value = "about 1960"
        ds["PatientSex"]._value = "WEIBLICH"

    source = DicomSource(write_ct(tmp_path / "ct", world(), GRID.affine, change=odd))
    write_seg(drawn(), source, tmp_path / "seg.dcm", keep_identity=True)

    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (seg.PatientBirthDate, seg.PatientSex, seg.PatientID) == ("", "", TOKENS["PatientID"])
    assert "PatientBirthDate of the series is malformed" in caplog.text
    assert "1960" not in caplog.text


def test_a_mask_of_another_grid_is_not_written(source: DicomSource, tmp_path: Path) -> None:
    other = Geometry.regular((12, 20, 16), (2.5, 0.7, 0.6))

    with pytest.raises(GeometryError, match="Series and lung mask do not fit"):
        write_seg([Drawn(LUNG, blob(3, other), "threshold")], source, tmp_path / "seg.dcm")


# --- segmentations of others


def foreign(
    path: Path,
    mask: Mask,
    *,
    kind: str = "BINARY",
    window: tuple[slice, slice] = (slice(None), slice(None)),
    syntax: str = "1.2.840.10008.1.2.1",
    shift_mm: float = 0.0,
) -> Path:
    """A segmentation written by hand: frames from head to foot, each with its own orientation, perhaps a part of the slice."""
    geometry = mask.geometry
    seg = Dataset()
    seg.SOPClassUID = SegmentationStorage if kind != "LABELMAP" else "1.2.840.10008.5.1.4.1.1.66.7"
    seg.SOPInstanceUID, seg.Modality, seg.SegmentationType = "1.2.3.9", "SEG", kind
    seg.SegmentSequence = [Dataset(), Dataset()]
    for number, item in enumerate(seg.SegmentSequence, start=1):
        item.SegmentNumber, item.SegmentLabel = number, "Lesion"
    planes = np.stack([mask.voxels[k][window] for k in reversed(range(geometry.shape[0]))])
    seg.NumberOfFrames, seg.Rows, seg.Columns = planes.shape
    groups = []
    for k in reversed(range(geometry.shape[0])):
        item, place, plane, measures, segment = (Dataset() for _ in range(5))
        first = geometry.world_mm(np.array([k, window[0].start or 0, window[1].start or 0])) + np.array(
            [shift_mm, 0, 0]
        )
        place.ImagePositionPatient, plane.ImageOrientationPatient = [f"{x:.5f}" for x in first], [1, 0, 0, 0, 1, 0]
        measures.PixelSpacing, segment.ReferencedSegmentNumber = list(geometry.spacing_mm[1:]), 2
        item.PlanePositionSequence, item.PlaneOrientationSequence, item.PixelMeasuresSequence = (
            [place],
            [plane],
            [measures],
        )
        item.SegmentIdentificationSequence = [segment]
        groups.append(item)
    seg.PerFrameFunctionalGroupsSequence = groups
    bits = 1 if kind == "BINARY" else 8
    seg.BitsAllocated = seg.BitsStored = bits
    seg.HighBit, seg.PixelRepresentation, seg.SamplesPerPixel, seg.PhotometricInterpretation = (
        bits - 1,
        0,
        1,
        "MONOCHROME2",
    )
    data = np.packbits(planes, bitorder="little") if bits == 1 else (planes * 2).astype(np.uint8)
    seg.PixelData = data.tobytes() + b"\0" * (data.size % 2)
    seg["PixelData"].VR = "OB"
    seg.file_meta = pydicom.dataset.FileMetaDataset()
    seg.file_meta.TransferSyntaxUID = syntax
    seg.file_meta.MediaStorageSOPClassUID, seg.file_meta.MediaStorageSOPInstanceUID = seg.SOPClassUID, "1.2.3.9"
    if pydicom.uid.UID(syntax).is_compressed:
        seg.PixelData = pydicom.encaps.encapsulate([seg.PixelData])
        seg["PixelData"].is_undefined_length = True
    pydicom.dcmwrite(path, seg, enforce_file_format=True)
    return path


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_a_segmentation_of_others_is_read_by_position_though_it_runs_from_head_to_foot(
    tmp_path: Path, kind: str
) -> None:
    masks = read_seg(foreign(tmp_path / "seg.dcm", blob(4), kind=kind), GRID)

    assert list(masks) == ["Lesion 1", "Lesion 2"], "two segments of one label are told apart"
    np.testing.assert_array_equal(masks["Lesion 2"].voxels, blob(4).voxels)
    assert not masks["Lesion 1"].voxels.any()


def test_frames_that_show_a_part_of_the_slice_go_where_they_belong(tmp_path: Path) -> None:
    part = np.zeros(GRID.shape, bool)
    part[:, 10:15, 3:9] = blob(4).voxels[:, 10:15, 3:9]

    masks = read_seg(foreign(tmp_path / "seg.dcm", Mask(part, GRID), window=(slice(10, 15), slice(3, 9))), GRID)

    np.testing.assert_array_equal(masks["Lesion 2"].voxels, part)


@pytest.mark.parametrize(
    ("shift_mm", "code"),
    [
        pytest.param(0.3, "E_MASK_AFFINE", id="half a voxel aside"),
        pytest.param(6.0, "E_MASK_SHAPE", id="ten voxels aside, so out of the scan"),
    ],
)
def test_a_segmentation_of_another_scan_is_refused(tmp_path: Path, shift_mm: float, code: str) -> None:
    with pytest.raises(GeometryError, match="another series") as caught:
        read_seg(foreign(tmp_path / "seg.dcm", blob(4), shift_mm=shift_mm), GRID)

    assert caught.value.code == code


@pytest.mark.parametrize(
    ("make", "error", "code"),
    [
        pytest.param(
            lambda path: foreign(path, blob(4), kind="FRACTIONAL"), AnnotationError, "E_SEG", id="shares of voxels"
        ),
        pytest.param(lambda path: path.write_bytes(b"no DICOM" * 50), FileFormatError, "E_NOT_DICOM", id="no DICOM"),
        pytest.param(lambda path: None, FileFormatError, "E_NO_FILE", id="no file"),
        pytest.param(
            lambda path: foreign(path, blob(4), syntax="1.2.840.10008.1.2.4.90"),
            FileFormatError,
            "E_SYNTAX",
            id="JPEG 2000",
        ),
    ],
)
def test_what_cannot_be_read_as_masks_is_refused_by_name(
    tmp_path: Path, make, error: type[LungshiftError], code: str
) -> None:
    make(tmp_path / "seg.dcm")

    with pytest.raises(error) as caught:
        read_seg(tmp_path / "seg.dcm", GRID)

    assert caught.value.code == code


def changed(path: Path, change) -> Path:
    """A segmentation of others with something wrong in it."""
    seg = pydicom.dcmread(foreign(path, blob(4)))
    change(seg)
    seg.save_as(path)
    return path


def without_places(seg: Dataset) -> None:
    for groups in seg.PerFrameFunctionalGroupsSequence:
        del groups.PlanePositionSequence


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        pytest.param(
            lambda seg: seg.PerFrameFunctionalGroupsSequence.pop(), "E_FORMAT", "and places for", id="a place"
        ),
        pytest.param(without_places, "E_POSITION", "does not say where it lies", id="the places"),
        pytest.param(lambda seg: setattr(seg, "PixelData", seg.PixelData[:20]), "E_TRUNCATED", "cut off", id="pixels"),
        pytest.param(lambda seg: setattr(seg, "Rows", 4000), "E_TRUNCATED", "cut off", id="rows that it claims"),
    ],
)
def test_a_segmentation_with_something_missing_is_refused_by_name(
    tmp_path: Path, change, code: str, words: str
) -> None:
    with pytest.raises(FileFormatError, match=words) as caught:
        read_seg(changed(tmp_path / "seg.dcm", change), GRID)

    assert caught.value.code == code


def test_a_claim_of_more_frames_than_memory_holds_is_refused_before_any_is_made(tmp_path: Path) -> None:
    def boast(seg: Dataset) -> None:
        seg.Rows = seg.Columns = 65535

    with pytest.raises(FileFormatError, match="frames of 65535 x 65535") as caught:
        read_seg(changed(tmp_path / "seg.dcm", boast), GRID)
    assert caught.value.code == "E_TOO_LARGE"


def test_a_ct_image_is_no_segmentation(source: DicomSource, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"no DICOM segmentation \(Modality CT\)"):
        read_seg(tmp_path / "ct" / "im000.dcm", GRID)


# --- and where a CT was expected


@pytest.mark.parametrize(
    ("modality", "sop_class", "name"),
    [
        pytest.param("SEG", SegmentationStorage, "a DICOM segmentation (SEG) is drawn on a CT", id="SEG"),
        pytest.param(
            "RTSTRUCT", "1.2.840.10008.5.1.4.1.1.481.3", "a set of contours (RTSTRUCT) is drawn on a CT", id="RTSTRUCT"
        ),
    ],
)
def test_a_drawing_given_where_a_scan_was_expected_is_refused_by_name_with_what_to_do(
    tmp_path: Path, modality: str, sop_class: str, name: str
) -> None:
    def drawing(ds: Dataset, k: int) -> None:
        ds.Modality, ds.SOPClassUID = modality, sop_class
        if modality == "RTSTRUCT":
            del ds.Rows, ds.Columns

    with pytest.raises(SeriesError) as caught:
        read_series(write_ct(tmp_path / "drawing", world(), GRID.affine, change=drawing))

    assert caught.value.code == "E_MODALITY"
    assert name in str(caught.value)
    assert "Give the folder of the CT series" in str(caught.value)


def test_a_segmentation_beside_its_series_does_no_harm(source: DicomSource, tmp_path: Path) -> None:
    write_seg(drawn(), source, tmp_path / "ct" / "seg.dcm", keep_identity=True)

    assert np.array_equal(read_series(tmp_path / "ct").hu, world())
