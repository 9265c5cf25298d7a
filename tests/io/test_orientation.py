"""Reading and writing keep every voxel at its place in the patient, whatever the axis order and flips of the file."""

from __future__ import annotations

import tempfile
from itertools import permutations
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungshift.ct.geometry import Geometry
from lungshift.ct.volume import Mask, Volume
from lungshift.errors import GeometryError
from lungshift.io.header import Intake, read_header
from lungshift.io.nifti import NiftiSource, read_mask, read_volume
from lungshift.io.orientation import layout_of
from lungshift.io.writing import write_mask, write_volume

TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

ANY_FILE = st.builds(
    dict,
    shape=st.tuples(*[st.integers(1, 5)] * 3).filter(lambda shape: np.prod(shape) > 3),
    order=st.permutations(range(3)),
    signs=st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    origin=st.tuples(*[st.floats(-400, 400)] * 3),
    form=st.sampled_from(["sform", "qform", "both"]),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
    kind=st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
)


def affine_of(file: dict) -> np.ndarray:
    """File axis n runs along world axis order[n], RAS."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign, step) in enumerate(zip(file["order"], file["signs"], file["spacing"], strict=True)):
        affine[world, axis] = sign * step
    affine[:3, 3] = file["origin"]
    return affine


def save(path: Path, array: np.ndarray, file: dict) -> None:
    image = file["kind"](array, affine_of(file))
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, 0 if file["form"] == "qform" else 1)
    image.set_qform(image.affine, 0 if file["form"] == "sform" else 1)
    image.to_filename(path)


def values(shape: tuple[int, ...]) -> np.ndarray:
    """Every voxel of its own value, with air among them."""
    return np.linspace(-1000, 900, int(np.prod(shape))).astype(np.int16).reshape(shape)


def value_at(path: Path, world_lps: np.ndarray) -> int:
    """What nibabel finds at a world point."""
    image = nib.load(path)
    index = np.linalg.inv(image.affine) @ TO_RAS @ np.append(world_lps, 1)
    assert np.abs(index[:3] - index[:3].round()).max() < 1e-3
    return int(np.asanyarray(image.dataobj)[tuple(index[:3].round().astype(int))])


@settings(max_examples=40, deadline=None)
@given(file=ANY_FILE)
def test_the_voxel_at_a_world_point_is_the_one_that_the_file_has_there(file: dict) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"scan{file['suffix']}"
        save(path, values(file["shape"]), file)
        volume = read_volume(path)
        for index in np.ndindex(*volume.hu.shape):
            assert volume.hu[index] == value_at(path, volume.geometry.world_mm(np.array(index)))


@settings(max_examples=40, deadline=None)
@given(file=ANY_FILE, seed=st.integers(0, 99))
def test_a_mask_written_like_a_scan_lies_on_the_same_voxels_with_the_same_header(file: dict, seed: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scan, path = Path(folder) / f"scan{file['suffix']}", Path(folder) / f"mask{file['suffix']}"
        save(scan, values(file["shape"]), file)
        geometry = read_volume(scan).geometry
        mask = Mask(np.random.default_rng(seed).random(geometry.shape) < 0.4, geometry)
        write_mask(mask, path, scan)
        one, other = nib.load(scan), nib.load(path)
        assert np.abs(one.affine - other.affine).max() < 1e-4
        assert other.shape == one.shape
        assert other.get_data_dtype() == np.uint8
        for name in ("qform_code", "sform_code", "pixdim", "srow_x", "quatern_b", "qoffset_x"):
            assert np.array_equal(one.header[name], other.header[name]), name
        for index in np.argwhere(mask.voxels):
            assert value_at(path, geometry.world_mm(index)) == 1
        assert np.array_equal(read_mask(path, geometry).voxels, mask.voxels)


@settings(max_examples=40, deadline=None)
@given(file=ANY_FILE, other=ANY_FILE)
def test_streaming_gives_the_slices_that_reading_gives_whatever_the_mask_files_order(file: dict, other: dict) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scan, lesion = Path(folder) / "scan.nii.gz", Path(folder) / "mask.nii"
        save(scan, values(file["shape"]), file)
        geometry = read_volume(scan).geometry
        mask = Mask(np.random.default_rng(1).random(geometry.shape) < 0.5, geometry)
        write_mask(mask, lesion, scan if file["form"] == "both" else None)
        source = NiftiSource(scan, lesion=lesion)
        volume, lung, read_lesion = source.read()
        parts = {part.index: part for part in source.slices()}
        assert lung is None
        assert sorted(parts) == list(range(geometry.shape[0]))
        for index, part in parts.items():
            assert np.array_equal(part.hu, volume.hu[index])
            assert np.array_equal(part.lesion, mask.voxels[index])
        assert np.array_equal(read_lesion.voxels, mask.voxels)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_left_stays_left(tmp_path: Path, order: tuple[int, int, int]) -> None:
    """A bright voxel at the patient's left, front and head end is at the last column, first row and last slice."""
    file = {"order": order, "signs": (-1, 1, -1), "spacing": (1, 2, 3), "origin": (7, 8, 9), "form": "both"}
    file |= {"kind": nib.Nifti1Image}
    affine = affine_of(file)
    array = np.full((4, 5, 6), -1000, np.int16)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in array.shape])).reshape(3, -1).T
    world = corners @ affine[:3, :3].T + affine[:3, 3]
    left_front_head = np.argmax(world @ [-1, 1, 1])
    array[tuple(corners[left_front_head])] = 500
    save(tmp_path / "scan.nii.gz", array, file)
    hu = read_volume(tmp_path / "scan.nii.gz").hu
    assert np.argwhere(hu == 500).tolist() == [[hu.shape[0] - 1, 0, hu.shape[2] - 1]]


