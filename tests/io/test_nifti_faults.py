"""Every fault of NIfTI intake that is known by a number (F01 to F40) and what becomes of it."""

from __future__ import annotations

import errno
import gzip
import io
import logging
import struct
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from lungshift.errors import AnnotationError, FileFormatError, GeometryError, InputError, IntensityError
from lungshift.io.header import Intake, read_header
from lungshift.io.nifti import NiftiSource, read_mask, read_volume
from lungshift.io.voxels import Labels

SHAPE = (6, 5, 4)
RNG = np.random.default_rng(7)
SCAN = RNG.integers(-1000, 400, SHAPE).astype(np.int16)
SCAN[0, 0, 0] = -1000


def nifti(array: np.ndarray = SCAN, affine: np.ndarray | None = None, kind: type = nib.Nifti1Image) -> nib.Nifti1Image:
    image = kind(array, np.diag([-0.7, -0.7, 5, 1.0]) if affine is None else affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, 1)
    image.set_qform(image.affine, 1)
    return image


def raw_bytes(image: nib.Nifti1Image | None = None, **fields: object) -> bytearray:
    """The uncompressed file, with header fields overwritten after nibabel's own checks."""
    image = image or nifti()
    data = bytearray(image.to_bytes())
    kind = type(image.header)
    header = kind(bytes(data[: kind.sizeof_hdr]), image.header.endianness, check=False)
    for name, value in fields.items():
        header[name] = value
    data[: kind.sizeof_hdr] = header.binaryblock
    return data


@pytest.fixture
def put(tmp_path: Path) -> Callable[..., Path]:
    def write(data: bytes, name: str = "scan.nii") -> Path:
        path = tmp_path / name
        path.write_bytes(gzip.compress(bytes(data), mtime=0) if name.endswith(".gz") else bytes(data))
        return path

    return write


def reason(path: Path, **keywords: object) -> str:
    with pytest.raises(InputError) as caught:
        read_volume(path, **keywords)
    assert str(path) in str(caught.value)
    return caught.value.code


