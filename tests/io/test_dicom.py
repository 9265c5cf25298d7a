"""A world of 12 small slices with one bright voxel, written in every way that a scanner or an archive might."""

from __future__ import annotations

import errno
import logging
import os
import random
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from lungshift.errors import (
    FileFormatError,
    GeometryError,
    IntensityError,
    LungshiftError,
    MissingError,
    ResourceError,
    SeriesError,
)
from lungshift.io import dicom_decode, dicom_header, dicom_series
from lungshift.io.dicom import DicomSource, list_series, read_series
from lungshift.io.dicom_series import Choices, scan_folder

SLICES, ROWS, COLUMNS = 12, 34, 32  # JPEG 2000 wants at least 32 pixels
BRIGHT = (7, 3, 5)
STEP_MM, ROW_MM, COLUMN_MM = 2.5, 0.7, 0.6
ORIGIN = np.array([-120.0, -200.0, -300.0])
AXIAL = (1, 0, 0, 0, 1, 0)
SERIES = "1.2.3.4.5"

Change = Callable[[Dataset, int], None]


def stored_world(k: int) -> np.ndarray:
    """Slice k of the world as stored: air of 24 HU steps, one voxel of 1000 HU, HU + 1024."""
    plane = (np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) % 7 * 3 + k + 20).astype(np.uint16)
    if k == BRIGHT[0]:
        plane[BRIGHT[1:]] = 2024
    return plane


def ct_slice(k: int, orientation: tuple[float, ...] = AXIAL, change: Change | None = None) -> Dataset:
    row, column = np.reshape(orientation, (2, 3))
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = CTImageStorage, generate_uid(), "CT"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SeriesInstanceUID, ds.SeriesNumber, ds.InstanceNumber = SERIES, 3, SLICES - k
    ds.ImagePositionPatient = (ORIGIN + k * STEP_MM * np.cross(row, column)).round(6).tolist()
    ds.ImageOrientationPatient, ds.PixelSpacing, ds.SliceThickness = list(orientation), [ROW_MM, COLUMN_MM], 2.5
    ds.RescaleSlope, ds.RescaleIntercept = 1, -1024
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = ROWS, COLUMNS, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = stored_world(k).tobytes()
    if change:
        change(ds, k)
    return ds