def test_a_file_of_slices_streams_and_another_order_does_not(tmp_path: Path) -> None:
    file = {"signs": (1, 1, -1), "spacing": (1, 1, 1), "origin": (0, 0, 0), "form": "both", "kind": nib.Nifti1Image}
    for order, streams in (((0, 1, 2), True), ((1, 0, 2), True), ((2, 1, 0), False)):
        path = tmp_path / "scan.nii"
        save(path, values((3, 4, 5)), file | {"order": order})
        assert layout_of(read_header(path)).streams is streams
    path = tmp_path / "head_first.nii"
    save(path, values((3, 4, 5)), file | {"order": (0, 1, 2)})
    assert [part.index for part in NiftiSource(path).slices()] == [4, 3, 2, 1, 0]


@settings(max_examples=25, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-0.4, 0.4)] * 3).filter(lambda a: max(map(abs, a)) > 0.05),
    spacing=st.tuples(*[st.floats(1, 3)] * 3),
)
def test_an_oblique_scan_is_resampled_to_the_same_world_points(
    angles: tuple[float, float, float], spacing: tuple[float, float, float]
) -> None:
    """HU made a linear function of the world must still be that function after linear resampling."""
    from scipy.spatial.transform import Rotation

    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles).as_matrix() * spacing
    affine[:3, 3] = (10, -20, 30)
    indices = np.moveaxis(np.indices((9, 10, 11)), 0, -1)
    ras = indices @ affine[:3, :3].T + affine[:3, 3]
    with tempfile.TemporaryDirectory() as folder:
        path, mask_path = Path(folder) / "scan.nii.gz", Path(folder) / "mask.nii.gz"
        nib.Nifti1Image((ras @ [3.0, -2.0, 1.0] - 300).astype(np.float32), affine).to_filename(path)
        nib.Nifti1Image(np.ones((9, 10, 11), np.uint8), affine).to_filename(mask_path)
        with pytest.raises(GeometryError):
            read_volume(path)
        volume = read_volume(path, oblique="resample", require_hu=False)
        mask = read_mask(mask_path, volume.geometry, oblique="resample")
    index = np.moveaxis(np.indices(volume.hu.shape), 0, -1)
    lps = volume.geometry.world_mm(index)
    expected = lps @ [-3.0, 2.0, 1.0] - 300
    stored = (lps * [-1, -1, 1] - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    inside = ((stored >= 0) & (stored <= np.array([8, 9, 10]))).all(-1)
    outside = ((stored < -0.6) | (stored > np.array([8.6, 9.6, 10.6]))).any(-1)
    assert np.count_nonzero(inside) > 100
    assert np.abs(volume.hu - expected)[inside].max() < 0.1
    assert mask.voxels[inside].all()
    assert (volume.hu[outside] == -1024).all()
    assert not mask.voxels[outside].any()


def test_an_oblique_mask_follows_its_oblique_scan(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]]
    scan = np.full((12, 12, 3), 40, np.int16)
    scan[2:10, 2:10] = -900
    nib.Nifti1Image(scan, affine).to_filename(tmp_path / "scan.nii.gz")
    nib.Nifti1Image((scan < 0).astype(np.uint8), affine).to_filename(tmp_path / "lung.nii.gz")
    source = NiftiSource(tmp_path / "scan.nii.gz", tmp_path / "lung.nii.gz", intake=Intake(oblique="resample"))
    volume, lung, _ = source.read()
    assert lung is not None
    assert volume.hu[lung.voxels].mean() < -800
    assert len(list(source.slices())) == volume.hu.shape[0]