def stream_reason(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        list(NiftiSource(path).slices())
    return caught.value.code


@pytest.mark.parametrize("percent", [1, 10, 50, 90, 99])
def test_f01_a_truncated_gzip_is_refused(put: Callable[..., Path], percent: int) -> None:
    path = put(raw_bytes(nifti(RNG.integers(-1000, 400, (40, 40, 20)).astype(np.int16))), "scan.nii.gz")
    data = path.read_bytes()
    path.write_bytes(data[: max(20, len(data) * percent // 100)])
    assert reason(path) == "E_TRUNCATED"
    assert stream_reason(path) == "E_TRUNCATED"


def test_f01_a_truncated_plain_file_is_refused(put: Callable[..., Path]) -> None:
    assert reason(put(raw_bytes()[:-1])) == "E_TRUNCATED"


@pytest.mark.parametrize("where", np.linspace(0.3, 0.98, 12).tolist())
def test_f02_a_flipped_bit_in_the_compressed_voxels_is_refused(put: Callable[..., Path], where: float) -> None:
    path = put(raw_bytes(nifti(RNG.integers(-1000, 400, (40, 40, 20)).astype(np.int16))), "scan.nii.gz")
    data = bytearray(path.read_bytes())
    data[int(len(data) * where)] ^= 4
    path.write_bytes(data)
    assert reason(path) in {"E_CRC", "E_TRUNCATED", "E_TRAILING", "E_NOT_HU"}
    assert stream_reason(path) in {"E_CRC", "E_TRUNCATED", "E_TRAILING"}


@pytest.mark.parametrize("where", [-1, -5], ids=["length", "crc"])
def test_f03_a_wrong_gzip_trailer_is_refused(put: Callable[..., Path], where: int) -> None:
    path = put(raw_bytes(), "scan.nii.gz")
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    assert reason(path) == "E_CRC"
    assert stream_reason(path) == "E_CRC"


def test_f04_bytes_after_the_gzip_stream_are_a_warning_or_strictly_an_error(
    put: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    path = put(raw_bytes(), "scan.nii.gz")
    path.write_bytes(path.read_bytes() + b"sixteen bytes...")
    assert np.array_equal(np.sort(read_volume(path).hu, axis=None), np.sort(SCAN, axis=None))
    assert "after the end of its gzip stream" in caplog.text
    assert reason(path, strict=True) == "E_TRAILING"


@pytest.mark.parametrize("zeros", [0, 100_000], ids=["", "after 100 kB of zeros"])
@pytest.mark.parametrize(
    "tail", [b"x", b"garbage", gzip.compress(b"more")[:-3]], ids=["byte", "text", "cut-off member"]
)
def test_f04_what_follows_is_noticed_wherever_it_is_and_however_short(
    put: Callable[..., Path], zeros: int, tail: bytes
) -> None:
    path = put(raw_bytes(), "scan.nii.gz")
    path.write_bytes(path.read_bytes() + bytes(zeros) + tail)
    assert reason(path, strict=True) in {"E_TRAILING", "E_SIZE", "E_TRUNCATED"}


@pytest.mark.parametrize("beyond", range(-3, 2))
def test_f04_members_may_begin_anywhere_in_the_pieces_that_are_read(put: Callable[..., Path], beyond: int) -> None:
    data = bytes(raw_bytes())
    first, text = gzip.compress(data[:500]), gzip.compress(b"")
    name = b"n" * (65_536 + beyond - len(first) - 20 - 1)
    named = text[:3] + b"\x08" + text[4:10] + name + b"\0" + text[10:]
    path = put(b"", "scan.nii.gz")
    path.write_bytes(first + named + gzip.compress(data[500:]))
    assert len(first + named) == 65_536 + beyond
    assert np.array_equal(read_volume(path).hu, SCAN.T)


def test_f05_a_stream_of_empty_members_is_refused_before_it_takes_long(put: Callable[..., Path]) -> None:
    path = put(raw_bytes(), "scan.nii.gz")
    sound = path.read_bytes()
    path.write_bytes(gzip.compress(b"") * 100 + sound)
    assert np.array_equal(read_volume(path).hu, SCAN.T), "a few do no harm"
    path.write_bytes(sound + gzip.compress(b"") * 100_000)
    began = time.process_time()
    assert reason(path) == "E_GZIP"
    assert time.process_time() - began < 0.5


def test_f05_a_bomb_is_refused_by_its_header(put: Callable[..., Path]) -> None:
    path = put(raw_bytes(dim=[3, 20000, 20000, 26, 1, 1, 1, 1]), "scan.nii.gz")
    began = time.perf_counter()
    assert reason(path) == "E_TOO_LARGE"
    assert reason(path, max_voxels=2**40) == "E_TRUNCATED"
    assert time.perf_counter() - began < 1


def test_f05_a_stream_is_never_inflated_far_past_its_declared_end(put: Callable[..., Path]) -> None:
    path = put(bytes(raw_bytes()) + bytes(50 << 20), "scan.nii.gz")
    assert reason(path) == "E_SIZE"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        pytest.param("scan.nii.gz", bytes(raw_bytes()), "an uncompressed NIfTI file", id="F06 plain named gz"),
        pytest.param("scan.nii", gzip.compress(bytes(raw_bytes())), "gzip data", id="F07 gz named nii"),
        pytest.param("scan.nii.gz", b"<!DOCTYPE html><p>404", "a web page", id="F08 html"),
        pytest.param("scan.nii.gz", b"", "an empty file", id="F09 empty"),
        pytest.param("scan.nii", b"", "an empty file", id="F09 empty plain"),
        pytest.param("scan.nii", bytes(128) + b"DICM" + bytes(300), "a DICOM file", id="dicom"),
        pytest.param("scan.nii.gz", b"PK\x03\x04rest", "a zip archive", id="zip"),
        pytest.param("scan.img", bytes(raw_bytes()), "not named .nii", id="other suffix"),
    ],
)
def test_f06_to_f09_what_is_no_nifti_file_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=words) as caught:
        read_volume(path)
    assert caught.value.code == "E_NOT_NIFTI"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert reason(tmp_path / "no.nii.gz") == "E_NO_FILE"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_f10_an_affine_that_is_not_finite_is_refused_at_once(put: Callable[..., Path], value: float) -> None:
    path = put(raw_bytes(srow_x=[value, 0, 0, 0]))
    began = time.perf_counter()
    assert reason(path) == "E_AFFINE"
    assert time.perf_counter() - began < 0.1


@pytest.mark.parametrize("row", [[0, 0, 0, 0], [0, -0.7, 0, 0]])
def test_f11_a_singular_affine_is_refused(put: Callable[..., Path], row: list[float]) -> None:
    assert reason(put(raw_bytes(srow_x=row))) == "E_AFFINE"


@pytest.mark.parametrize("fields", [{"sform_code": -3}, {"sform_code": 0, "qform_code": -1}], ids=["sform", "qform"])
def test_f11_a_negative_code_of_the_affine_is_refused(put: Callable[..., Path], fields: dict[str, object]) -> None:
    assert reason(put(raw_bytes(**fields))) == "E_AFFINE"


@pytest.mark.parametrize("far", [2e6, -1e28, 3.4e38])
def test_f11_a_scan_a_kilometre_away_is_refused(put: Callable[..., Path], far: float) -> None:
    assert reason(put(raw_bytes(srow_x=[-0.7, 0, 0, far], qform_code=0))) == "E_AFFINE"


def test_f12_a_grid_that_grows_without_end_when_it_is_resampled_is_refused_by_its_header(
    put: Callable[..., Path],
) -> None:
    image = nifti(np.resize(SCAN, (100, 2, 100)))
    path = put(
        raw_bytes(image, srow_x=[700, 0.007, 0, 0], srow_y=[700, -0.007, 0, 0], srow_z=[0, 0, 50, 0], qform_code=0)
    )
    assert reason(path) == "E_OBLIQUE"
    began = time.process_time()
    assert reason(path, oblique="resample") == "E_TOO_LARGE"
    assert time.process_time() - began < 0.1


def test_f12_a_sheared_affine_is_refused_unless_resampled(put: Callable[..., Path]) -> None:
    path = put(raw_bytes(srow_y=[0, -0.7, 0.5, 0], qform_code=0))
    assert reason(path) == "E_SHEARED"
    assert read_volume(path, oblique="resample").geometry.spacing_mm == pytest.approx((5, 0.7, 0.7), rel=0.02)


def test_f13_where_sform_and_qform_disagree_the_sform_is_used_with_a_warning(
    put: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    volume = read_volume(put(raw_bytes(qoffset_x=30)))
    assert "30 mm apart; the sform was used" in caplog.text
    assert volume.geometry.affine[0, 3] == pytest.approx(0)


def test_f14_no_orientation_is_refused_unless_assumed(put: Callable[..., Path]) -> None:
    path = put(raw_bytes(qform_code=0, sform_code=0))
    assert reason(path) == "E_NO_ORIENTATION"
    assert read_volume(path, assume_spacing=True).geometry.spacing_mm == pytest.approx((5, 0.7, 0.7))


@pytest.mark.parametrize(("unit", "factor"), [(1, 1e-3), (3, 1e3)], ids=["metre", "micron"])
def test_f15_metres_and_micrometres_become_millimetres(
    put: Callable[..., Path], caplog: pytest.LogCaptureFixture, unit: int, factor: float
) -> None:
    image = nifti(affine=np.diag([-0.7 * factor, -0.7 * factor, 5 * factor, 1]))
    volume = read_volume(put(raw_bytes(image, xyzt_units=unit)))
    assert volume.geometry.spacing_mm == pytest.approx((5, 0.7, 0.7))
    assert "sizes are given in" in caplog.text


def test_f15_an_unknown_unit_is_told(put: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    assert read_volume(put(raw_bytes(xyzt_units=5))).geometry.spacing_mm == pytest.approx((5, 0.7, 0.7))
    assert "unknown unit" in caplog.text


def test_bits_that_do_not_fit_the_type_are_told(put: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    assert np.array_equal(read_volume(put(raw_bytes(bitpix=8))).hu, SCAN.T)
    assert "8 bits" in caplog.text


def test_f15_a_voxel_of_no_scanners_size_is_refused(put: Callable[..., Path]) -> None:
    assert reason(put(raw_bytes(xyzt_units=1))) == "E_AFFINE"


@pytest.mark.parametrize("sizes", [[1, 0, 0.7, 5], [1, 0.7, -0.7, 5], [1, np.nan, 0.7, 5]])
def test_f16_impossible_voxel_sizes_need_an_sform(
    put: Callable[..., Path], caplog: pytest.LogCaptureFixture, sizes: list[float]
) -> None:
    pixdim = [*sizes, 0, 0, 0, 0]
    assert read_volume(put(raw_bytes(pixdim=pixdim))).geometry.spacing_mm == pytest.approx((5, 0.7, 0.7))
    assert "the sform was used" in caplog.text
    assert reason(put(raw_bytes(pixdim=pixdim, sform_code=0))) == "E_AFFINE"


def test_a_quaternion_that_cannot_be_needs_an_sform(put: Callable[..., Path]) -> None:
    assert read_volume(put(raw_bytes(quatern_b=3))).geometry.shape == SHAPE[::-1]
    assert reason(put(raw_bytes(quatern_b=3, sform_code=0))) == "E_AFFINE"


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_f17_a_slope_of_zero_or_nan_means_unscaled(put: Callable[..., Path], slope: float) -> None:
    hu = read_volume(put(raw_bytes(scl_slope=slope, scl_inter=5))).hu
    assert hu.dtype == np.int16
    assert sorted(hu.ravel()) == sorted(SCAN.ravel())


def test_f17_an_intercept_that_is_not_finite_is_refused(put: Callable[..., Path]) -> None:
    assert reason(put(raw_bytes(scl_slope=2, scl_inter=np.nan))) == "E_SCALE"


def test_f18_slope_and_intercept_are_applied(put: Callable[..., Path]) -> None:
    stored = RNG.integers(0, 900, SHAPE).astype(np.int16)
    hu = read_volume(put(raw_bytes(nifti(stored), scl_slope=2, scl_inter=-1024))).hu
    assert sorted(hu.ravel()) == sorted(stored.ravel().astype(int) * 2 - 1024)


def test_f19_one_frame_of_four_dimensions_is_squeezed(put: Callable[..., Path]) -> None:
    assert read_volume(put(raw_bytes(dim=[4, *SHAPE, 1, 1, 1, 1]))).geometry.shape == SHAPE[::-1]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        pytest.param({"dim": [4, 6, 5, 2, 2, 1, 1, 1]}, "E_4D", id="F20 frames"),
        pytest.param({"dim": [2, 6, 20, 1, 1, 1, 1, 1]}, "E_2D", id="F21 flat"),
        pytest.param({"datatype": 128}, "E_RGB", id="F22 colour"),
        pytest.param({"datatype": 32}, "E_COMPLEX", id="F23 complex"),
        pytest.param({"datatype": 1536}, "E_DTYPE", id="float128"),
        pytest.param({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, "E_TOO_LARGE", id="F24 huge"),
        pytest.param({"dim": [3, 6, 0, 4, 1, 1, 1, 1]}, "E_DIM", id="F25 zero"),
        pytest.param({"dim": [3, 6, -5, 4, 1, 1, 1, 1]}, "E_DIM", id="F25 negative"),
        pytest.param({"dim": [99, 6, 5, 4, 1, 1, 1, 1]}, "E_DIM", id="F25 rank"),
        pytest.param({"dim": [3, 6, 5, 5, 1, 1, 1, 1]}, "E_TRUNCATED", id="F26 more than the file"),
        pytest.param({"dim": [3, 6, 5, 3, 1, 1, 1, 1]}, "E_SIZE", id="F26 less than the file"),
        pytest.param({"vox_offset": 100}, "E_OFFSET", id="offset in the header"),
        pytest.param({"vox_offset": np.nan}, "E_OFFSET", id="offset not a number"),
        pytest.param({"vox_offset": 1e12}, "E_OFFSET", id="offset far away"),
        pytest.param({"magic": b"ni1"}, "E_NOT_NIFTI", id="pair"),
        pytest.param({"magic": b""}, "E_ANALYZE", id="F34 analyze"),
    ],
)
def test_f20_to_f26_what_is_not_one_scan_is_refused_by_its_header(
    put: Callable[..., Path], fields: dict[str, object], code: str
) -> None:
    with pytest.raises(FileFormatError) as caught:
        read_header(put(raw_bytes(**fields)))
    assert caught.value.code == code


def test_f26_a_compressed_file_with_too_many_voxels_is_refused(put: Callable[..., Path]) -> None:
    assert reason(put(raw_bytes(dim=[3, 6, 5, 3, 1, 1, 1, 1]), "scan.nii.gz")) == "E_SIZE"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_f27_voxels_that_are_no_number_are_refused_or_filled_as_asked(
    put: Callable[..., Path], caplog: pytest.LogCaptureFixture, bad: float
) -> None:
    values = SCAN.astype(np.float32)
    values[2, 2, 2] = bad
    path = put(raw_bytes(nifti(values)))
    assert reason(path) == "E_NAN"
    assert stream_reason(path) == "E_NAN"
    hu = read_volume(path, nan=-1024).hu
    assert np.count_nonzero(hu == -1024) == 1
    assert "1 voxels that were NaN or infinite" in caplog.text


@pytest.mark.parametrize(
    ("values", "code", "words"),
    [
        pytest.param(np.linspace(0, 255, 120).astype(np.uint8), "E_NOT_HU", "8-bit", id="F28 0-255"),
        pytest.param(np.linspace(0, 1, 120).astype(np.float32), "E_NOT_HU", "8-bit", id="F28 0-1"),
        pytest.param(np.linspace(0, 4095, 120).astype(np.int16), "E_NOT_HU", "1024", id="F29 12-bit"),
        pytest.param(np.linspace(-400, 800, 120).astype(np.int16), "E_NOT_HU", "as dark as air", id="no air"),
        pytest.param(np.full(120, -1000, np.int16), "E_CONSTANT", "no picture", id="constant"),
        pytest.param(np.linspace(-1000, 90000, 120).astype(np.int32), "E_RANGE", "int16", id="beyond int16"),
        pytest.param(np.linspace(-1000, 1e30, 120).astype(np.float32), "E_RANGE", "int16", id="no number that HU have"),
        pytest.param(np.linspace(-1e300, 1e300, 120), "E_RANGE", "int16", id="beyond single precision"),
    ],
)
def test_f28_to_f31_values_that_are_not_hu_are_refused_with_advice(
    put: Callable[..., Path], values: np.ndarray, code: str, words: str
) -> None:
    path = put(raw_bytes(nifti(values.reshape(SHAPE))), "scan.nii.gz")
    with pytest.raises(IntensityError, match=words) as caught:
        read_volume(path)
    assert caught.value.code == code
    assert stream_reason(path) == code


def test_values_that_one_hu_holds_are_no_picture_read_whole_or_streamed(put: Callable[..., Path]) -> None:
    path = put(raw_bytes(scl_slope=1e-5, scl_inter=-1000))
    assert reason(path) == stream_reason(path) == "E_CONSTANT"


def test_values_beyond_single_precision_are_refused_whatever_they_are(put: Callable[..., Path]) -> None:
    path = put(raw_bytes(nifti(np.linspace(-1e300, 1e300, 120).reshape(SHAPE))))
    assert reason(path, require_hu=False) == "E_RANGE"
    with pytest.raises(IntensityError):
        list(NiftiSource(path, intake=Intake(require_hu=False)).slices())


def test_f28_an_8_bit_scan_is_read_where_the_reader_asks_for_no_hu(put: Callable[..., Path]) -> None:
    path = put(raw_bytes(nifti(np.arange(120, dtype=np.uint8).reshape(SHAPE))))
    assert read_volume(path, require_hu=False).hu.max() == 119


@pytest.mark.parametrize("padding", [-3024, -2000])
def test_f30_padding_is_kept_and_told(put: Callable[..., Path], caplog: pytest.LogCaptureFixture, padding: int) -> None:
    caplog.set_level(logging.INFO)
    values = SCAN.copy()
    values[0] = padding
    assert read_volume(put(raw_bytes(nifti(values)))).hu.min() == padding
    assert "padding" in caplog.text


def big_endian() -> nib.Nifti1Image:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    image = nib.Nifti1Image(SCAN.astype(">i2"), np.diag([-0.7, -0.7, 5, 1.0]), header)
    image.header.set_xyzt_units("mm")
    return image


@pytest.mark.parametrize("image", [nifti(), big_endian(), nifti(kind=nib.Nifti2Image)], ids=["1", "F32", "F33"])
@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_f32_f33_either_byte_order_and_version_is_read(
    put: Callable[..., Path], image: nib.Nifti1Image, name: str
) -> None:
    volume = read_volume(put(image.to_bytes(), name))
    assert volume.hu.dtype.isnative
    assert np.array_equal(volume.hu, SCAN.T)
    assert volume.geometry.spacing_mm == pytest.approx((5, 0.7, 0.7))


@pytest.mark.parametrize("shape", [(6, 5, 1), (1, 1, 9), (2, 2, 3000)], ids=["one slice", "one pixel", "3000 slices"])
def test_f35_extreme_shapes_are_read(put: Callable[..., Path], shape: tuple[int, int, int]) -> None:
    values = np.resize(np.array([-1000, 40, 100], np.int16), shape)
    assert read_volume(put(raw_bytes(nifti(values)), "scan.nii.gz")).geometry.shape == shape[::-1]


def mask_file(put: Callable[..., Path], array: np.ndarray, affine: np.ndarray | None = None, **fields: object) -> Path:
    return put(raw_bytes(nifti(array, affine), **fields), "mask.nii.gz")


HALF = (np.arange(120).reshape(SHAPE) % 2).astype(np.uint8)


def mask_reason(mask: Path, scan: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_mask(mask, read_volume(scan).geometry)
    with pytest.raises(InputError) as again:
        list(NiftiSource(scan, lesion=mask).slices())
    assert caught.value.code == again.value.code
    return caught.value.code


def test_f37_a_mask_of_another_shape_is_refused(put: Callable[..., Path]) -> None:
    mask = mask_file(put, HALF[:, :, :3])
    assert mask_reason(mask, put(raw_bytes())) == "E_MASK_SHAPE"


@pytest.mark.parametrize("off", [0.01, -2.5])
def test_f38_a_mask_at_another_place_is_refused(put: Callable[..., Path], off: float) -> None:
    affine = np.diag([-0.7, -0.7, 5, 1.0])
    affine[2, 3] = off
    assert mask_reason(mask_file(put, HALF, affine), put(raw_bytes())) == "E_MASK_AFFINE"


def chest(shape: tuple[int, int, int] = (40, 30, 24)) -> tuple[np.ndarray, np.ndarray]:
    """Soft tissue with one dark, lopsided lung, and its mask; axes i, j, k."""
    lung = np.zeros(shape, np.uint8)
    lung[4:14, 3:12, 2:14] = 1
    scan = np.where(lung, -800, 40).astype(np.int16)
    scan[0, :, :] = -1000
    return scan, lung


@pytest.mark.parametrize(("axis", "way"), [(0, "left to right"), (1, "front to back"), (2, "head to foot")])
def test_f39_a_mirrored_lung_mask_is_recognised(put: Callable[..., Path], axis: int, way: str) -> None:
    scan, lung = chest()
    volume, mask = put(raw_bytes(nifti(scan))), mask_file(put, np.flip(lung, axis))
    with pytest.raises(AnnotationError, match=way) as caught:
        list(NiftiSource(volume, lung=mask).slices())
    assert caught.value.code == "E_MASK_FLIPPED"
    with pytest.raises(AnnotationError, match=way):
        NiftiSource(volume, lung=mask).read()


def test_f39_air_beside_the_patient_is_no_better_place_for_a_lung_mask_than_the_lung(put: Callable[..., Path]) -> None:
    scan, lung = chest()
    scan[:, :, 12:] = -1024  # the table was lowered too late; or the grid is larger than the scan, as after resampling
    volume, lungs = put(raw_bytes(nifti(scan))), put(raw_bytes(nifti(lung)), "lung.nii.gz")

    _, read, _ = NiftiSource(volume, lungs).read()

    assert read is not None


def test_f39_a_mirrored_lesion_mask_is_recognised_by_the_lung(put: Callable[..., Path]) -> None:
    scan, lung = chest()
    lesion = np.zeros_like(lung)
    lesion[5:13, 4:11, 3:13] = 1
    volume, lungs = put(raw_bytes(nifti(scan))), put(raw_bytes(nifti(lung)), "lung.nii.gz")
    list(NiftiSource(volume, lungs, mask_file(put, lesion)).slices())
    with pytest.raises(AnnotationError, match=r"mask.nii.gz seems to be mirrored left to right"):
        list(NiftiSource(volume, lungs, mask_file(put, lesion[::-1])).slices())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        pytest.param(HALF * 255, r"255 \(60 voxels\)", id="0/255"),
        pytest.param(HALF * 3, r"3 \(60 voxels\)", id="label 3"),
        pytest.param(HALF.astype(np.float32) * 0.9999, r"0.9999 \(60 voxels\).*interpolation", id="0.9999"),
        pytest.param(-HALF.astype(np.int16), r"-1 \(60 voxels\)", id="negative"),
        pytest.param(np.where(HALF, np.nan, 0).astype(np.float32), r"nan .*interpolation", id="NaN"),
    ],
)
def test_f40_values_that_were_not_declared_are_named_and_counted(
    put: Callable[..., Path], values: np.ndarray, words: str
) -> None:
    mask, scan = mask_file(put, values), put(raw_bytes())
    with pytest.raises(AnnotationError, match=words):
        read_mask(mask, read_volume(scan).geometry)
    assert mask_reason(mask, scan) == "E_LABELS"


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_f40_declared_labels_are_chosen_whatever_the_stored_type(put: Callable[..., Path], dtype: type) -> None:
    values = RNG.integers(0, 4, SHAPE).astype(dtype)
    geometry = read_volume(put(raw_bytes())).geometry
    mask = read_mask(mask_file(put, values), geometry, labels=frozenset({1, 3}), declared=frozenset({1, 2, 3}))
    assert np.array_equal(mask.voxels, np.isin(values, [1, 3]).T)


def test_f40_labels_far_apart_are_read(put: Callable[..., Path]) -> None:
    mask = mask_file(put, HALF * 255)
    voxels = read_mask(mask, read_volume(put(raw_bytes())).geometry, labels=frozenset({255})).voxels
    assert np.array_equal(voxels, HALF.T == 1)


def test_labels_that_make_no_mask_are_refused() -> None:
    for chosen, declared in (({0}, {0, 1}), (set(), {1}), ({2}, {1})):
        with pytest.raises(AnnotationError):
            Labels(frozenset(chosen), frozenset(declared))


def test_a_header_struck_by_random_bytes_gives_a_typed_error_or_the_same_voxels(put: Callable[..., Path]) -> None:
    """A small part of the fuzzing that runs elsewhere: no crash, no hang, no other kind of error."""
    clean = raw_bytes()
    rng = np.random.default_rng(1)
    for _ in range(300):
        data = bytearray(clean)
        for where in rng.integers(0, 348, rng.integers(1, 6)):
            data[where] = rng.integers(0, 256)
        path = put(data)
        try:
            hu = read_volume(path, oblique="resample", require_hu=False).hu
        except InputError:
            continue
        assert np.isfinite(hu).all()


def test_the_first_bytes_decide_the_byte_order(put: Callable[..., Path]) -> None:
    data = raw_bytes()
    data[:4] = struct.pack("<i", 349)
    assert reason(put(data)) == "E_NOT_NIFTI"


def test_how_strictly_files_are_taken_in_holds_for_masks_too(put: Callable[..., Path]) -> None:
    mask = mask_file(put, HALF)
    mask.write_bytes(mask.read_bytes() + b"sixteen bytes...")
    with pytest.raises(FileFormatError):
        list(NiftiSource(put(raw_bytes()), lesion=mask, intake=Intake(strict=True)).slices())


def test_an_oblique_scan_is_refused_unless_resampled(put: Callable[..., Path]) -> None:
    turn = np.radians(10)
    affine = np.array(
        [
            [-0.7 * np.cos(turn), 0.7 * np.sin(turn), 0, 3],
            [-0.7 * np.sin(turn), -0.7 * np.cos(turn), 0, 4],
            [0, 0, 5, 0],
            [0, 0, 0, 1],
        ]
    )
    path = put(raw_bytes(nifti(affine=affine)))
    assert reason(path) == "E_OBLIQUE"
    with pytest.raises(GeometryError):
        NiftiSource(path).geometry  # noqa: B018
    volume, _, _ = NiftiSource(path, intake=Intake(oblique="resample")).read()
    assert volume.hu.dtype == np.int16
    assert volume.hu.shape == volume.geometry.shape


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
def test_f76_a_disk_that_fails_while_a_scan_is_read_is_an_error_of_that_scan(
    put: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = put(raw_bytes(), name)

    class Broken(io.FileIO):
        def read(self, _: int = -1) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "open", lambda self, *_, **__: Broken(self))
    assert reason(path) == "E_READ"