def save(ds: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> None:
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = np.frombuffer(ds.PixelData, np.uint16).byteswap().tobytes()
    if pydicom.uid.UID(syntax).is_compressed and syntax != DeflatedExplicitVRLittleEndian:
        ds.compress(syntax, generate_instance_uid=False)
    ds.file_meta.TransferSyntaxUID = syntax
    ds["PixelData"].VR = "OB" if ds["PixelData"].is_undefined_length else "OW"
    pydicom.dcmwrite(path, ds, enforce_file_format=True)


def write_series(
    folder: Path,
    *,
    slices: list[int] | range = range(SLICES),
    orientation: tuple[float, ...] = AXIAL,
    syntax: str = ExplicitVRLittleEndian,
    change: Change | None = None,
    name: str = "im{:03d}.dcm",
) -> Path:
    folder.mkdir(exist_ok=True)
    for k in slices:
        save(ct_slice(k, orientation, change), folder / name.format(k), syntax)
    return folder


def world_hu() -> np.ndarray:
    return np.stack([stored_world(k) for k in range(SLICES)]).astype(np.int16) - 1024


def bright_mm(orientation: tuple[float, ...]) -> np.ndarray:
    row, column = np.reshape(orientation, (2, 3))
    k, r, c = BRIGHT
    return ORIGIN + k * STEP_MM * np.cross(row, column) + r * ROW_MM * column + c * COLUMN_MM * row


def found_mm(volume) -> np.ndarray:
    return volume.geometry.world_mm(np.array(np.unravel_index(volume.hu.argmax(), volume.hu.shape)))


def refusal(folder: Path, **choices) -> LungshiftError:
    with pytest.raises(LungshiftError) as caught:
        read_series(folder, **choices)
    return caught.value


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return write_series(tmp_path / "scan")


# --- the main path


def test_a_plain_series_is_read_in_hu_on_its_own_grid(plain):
    volume = read_series(plain)
    assert volume.hu.dtype == np.int16
    assert np.array_equal(volume.hu, world_hu())
    assert volume.geometry.spacing_mm == pytest.approx((STEP_MM, ROW_MM, COLUMN_MM))
    assert volume.geometry.affine[:3, 3] == pytest.approx(ORIGIN)


@pytest.mark.parametrize(
    "orientation",
    [
        pytest.param(AXIAL, id="head first"),
        pytest.param((-1, 0, 0, 0, 1, 0), id="feet first: columns run left to right, slices head to foot"),
        pytest.param((1, 0, 0, 0, -1, 0), id="rows run back to front"),
        pytest.param((-1, 0, 0, 0, -1, 0), id="prone"),
        pytest.param((0, 1, 0, 1, 0, 0), id="rows and columns swapped"),
        pytest.param((1, 0, 0, 0, 0, -1), id="coronal"),
        pytest.param((0, 1, 0, 0, 0, -1), id="sagittal"),
    ],
)
def test_the_bright_voxel_stays_where_it_is_in_the_patient(tmp_path, orientation):
    folder = write_series(tmp_path / "scan", orientation=orientation)
    volume = read_series(folder)
    assert found_mm(volume) == pytest.approx(bright_mm(orientation), abs=1e-4)
    streamed = np.stack([part.hu for part in DicomSource(folder).slices()])
    assert np.array_equal(streamed, volume.hu)


def test_all_24_ways_to_lie_in_the_scanner_keep_the_bright_voxel_in_place(tmp_path):
    axes = [tuple(sign * x for x in axis) for axis in ((1, 0, 0), (0, 1, 0), (0, 0, 1)) for sign in (1, -1)]
    ways = [(*row, *column) for row in axes for column in axes if not np.dot(row, column)]
    for n, orientation in enumerate(ways):
        volume = read_series(write_series(tmp_path / str(n), orientation=orientation))
        assert found_mm(volume) == pytest.approx(bright_mm(orientation), abs=1e-4)
    assert n == 23


def test_a_drift_within_the_rounding_of_positions_is_no_tilt(tmp_path):
    def drift(ds, k):
        ds.ImagePositionPatient = [ORIGIN[0] + (0.1 if k == SLICES - 1 else 0), ORIGIN[1], ORIGIN[2] + k * STEP_MM]

    assert np.array_equal(read_series(write_series(tmp_path / "s", change=drift)).hu, world_hu())


def test_order_is_by_position_not_by_name_or_instance_number(tmp_path):
    folder = write_series(tmp_path / "scan")
    names = sorted(folder.iterdir())
    for path, name in zip(names, random.Random(0).sample(range(90), len(names)), strict=True):
        path.rename(folder / f"{name:02d}")
    assert np.array_equal(read_series(folder).hu, world_hu())


def test_a_series_is_found_in_subfolders(tmp_path, plain):
    assert np.array_equal(read_series(tmp_path).hu, world_hu())


def test_a_series_list_says_what_is_there_without_naming_anybody(plain):
    (info,) = list_series(plain)
    assert (info.uid, info.number, info.slices, info.thickness_mm) == (SERIES, 3, SLICES, 2.5)
    assert info.problems == ()


def test_a_fractional_slope_gives_float_hu(tmp_path):
    volume = read_series(write_series(tmp_path / "s", change=lambda ds, k: setattr(ds, "RescaleSlope", 0.5)))
    assert volume.hu.dtype == np.float32
    assert volume.hu.max() == 2024 * 0.5 - 1024


def test_signed_values_of_12_bits_keep_their_sign(tmp_path):
    def signed(ds, k):
        ds.PixelRepresentation, ds.RescaleIntercept = 1, 0
        ds.PixelData = ((stored_world(k).astype(np.int16) - 1024) & 0x0FFF).astype(np.uint16).tobytes()

    assert np.array_equal(read_series(write_series(tmp_path / "s", change=signed)).hu, world_hu())


# --- faults, by their numbers


def test_f30_declared_padding_becomes_air_and_is_logged(tmp_path, caplog):
    def pad(ds, k):
        plane = stored_world(k).astype(np.int16) - 1024
        plane[0] = -2000
        ds.PixelRepresentation, ds.RescaleIntercept, ds.BitsStored, ds.HighBit = 1, 0, 16, 15
        ds.PixelData = plane.tobytes()
        ds.add_new("PixelPaddingValue", "US", 65536 - 2000)

    folder = write_series(tmp_path / "s", change=pad)
    volume = read_series(folder)
    assert (volume.hu[:, 0] == -1024).all()
    assert "declared padding" in caplog.text


def test_f30_undeclared_padding_is_logged_and_kept(tmp_path, caplog):
    def pad(ds, k):
        plane = stored_world(k).astype(np.int16) - 1024
        plane[0] = -3024
        ds.PixelRepresentation, ds.RescaleIntercept, ds.BitsStored, ds.HighBit = 1, 0, 16, 15
        ds.PixelData = plane.tobytes()

    volume = read_series(write_series(tmp_path / "s", change=pad))
    assert (volume.hu[:, 0] == -3024).all()
    assert "not declared as padding" in caplog.text


def test_padding_that_would_turn_tissue_into_air_is_ignored(tmp_path):
    volume = read_series(write_series(tmp_path / "s", change=lambda ds, k: setattr(ds, "PixelPaddingValue", 2024)))
    assert volume.hu.max() == 1000


def test_f47_missing_slices_are_named_by_their_positions(tmp_path):
    error = refusal(write_series(tmp_path / "s", slices=[0, 1, 2, 3, 4, 6, 7, 8, 9, 11]))
    assert isinstance(error, SeriesError)
    assert error.code == "E_GAP"
    assert "2 slices are missing" in str(error)
    assert "z = -287.5, -275 mm" in str(error)


def test_f47_a_gap_is_interpolated_on_request(tmp_path):
    folder = write_series(tmp_path / "s", slices=[k for k in range(SLICES) if k != 4])
    volume = read_series(folder, uneven="interpolate")
    assert np.array_equal(volume.hu, world_hu())
    assert volume.geometry.spacing_mm[0] == pytest.approx(STEP_MM)


def test_f48_a_slice_stored_twice_is_dropped_with_a_warning(plain, caplog):
    (plain / "copy.dcm").write_bytes((plain / "im004.dcm").read_bytes())
    assert np.array_equal(read_series(plain).hu, world_hu())
    assert "copy.dcm and im004.dcm are the same image twice" in caplog.text


def test_f48_two_images_at_one_position_are_refused(plain):
    def other(ds, k):
        ds.PixelData = (stored_world(k) + 1).tobytes()

    save(ct_slice(4, change=other), plain / "other.dcm")
    error = refusal(plain)
    assert error.code == "E_DUP"
    assert "im004.dcm and other.dcm" in str(error)


def test_f49_two_series_are_listed_and_one_can_be_chosen(tmp_path):
    write_series(tmp_path / "s")

    def second(ds, k):
        ds.SeriesInstanceUID, ds.SeriesNumber, ds.ConvolutionKernel = "1.2.9", 4, "B70f"
        ds.RescaleIntercept = -1000

    write_series(tmp_path / "s", change=second, name="b{:03d}")
    error = refusal(tmp_path / "s")
    assert error.code == "E_SERIES"
    for words in ("1.2.9", SERIES, "12 slices of 2.5 mm", "B70f", "series_uid"):
        assert words in str(error)
    assert read_series(tmp_path / "s", series_uid="1.2.9").hu.max() == 1024
    assert np.array_equal(read_series(tmp_path / "s", series_uid=SERIES).hu, world_hu())
    assert refusal(tmp_path / "s", series_uid="1.2").code == "E_SERIES"


def test_f50_what_is_no_ct_slice_is_passed_over_with_a_reason(plain, caplog):
    def scout(ds, k):
        ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    def dose(ds, k):
        ds.SOPClassUID, ds.SeriesInstanceUID = SecondaryCaptureImageStorage, "1.2.99"

    def report(ds, k):
        ds.Modality, ds.SOPClassUID, ds.SeriesInstanceUID = "SR", "1.2.840.10008.5.1.4.1.1.88.67", "1.2.98"

    save(ct_slice(0, (1, 0, 0, 0, 0, -1), scout), plain / "scout.dcm")
    save(ct_slice(0, change=dose), plain / "dose.dcm")
    save(ct_slice(0, change=report), plain / "report.dcm")
    save(ct_slice(2, (1, 0, 0, 0, 0, -1)), plain / "odd.dcm")
    (plain / "notes.txt").write_text("hello, this is no DICOM file at all")
    assert np.array_equal(read_series(plain).hu, world_hu())
    assert "scout.dcm: a localizer" in caplog.text
    assert "dose.dcm, report.dcm: of another series" in caplog.text
    assert "odd.dcm: another orientation" in caplog.text
    assert "notes.txt: not a DICOM file" in caplog.text
    assert {info.uid for info in list_series(plain)} == {SERIES, "1.2.98", "1.2.99"}


def test_f50_two_stacks_in_one_series_are_refused(plain):
    write_series(plain, orientation=(1, 0, 0, 0, 0, -1), name="c{:03d}")
    assert refusal(plain).code == "E_ORIENTATION"


def test_f50_too_few_slices_are_refused(tmp_path):
    folder = write_series(tmp_path / "s", slices=range(6))
    error = refusal(folder)
    assert error.code == "E_FEW"
    assert "6 slices" in str(error)
    assert read_series(folder, min_slices=4).hu.shape[0] == 6


def tilted(ds, k):
    ds.ImagePositionPatient = [-120, -200 + k * STEP_MM * np.tan(np.radians(15)), -300 + k * STEP_MM]
    ds.GantryDetectorTilt = 15


def test_f51_a_gantry_tilt_is_refused_unless_resampled(tmp_path):
    folder = write_series(tmp_path / "s", change=tilted)
    error = refusal(folder)
    assert isinstance(error, GeometryError)
    assert error.code == "E_TILT"
    assert "15" in str(error)
    volume = read_series(folder, oblique="resample")
    shifted = bright_mm(AXIAL) + np.array([0, BRIGHT[0] * STEP_MM * np.tan(np.radians(15)), 0])
    assert np.abs(found_mm(volume) - shifted).max() <= STEP_MM / 2


def test_an_oblique_series_is_refused_unless_resampled(tmp_path):
    turn = np.radians(10)
    orientation = (np.cos(turn), np.sin(turn), 0, -np.sin(turn), np.cos(turn), 0)
    folder = write_series(tmp_path / "s", orientation=orientation)
    error = refusal(folder)
    assert error.code == "E_OBLIQUE"
    volume = read_series(folder, oblique="resample")
    assert np.abs(found_mm(volume) - bright_mm(orientation)).max() <= ROW_MM
    assert volume.hu.min() == -1024


def test_f52_unequal_spacing_is_refused_or_interpolated(tmp_path):
    def thick_then_thin(ds, k):
        ds.ImagePositionPatient = [*ORIGIN[:2], -300 + (5 * k if k < 6 else 25 + (k - 5))]

    folder = write_series(tmp_path / "s", change=thick_then_thin)
    error = refusal(folder)
    assert error.code == "E_SPACING"
    assert "6 x 1 mm" in str(error)
    assert "5 x 5 mm" in str(error)
    volume = read_series(folder, uneven="interpolate")
    assert volume.geometry.spacing_mm[0] == pytest.approx(1)
    assert volume.geometry.shape[0] == 32
    assert found_mm(volume)[2] == pytest.approx(-300 + 27)


def test_f52_interpolating_to_more_than_any_scan_is_refused_before_memory_is_taken(tmp_path):
    def far(ds, k):
        ds.ImagePositionPatient = [*ORIGIN[:2], 0.02 * k if k < SLICES - 1 else 9e5]

    assert refusal(write_series(tmp_path / "s", change=far), uneven="interpolate").code == "E_SIZE"


def test_positions_rounded_to_a_tenth_of_a_millimetre_are_regular(tmp_path):
    def rounded(ds, k):
        ds.ImagePositionPatient = [*ORIGIN[:2], round(-300 + 0.625 * k, 1)]

    spacing = read_series(write_series(tmp_path / "s", change=rounded)).geometry.spacing_mm[0]
    assert spacing == pytest.approx(0.625, abs=0.01)


def test_slices_shifted_in_their_plane_are_refused(tmp_path):
    def shift(ds, k):
        if k == 5:
            ds.ImagePositionPatient = [ORIGIN[0] + 3, ORIGIN[1], ORIGIN[2] + k * STEP_MM]

    error = refusal(write_series(tmp_path / "s", change=shift))
    assert error.code == "E_POSITION"
    assert "im005.dcm" in str(error)


def test_f53_each_slice_has_its_own_rescale(tmp_path):
    def rescale(ds, k):
        ds.RescaleIntercept = -1024 - k
        ds.PixelData = (stored_world(k) + k).tobytes()

    assert np.array_equal(read_series(write_series(tmp_path / "s", change=rescale)).hu, world_hu())


@pytest.mark.parametrize("slope", [1e-30, 0.01, -1e-6])
def test_f53_a_slope_that_makes_one_value_of_air_and_bone_is_refused(tmp_path, slope):
    def flat(ds, k):
        if k == 4:
            ds.RescaleSlope = slope

    error = refusal(write_series(tmp_path / "s", change=flat))
    assert error.code == "E_NOT_HU"
    assert "im004.dcm" in str(error)


def test_f53_a_missing_rescale_is_refused_and_the_file_named(tmp_path):
    def drop(ds, k):
        if k == 3:
            del ds.RescaleIntercept

    error = refusal(write_series(tmp_path / "s", change=drop))
    assert isinstance(error, IntensityError)
    assert error.code == "E_NOT_HU"
    assert "im003.dcm" in str(error)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"RescaleIntercept": 0}, "air would not be below 0 HU"),
        ({"RescaleType": "MGML"}, "RescaleType"),
        ({"RescaleSlope": 0}, "no RescaleSlope"),
        ({"BitsStored": 8, "HighBit": 7}, "8 bits"),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME1"),
    ],
)
def test_values_that_are_not_hu_are_refused(tmp_path, change, words):
    error = refusal(write_series(tmp_path / "s", change=lambda ds, k: ds.update(as_dataset(change))))
    assert error.code == "E_NOT_HU"
    assert words in str(error)