def test_nothing_of_the_patient_is_copied_from_the_model_file(tmp_path: Path) -> None:
    image = nib.Nifti1Image(values((3, 4, 5)), np.diag([-1, -1, 2, 1.0]))
    image.header["descrip"] = b"DOE JANE"
    image.header["aux_file"] = b"JANE.txt"
    image.header["db_name"] = b"JANE"
    image.header["intent_name"] = b"JANE"
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"JANE DOE born 1950"))
    scan, path = tmp_path / "scan.nii", tmp_path / "mask.nii"
    image.to_filename(scan)
    geometry = read_volume(scan).geometry
    write_mask(Mask(np.ones(geometry.shape, bool), geometry), path, scan)
    assert b"JANE" in scan.read_bytes()
    assert b"JANE" not in path.read_bytes()
    assert len(path.read_bytes()) == 352 + 60


def test_equal_masks_give_equal_files(tmp_path: Path) -> None:
    grid = Geometry.regular((3, 4, 5), (5, 0.7, 0.7), (-10, -20, -30))
    mask = Mask(np.arange(60).reshape(3, 4, 5) % 3 == 0, grid)
    for name in ("a.nii.gz", "b.nii.gz"):
        write_mask(mask, tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_written_scan_is_read_back_as_it_was(tmp_path: Path, dtype: type) -> None:
    grid = Geometry.regular((3, 4, 5), (5, 0.7, 0.6), (-10, -20, -30))
    volume = Volume(values(grid.shape).astype(dtype), grid)
    write_volume(volume, tmp_path / "scan.nii.gz")
    again = read_volume(tmp_path / "scan.nii.gz")
    assert again.hu.dtype == dtype
    assert np.array_equal(again.hu, volume.hu)
    assert grid.difference(again.geometry) is None


def test_a_mask_is_not_written_on_another_scans_grid(tmp_path: Path) -> None:
    grid = Geometry.regular((3, 4, 5), (5, 0.7, 0.7))
    write_volume(Volume(values(grid.shape), grid), tmp_path / "scan.nii.gz")
    for other in (Geometry.regular((3, 4, 6), (5, 0.7, 0.7)), Geometry.regular((3, 4, 5), (5, 0.7, 0.8))):
        with pytest.raises(GeometryError, match="Cannot write"):
            write_mask(Mask(np.ones(other.shape, bool), other), tmp_path / "mask.nii.gz", tmp_path / "scan.nii.gz")
    assert not (tmp_path / "mask.nii.gz").exists()
