"""A mask that is written slice by slice is the file that writing it whole gives, or no file at all."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask
from lungshift.errors import AnnotationError, FileFormatError, GeometryError, ResourceError
from lungshift.io import writing
from lungshift.io.header import read_header
from lungshift.io.nifti import read_mask, read_volume
from lungshift.io.orientation import layout_of
from lungshift.io.writing import new_mask, write_mask

GRID = Geometry.regular((4, 3, 5), (5.0, 0.7, 0.6), (-10, -20, -30))
MASK = Mask(np.random.default_rng(3).random(GRID.shape) < 0.5, GRID)


@settings(max_examples=30, deadline=None)
@given(
    axes=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3),
    order=st.permutations(range(4)),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
)
def test_slices_may_come_in_any_order_for_a_scan_with_any_axes(
    axes: list[int], signs: tuple[int, int, int], order: list[int], suffix: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scan, whole, streamed = (Path(folder) / f"{name}{suffix}" for name in ("scan", "whole", "streamed"))
        shape, affine = np.empty(3, int), np.eye(4)
        for world, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
            shape[axis] = (5, 3, 4)[world]  # columns along x, rows along y, slices along z
            affine[:3, axis] = np.eye(3)[world] * sign * 2
        nib.Nifti1Image((np.arange(60).reshape(shape) - 1000).astype(np.int16), affine).to_filename(scan)
        geometry = read_volume(scan, require_hu=False).geometry
        mask = Mask(MASK.voxels, geometry)

        write_mask(mask, whole, scan)
        with new_mask(streamed, geometry, scan) as writer:
            for index in order:
                writer.write(index, mask.voxels[index])

        assert streamed.read_bytes() == whole.read_bytes()
        assert np.array_equal(read_mask(streamed, geometry).voxels, MASK.voxels)


@settings(max_examples=25, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-0.4, 0.4)] * 3).filter(lambda a: max(map(abs, a)) > 0.05),
    shear=st.floats(-0.2, 0.2),
    axes=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([-1, 1])] * 3),
)
def test_a_mask_of_a_scan_that_was_resampled_goes_back_to_the_nearest_voxels_of_its_file(
    angles: tuple[float, float, float], shear: float, axes: list[int], signs: tuple[int, int, int]
) -> None:
    from scipy.spatial.transform import Rotation

    affine, slant = np.eye(4), np.eye(3)
    slant[1, 2] = shear
    for world, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        affine[:3, axis] = np.eye(3)[world] * sign * (1.0, 1.5, 2.0)[world]
    affine[:3, :3] = Rotation.from_euler("xyz", angles).as_matrix() @ slant @ affine[:3, :3]
    affine[:3, 3] = 30, -40, 50
    ras = np.moveaxis(np.indices((14, 15, 16)), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    centre = ras.reshape(-1, 3).mean(axis=0)
    with tempfile.TemporaryDirectory() as folder:
        scan, back = Path(folder) / "scan.nii.gz", Path(folder) / "back.nii.gz"
        nib.Nifti1Image(np.zeros((14, 15, 16), np.int16) - 1000, affine).to_filename(scan)
        with pytest.raises(GeometryError, match="--resample"):
            write_mask(MASK, back, scan)
        grid = layout_of(read_header(scan), "resample").geometry
        lps = grid.world_mm(np.moveaxis(np.indices(grid.shape), 0, -1))
        left = Mask((lps * (-1, -1, 1))[..., 0] < centre[0], grid)

        write_mask(left, back, scan, oblique="resample")

        np.testing.assert_array_equal(nib.load(back).affine, nib.load(scan).affine)
        written = np.asarray(nib.load(back).dataobj) == 1
    sure = np.abs(ras[..., 0] - centre[0]) > max(grid.spacing_mm)
    np.testing.assert_array_equal(written[sure], (ras[..., 0] < centre[0])[sure])


def write(path: Path, *indices: int) -> None:
    with new_mask(path, GRID) as writer:
        for index in indices:
            writer.write(index, MASK.voxels[index % 4])


def test_slices_in_the_order_of_the_file_do_not_wait_in_memory(tmp_path: Path) -> None:
    with new_mask(tmp_path / "mask.nii.gz", GRID) as writer:
        assert list(writer.order) == [0, 1, 2, 3]
        for index in writer.order:
            writer.write(index, MASK.voxels[index])
            assert not writer._waiting


@pytest.mark.parametrize(
    ("indices", "words"),
    [
        pytest.param((0, 1, 3), "1 of 4 slices of the mask never came", id="missing"),
        pytest.param((0, 1, 1), "was written before", id="twice"),
        pytest.param((0, 4), "is none of its slices", id="beyond the head"),
        pytest.param((0, -1), "is none of its slices", id="below the foot"),
    ],
)
def test_a_mask_with_a_slice_too_few_or_too_many_is_not_written(
    tmp_path: Path, indices: tuple[int, ...], words: str
) -> None:
    with pytest.raises(GeometryError, match=words):
        write(tmp_path / "mask.nii.gz", *indices)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("slice_", "error"),
    [
        pytest.param(np.zeros((3, 4), bool), GeometryError, id="another shape"),
        pytest.param(np.zeros((3, 5), np.uint8), AnnotationError, id="not bool"),
    ],
)
def test_a_slice_that_does_not_fit_is_refused(tmp_path: Path, slice_: np.ndarray, error: type[Exception]) -> None:
    with pytest.raises(error), new_mask(tmp_path / "mask.nii.gz", GRID) as writer:
        writer.write(0, slice_)
    assert not list(tmp_path.iterdir())


def test_a_scan_that_fails_on_its_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "mask.nii.gz"
    write_mask(MASK, path)
    before = path.read_bytes()

    with pytest.raises(FileFormatError), new_mask(path, GRID) as writer:
        writer.write(0, ~MASK.voxels[0])
        raise FileFormatError("the scan is damaged at its end", code="E_CRC")

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_reads_back_wrong_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put = writing._Stream.write

    def flipped(stream: writing._Stream, data: memoryview) -> None:
        put(stream, bytes(byte ^ 1 for byte in data))

    monkeypatch.setattr(writing._Stream, "write", flipped)
    with pytest.raises(ResourceError, match="not what was written"):
        write(tmp_path / "mask.nii", 0, 1, 2, 3)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(stream: writing._Stream) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing._Stream, "finish", full)
    with pytest.raises(ResourceError, match="No space left on device"):
        write(tmp_path / "mask.nii.gz", 0, 1, 2, 3)
    assert not list(tmp_path.iterdir())