def as_dataset(values: dict) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def test_values_that_never_go_below_zero_are_refused_after_decoding(tmp_path):
    error = refusal(write_series(tmp_path / "s", change=lambda ds, k: setattr(ds, "RescaleIntercept", -1)))
    assert error.code == "E_NOT_HU"


def test_every_reason_is_listed_once(tmp_path):
    def wreck(ds, k):
        ds.Modality, ds.ImageOrientationPatient, ds.RescaleIntercept = "NM", [0] * 6, 0
        del ds.ImagePositionPatient

    error = refusal(write_series(tmp_path / "s", change=wreck))
    assert error.code == "E_NOT_HU"
    for words in ("Modality is NM", "no position", "0\\0\\0\\0\\0\\0", "intercept 0"):
        assert str(error).count(words) == 1


def test_a_structure_set_or_segmentation_alone_is_refused_by_its_name(tmp_path):
    def to_rtstruct(ds, k):
        ds.Modality, ds.SOPClassUID = "RTSTRUCT", "1.2.840.10008.5.1.4.1.1.481.3"

    error = refusal(write_series(tmp_path / "s", slices=[0], change=to_rtstruct))
    assert isinstance(error, SeriesError)
    assert "Modality is RTSTRUCT, not CT" in str(error)


def enhanced(path: Path, syntax: str = ExplicitVRLittleEndian) -> None:
    ds = ct_slice(0)
    ds.SOPClassUID, ds.NumberOfFrames = EnhancedCTImageStorage, SLICES
    shared, frames = Dataset(), []
    shared.PlaneOrientationSequence = [as_dataset({"ImageOrientationPatient": list(AXIAL)})]
    shared.PixelMeasuresSequence = [as_dataset({"PixelSpacing": [ROW_MM, COLUMN_MM], "SliceThickness": 2.5})]
    rescale = {"RescaleSlope": 1, "RescaleIntercept": -1024, "RescaleType": "HU"}
    shared.PixelValueTransformationSequence = [as_dataset(rescale)]
    order = random.Random(1).sample(range(SLICES), SLICES)
    for k in order:
        frame = Dataset()
        place = {"ImagePositionPatient": [*ORIGIN[:2], ORIGIN[2] + k * STEP_MM]}
        frame.PlanePositionSequence = [as_dataset(place)]
        frames.append(frame)
    ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence = [shared], frames
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(ds, keyword)
    ds.PixelData = np.stack([stored_world(k) for k in order]).tobytes()
    save(ds, path, syntax)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless])
def test_f54_a_multi_frame_enhanced_ct_is_read_frame_by_frame(tmp_path, syntax):
    enhanced(tmp_path / "enhanced.dcm", syntax)
    volume = read_series(tmp_path / "enhanced.dcm")
    assert np.array_equal(volume.hu, world_hu())
    assert volume.geometry.spacing_mm == pytest.approx((STEP_MM, ROW_MM, COLUMN_MM))


def change_file(path: Path, change: Callable[[Dataset], object]) -> None:
    ds = pydicom.dcmread(path)
    change(ds)
    ds.save_as(path)


def test_f54_frames_that_are_fewer_than_declared_are_refused(tmp_path):
    enhanced(tmp_path / "enhanced.dcm")
    change_file(tmp_path / "enhanced.dcm", lambda ds: ds.PerFrameFunctionalGroupsSequence.pop())
    error = refusal(tmp_path)
    assert "12 frames are declared and 11 described" in str(error)


def test_f54_a_rescale_counts_in_its_own_group_only(tmp_path):
    enhanced(tmp_path / "enhanced.dcm")

    def stray(ds):
        ds.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0].RescaleSlope = -1
        ds.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImagePositionPatient = [0, 0, 0]

    change_file(tmp_path / "enhanced.dcm", stray)
    assert np.array_equal(read_series(tmp_path).hu, world_hu())


def test_f55_a_deflated_file_that_is_cut_off_is_refused_though_its_pixels_are_there(tmp_path):
    folder = write_series(tmp_path / "s", syntax=DeflatedExplicitVRLittleEndian)
    path = folder / "im006.dcm"
    path.write_bytes(path.read_bytes()[:-4])
    assert refusal(folder).code == "E_GAP"
    with pytest.raises(FileFormatError, match="cut off"):
        dicom_header.read_frames(path)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("count", [1, 3, 7, 40])
def test_f55_bytes_that_slipped_into_the_pixels_are_noticed_by_what_is_left_at_the_end(tmp_path, caplog, syntax, count):
    folder = write_series(tmp_path / "s", syntax=syntax)
    data = (folder / "im006.dcm").read_bytes()
    (folder / "im006.dcm").write_bytes(data[:-500] + b"x" * count + data[-500:])
    notes = DicomSource(folder).notes
    assert [note for note in notes if "im006.dcm: bytes after its pixels that are no DICOM" in note]


@pytest.mark.parametrize("tail", [bytes(700), b"\xfc\xff\xfc\xffOB\0\0\x02\0\0\0\0\0"], ids=["zeros", "padding"])
def test_f55_padding_after_the_pixels_is_nothing_to_notice(plain, tail):
    (plain / "im006.dcm").write_bytes((plain / "im006.dcm").read_bytes() + tail)
    source = DicomSource(plain)
    assert source.notes == ()
    assert np.array_equal(source.read_volume().hu, world_hu())


def test_f55_more_pixels_than_the_header_declares_are_noticed(tmp_path):
    def longer(ds, k):
        if k == 6:
            ds.PixelData = ds.PixelData + b"xxxx"

    folder = write_series(tmp_path / "s", change=longer)
    assert "im006.dcm: 4 bytes more in its pixels than its header declares" in DicomSource(folder).notes


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_f55_every_encoding_of_the_header_is_read(tmp_path, syntax):
    assert np.array_equal(read_series(write_series(tmp_path / "s", syntax=syntax)).hu, world_hu())


@pytest.mark.parametrize("implicit", [True, False])
def test_f55_files_without_preamble_and_meta_are_read(tmp_path, implicit):
    for k in range(SLICES):
        pydicom.dcmwrite(tmp_path / f"IM{k}", ct_slice(k), implicit_vr=implicit, little_endian=True)
    assert np.array_equal(read_series(tmp_path).hu, world_hu())


def claim(path: Path, syntax: bytes) -> None:
    """Change what the file says of its encoding, and nothing else."""
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", syntax.ljust(20, b"\0"), 1))


def test_f55_explicit_elements_under_an_implicit_claim_are_read(plain):
    for path in plain.iterdir():
        claim(path, b"1.2.840.10008.1.2")
    assert np.array_equal(read_series(plain).hu, world_hu())


@pytest.mark.parametrize(
    ("syntax", "code"),
    [
        pytest.param(b"1.2.840.10008.1.2.2", None, id="big-endian"),
        pytest.param(b"1.2.840.10008.1.9", "E_SYNTAX", id="no transfer syntax at all"),
        pytest.param(b"1.2.840.10008.1.2.5", "E_DECODE", id="RLE"),
        pytest.param(b"1.2.840.10008.1.2.4", "E_SYNTAX", id="half a UID"),
    ],
)
def test_f55_a_wrong_claim_is_refused_with_a_reason(plain, syntax, code):
    for path in plain.iterdir():
        claim(path, syntax)
    assert refusal(plain).code in ([code] if code else ["E_NO_DICOM", "E_MODALITY", "E_SERIES", "E_NOT_HU"])


def test_f55_a_deflate_bomb_is_refused_without_inflating_it(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_header, "_INFLATED_BYTES", 1 << 20)
    save(ct_slice(0), tmp_path / "a.dcm", DeflatedExplicitVRLittleEndian)
    start = (tmp_path / "a.dcm").read_bytes()
    end = 132 + 12 + struct.unpack("<I", start[140:144])[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    (tmp_path / "a.dcm").write_bytes(
        start[:end] + packer.compress(b"\x08\x00\x08\x00" + bytes(30 << 20)) + packer.flush()
    )
    error = refusal(tmp_path)
    assert error.code == "E_NO_DICOM"
    assert "a.dcm: deflated to more than" in str(error)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_f56_lossless_compression_is_equal_to_raw_to_the_bit(tmp_path, syntax):
    assert np.array_equal(read_series(write_series(tmp_path / "s", syntax=syntax)).hu, world_hu())


def test_f56_jpeg_lossless_is_equal_to_raw_to_the_bit(plain):
    import gdcm

    for path in plain.iterdir():  # pydicom has no encoder for it; gdcm works on files
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(path))
        assert writer.Write()
    assert all(frame.compressed for frame in DicomSource(plain).stack.frames)
    assert np.array_equal(read_series(plain).hu, world_hu())


def test_f88_a_decoder_that_is_not_installed_is_named_and_the_file_is_not_called_damaged(tmp_path, monkeypatch):
    folder = write_series(tmp_path / "s", syntax=JPEGLSLossless)
    (tmp_path / "jpeg_ls.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))

    with pytest.raises(MissingError, match="needs pyjpegls, which is not installed") as caught:
        read_series(folder)
    assert (caught.value.code, caught.value.exit_code) == ("E_DECODER", 5)


def test_f57_lossy_compression_is_warned_about_and_recorded(tmp_path, caplog):
    def derived(ds, k):
        ds.ImageType, ds.LossyImageCompression = ["DERIVED", "PRIMARY", "AXIAL"], "01"

    source = DicomSource(write_series(tmp_path / "s", syntax=JPEGLSNearLossless, change=derived))
    volume, _, _ = source.read()
    assert np.abs(volume.hu - world_hu()).max() <= 3
    assert any("with loss" in note for note in source.notes)
    assert "with loss" in caplog.text


def corrupt(path: Path, seed: int) -> None:
    rng, data = random.Random(seed), bytearray(path.read_bytes())
    start = data.rfind(b"\xe0\x7f\x10\x00") + 12
    for _ in range(4):
        data[rng.randrange(start, len(data))] = rng.randrange(256)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_f58_corrupt_streams_are_read_or_refused_with_a_type_while_the_parent_lives(tmp_path, syntax):
    folder = write_series(tmp_path / "s", syntax=syntax)
    for seed, path in enumerate(sorted(folder.iterdir())):
        corrupt(path, seed)
    error = refusal(folder)
    assert error.code in {"E_DECODE", "E_TRUNCATED"}


def test_f58_run_lengths_that_make_more_than_the_picture_are_no_picture(tmp_path):
    def longer(ds, k):
        if k == 6:
            ds.Rows = ROWS + 2
            ds.PixelData = stored_world(k).tobytes() + bytes(4 * COLUMNS)

    folder = write_series(tmp_path / "s", syntax=RLELossless, change=longer)
    change_file(folder / "im006.dcm", lambda ds: setattr(ds, "Rows", ROWS))
    error = refusal(folder)
    assert error.code == "E_DECODE"
    assert "im006.dcm" in str(error)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        pytest.param("import os; os.abort()", "crashed", id="abort"),
        pytest.param("import time; time.sleep(60)", "did not end within", id="hang"),
        pytest.param("print('what?', flush=True)", "crashed", id="nonsense"),
    ],
)
def test_f58_a_worker_that_dies_hangs_or_babbles_is_one_typed_error(tmp_path, monkeypatch, program, words):
    monkeypatch.setattr(dicom_decode, "WORKER", (sys.executable, "-c", program))
    monkeypatch.setattr(dicom_decode, "START_LIMIT_S", 1.0)
    error = refusal(write_series(tmp_path / "s", syntax=RLELossless))
    assert isinstance(error, FileFormatError)
    assert error.code == "E_DECODE"
    assert words in str(error)


def test_f58_the_worker_cannot_take_all_memory():
    program = "from lungshift.io import dicom_decode as d; d._limit_resources(); bytearray(8 << 30)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "MemoryError" in done.stderr


def test_a_file_cut_off_in_its_pixels_is_named(plain):
    path = plain / "im006.dcm"
    path.write_bytes(path.read_bytes()[:-40])
    error = refusal(plain)
    assert error.code == "E_TRUNCATED"
    assert "im006.dcm" in str(error)


@pytest.mark.parametrize("keep", [0, 1, 100, 140, 300])
def test_a_file_cut_off_in_its_header_is_passed_over_and_its_slice_missed(plain, keep, caplog):
    path = plain / "im006.dcm"
    path.write_bytes(path.read_bytes()[:keep])
    assert refusal(plain).code in {"E_GAP", "E_POSITION", "E_NOT_HU"}


def element(tag: tuple[int, int], vr: bytes, length: int) -> bytes:
    return struct.pack("<HH2s2xI", *tag, vr, length)


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(
            element((0x0008, 0x1140), b"SQ", 0xFFFFFFFF)
            + (struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + element((0x0008, 0x1140), b"SQ", 0xFFFFFFFF)) * 20_000,
            id="20 000 nested sequences",
        ),
        pytest.param(element((0x0008, 0x2112), b"SQ", 0xFFFFFFFF) + b"\xfe\xff\x00\xe0\0\0\0\0" * 600_000, id="items"),
        pytest.param(element((0x0008, 0x2112), b"OB", 0xFFFFFFFF) + bytes(1 << 20), id="undefined length, no end"),
        pytest.param(element((0x0008, 0x0060), b"UT", 0xFFFFFFF0) + b"CT", id="4 GiB that are not there"),
        pytest.param(bytes(8 << 20), id="zeros"),
    ],
)
def test_f59_hostile_headers_are_refused_at_once(tmp_path, tail):
    start = pydicom.filebase.DicomBytesIO()
    pydicom.dcmwrite(start, as_dataset({"SOPClassUID": CTImageStorage}), implicit_vr=False, little_endian=True)
    head = b"\0" * 128 + b"DICM"
    meta = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"
    (tmp_path / "x.dcm").write_bytes(head + meta + start.getvalue() + tail)
    began = time.process_time()
    assert isinstance(refusal(tmp_path), LungshiftError)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"BurnedInAnnotation": "YES"}, "burned into"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "allow_derived"),
        ({"SOPClassUID": SecondaryCaptureImageStorage}, "Secondary Capture"),
    ],
)
def test_f60_screenshots_and_reformats_are_refused_by_default(tmp_path, change, words):
    folder = write_series(tmp_path / "s", change=lambda ds, k: ds.update(as_dataset(change)))
    error = refusal(folder)
    assert isinstance(error, SeriesError)
    assert words in str(error)


def test_f60_derived_images_are_read_on_request(tmp_path):
    folder = write_series(tmp_path / "s", change=lambda ds, k: setattr(ds, "ImageType", ["DERIVED", "PRIMARY"]))
    assert np.array_equal(read_series(folder, allow_derived=True).hu, world_hu())


SECRETS = ("Zaphod", "19520311", "PID4711", "Magrathea", "20240229")


def identify(ds: Dataset, k: int) -> None:
    ds.PatientName, ds.PatientBirthDate, ds.PatientID = "Zaphod^Beeblebrox", "19520311", "PID4711"
    ds.InstitutionName, ds.StudyDate, ds.SeriesDescription = "Magrathea", "20240229", "Zaphod's thorax"


@pytest.mark.parametrize("fault", ["none", "gap", "not hu", "cut", "invalid values"])
def test_f61_nothing_that_names_a_person_is_said(tmp_path, caplog, capfd, fault):
    caplog.set_level(logging.DEBUG)

    def change(ds, k):
        identify(ds, k)
        if fault == "not hu":
            ds.RescaleIntercept = 0
        if fault == "invalid values":
            ds.add_new(0x00180050, "DS", "2.5")
            ds["SliceThickness"]._value = "Zaphod"

    slices = [k for k in range(SLICES) if fault != "gap" or k != 5]
    folder = write_series(tmp_path / "s", slices=slices, change=change)
    if fault == "cut":
        (folder / "im003.dcm").write_bytes((folder / "im003.dcm").read_bytes()[:-30])
    said = repr(DicomSource(folder)) + repr(list_series(folder)) + repr(scan_folder(folder))
    try:
        said += repr(DicomSource(folder).read())
    except LungshiftError as error:
        said += str(error) + repr(error.__cause__) + repr(error.__context__) * (not error.__suppress_context__)
    said += caplog.text + "".join(capfd.readouterr())
    assert not [secret for secret in SECRETS if secret in said]


def test_f62_links_that_lead_out_of_the_folder_are_not_followed(tmp_path, caplog):
    folder = write_series(tmp_path / "s")
    write_series(tmp_path / "elsewhere", slices=[0])
    (folder / "link.dcm").symlink_to(tmp_path / "elsewhere" / "im000.dcm")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    assert np.array_equal(read_series(folder).hu, world_hu())
    assert "link.dcm, linked: a link that leads out of the folder" in caplog.text


def test_f62_links_within_the_folder_are_read_like_any_double(plain, caplog):
    (plain / "again.dcm").symlink_to(plain / "im002.dcm")
    assert np.array_equal(read_series(plain).hu, world_hu())
    assert "the same image twice" in caplog.text


def test_a_pipe_in_the_folder_is_never_opened(plain, caplog):
    os.mkfifo(plain / "pipe")
    assert np.array_equal(read_series(plain).hu, world_hu())
    assert "pipe: not a regular file" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root can open every file")
def test_files_that_cannot_be_opened_are_listed(plain, caplog):
    (plain / "im011.dcm").chmod(0)
    assert read_series(plain).hu.shape[0] == SLICES - 1
    assert "im011.dcm: cannot be opened" in caplog.text


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.EMFILE, ResourceError, "Too many open files. Close other programs"),
        (errno.EIO, FileFormatError, "im003.dcm cannot be read .*: the disk it is on fails"),
    ],
    ids=["no handles", "broken disk"],
)
def test_f76_a_slice_that_the_machine_cannot_read_is_not_passed_over(plain, monkeypatch, number, kind, says):
    read = dicom_series.read_frames

    def fail(path):
        if path.name == "im003.dcm":
            raise OSError(number, os.strerror(number), str(path))
        return read(path)

    monkeypatch.setattr(dicom_series, "read_frames", fail)
    with pytest.raises(kind, match=says):
        read_series(plain)


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: None], ids=["empty", "absent"])
def test_an_empty_or_absent_folder_is_refused(tmp_path, make):
    make(tmp_path / "s")
    assert refusal(tmp_path / "s").code in {"E_NO_DICOM", "E_NO_FOLDER"}


def test_a_claim_of_absurd_size_is_refused_before_memory_is_taken(tmp_path):
    def huge(ds, k):
        ds.Rows = ds.Columns = 60_000

    assert refusal(write_series(tmp_path / "s", change=huge)).code == "E_SIZE"


# --- as the source of a case


def test_a_source_knows_its_grid_from_the_headers_and_its_files_by_checksum(plain):
    source = DicomSource(plain, choices=Choices(min_slices=12))
    assert source.geometry.shape == (SLICES, ROWS, COLUMNS)
    assert (source.has_lung, source.has_lesion) == (False, False)
    assert sorted(source.checksums()) == ["how it is read", *(f"scan im{k:03d}.dcm" for k in range(SLICES))]
    assert source.read()[1:] == (None, None)


def test_a_mask_on_the_scans_grid_comes_with_it(plain, tmp_path):
    import nibabel as nib

    geometry = DicomSource(plain).geometry
    voxels = world_hu() > 0
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ geometry.affine[:, [2, 1, 0, 3]]
    nib.Nifti1Image(voxels.T.astype(np.uint8), affine).to_filename(tmp_path / "lesion.nii.gz")
    source = DicomSource(plain, lesion=tmp_path / "lesion.nii.gz")
    _, lung, lesion = source.read()
    assert lung is None
    assert np.array_equal(lesion.voxels, voxels)
    assert [part.lesion.any() for part in source.slices()].index(True) == BRIGHT[0]
    assert "lesion lesion.nii.gz" in source.checksums()


# --- real scans


@pytest.mark.real
def test_the_siemens_series_reads_with_air_at_its_usual_hu(real_data):
    volume = read_series(real_data / "dicom" / "siemens_covid")
    assert volume.geometry.shape == (50, 512, 512)
    assert volume.geometry.spacing_mm == pytest.approx((2, 0.603515625, 0.603515625))
    assert np.median(volume.hu[25, :40, 200:300]) == pytest.approx(-1000, abs=25)
    # the heart lies to the patient's left, the table behind
    assert np.mean(volume.hu[:, 200:300, 260:330] > -200) > np.mean(volume.hu[:, 200:300, 150:220] > -200)


@pytest.mark.real
def test_the_converted_series_is_refused_with_every_reason(real_data):
    error = refusal(real_data / "dicom" / "not_hu")
    assert isinstance(error, IntensityError)
    for words in ("Modality is NM", "no position", "0\\0\\0\\0\\0\\0", "0 to 4095"):
        assert words in str(error)
